"""siamese-proto convert: weights from one format to another, nets to ONNX."""

from __future__ import annotations

import os
from pathlib import Path

import click

from siamese_proto.cli.onnx_file import write_onnx
from siamese_proto.cli.options import graph_to_write, net_state
from siamese_proto.errors import NetError
from siamese_proto.files import check_writable
from siamese_proto.graph.ir import Shape
from siamese_proto.proto.reader import parse_net
from siamese_proto.weights.files import looks_like
from siamese_proto.weights.formats import check_format, read_weights, write_stored


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--weights", type=click.Path(), help="Of a net that becomes ONNX: its trained weights.")
@net_state
def convert(
    source: Path,
    target: Path,
    weights: str | None,
    level: int,
    stages: tuple[str, ...],
    shapes: dict[str, Shape],
) -> None:
    """Write the weights in IN to OUT, in the format that its name ends in; or the net in IN to OUT.onnx.

    .caffemodel, .caffemodel.h5, .safetensors and .pt hold the same layers and the same numbers, bit for bit. Arrays
    that layers share are kept once, but in a .caffemodel with every layer that uses them, as in Caffe.

    An ONNX model (the extra "onnx") holds what the net computes in phase TEST and its weights; --shape, --level,
    --stage and --layers are for such a net.
    """
    check_writable(target)
    if target.suffix == ".onnx":
        _check_net(source, target)
        write_onnx(target, graph_to_write(parse_net(source), "TEST", level, stages, shapes), weights)
        return
    check_format(target)
    if weights is not None:
        raise NetError(f"{target}: --weights goes with a net that becomes ONNX: OUT must end with .onnx")
    stored = read_weights(source)
    write_stored(target, stored)
    blobs = sum(len(layer.blobs) for layer in stored.layers)
    click.echo(f"{target}: {blobs} blobs of {len(stored.layers)} layers, {os.path.getsize(target):,} bytes")


def _check_net(source: Path, target: Path) -> None:
    """NetError for weights alone, which say not what is computed with them."""
    with open(source, "rb") as opened:
        start = opened.read(512)
    if start and not looks_like(start):
        raise NetError(
            f"{source}: holds weights alone; ONNX needs the net too: convert NET.prototxt {target} --weights {source}"
        )
