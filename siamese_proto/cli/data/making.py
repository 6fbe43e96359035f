"""What the commands that make pairs have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from siamese_proto.cli.data.options import backend_of
from siamese_proto.cli.data.progress import progress

if TYPE_CHECKING:
    from siamese_proto.data.pairs import Draw


def make_pairs(
    out: str,
    backend: str,
    images: Any,
    classes: Any,
    *,
    count: int,
    draw: Draw,
    same_fraction: float,
    seed: int,
    overwrite: bool,
) -> None:
    """Draw and write the pairs of one database, and tell of it."""
    from siamese_proto.data.pairs import draw_pairs, write_pairs

    drawn = draw_pairs(classes, count, draw=draw, same_fraction=same_fraction, seed=seed)
    with progress(out, count, "pairs") as tell:
        write_pairs(out, backend_of(backend), images, drawn, overwrite=overwrite, progress=tell)
    same = int(drawn.same.sum())
    click.echo(f"{out}: {count} pairs, {same} same and {count - same} different")
