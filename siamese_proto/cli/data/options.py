"""Options that several of the data commands have."""

from __future__ import annotations

from typing import cast

import click

from siamese_proto.data.databases.store import Backend

BACKENDS = click.Choice(["leveldb", "lmdb"], case_sensitive=False)

backend = click.option("--backend", type=BACKENDS, default="leveldb", show_default=True)
found_backend = click.option("--backend", type=BACKENDS, help="Judged by the files unless given.")
draw = click.option(
    "--draw",
    type=click.Choice(["balanced", "uniform"]),
    default="balanced",
    show_default=True,
    help="balanced: a set fraction of the pairs is alike; uniform: both images from all, as Caffe's tool draws.",
)
fraction = click.option(
    "--same-fraction",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Of the pairs, how many are alike (balanced drawing only).",
)
seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
overwrite = click.option("--overwrite", is_flag=True, help="Replace databases of these names.")


def backend_of(name: str) -> Backend:
    """The library that an option names."""
    return cast(Backend, name.upper())
