"""siamese-proto convert: weights from one format to another."""

from __future__ import annotations

import os
from pathlib import Path

import click

from siamese_proto.files import check_writable
from siamese_proto.weights.formats import check_format, read_weights, write_stored


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
def convert(source: Path, target: Path) -> None:
    """Write the weights in IN to OUT, in the format that its name ends in.

    .caffemodel, .caffemodel.h5, .safetensors and .pt hold the same layers and the same numbers, bit for bit. Arrays
    that layers share are kept once, but in a .caffemodel with every layer that uses them, as in Caffe.
    """
    check_writable(target)
    check_format(target)
    stored = read_weights(source)
    write_stored(target, stored)
    blobs = sum(len(layer.blobs) for layer in stored.layers)
    click.echo(f"{target}: {blobs} blobs of {len(stored.layers)} layers, {os.path.getsize(target):,} bytes")
