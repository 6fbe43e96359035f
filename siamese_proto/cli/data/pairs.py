"""siamese-proto data pairs: a pair database from IDX files."""

from __future__ import annotations

from typing import Any

import click

from siamese_proto.cli.data.making import make_pairs
from siamese_proto.cli.data.options import backend, draw, fraction, overwrite, seed


@click.command()
@click.argument("images")
@click.argument("labels")
@click.argument("out")
@backend
@click.option("--count", type=click.IntRange(min=1), help="Pairs to make; as many as images unless given.")
@draw
@fraction
@seed
@overwrite
def pairs(images: str, labels: str, out: str, count: int | None, backend: str, overwrite: bool, **drawing: Any) -> None:
    """Make the pair database OUT from IDX files (the format of MNIST), plain or .gz.

    A record holds two images stacked on channels, with label 1 where they are of one class and 0 where not.
    """
    from siamese_proto.data.idx import read_labelled

    pixels, classes = read_labelled(images, labels)
    make_pairs(out, backend, pixels, classes, count=count or len(pixels), overwrite=overwrite, **drawing)
