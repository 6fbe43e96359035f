"""Options of several data commands, and the display of their progress."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import click

from siamese_proto.data.databases.store import Backend

_TOLD_EVERY = 10000  # things, where lines tell the progress
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


@contextlib.contextmanager
def progress(out: str, count: int, things: str) -> Iterator[Callable[[int], None]]:
    """A bar on terminals, a line now and then elsewhere; what is given is called with the number done so far."""
    if sys.stdout.isatty():
        from rich.progress import Progress

        with Progress(transient=True) as bar:
            task = bar.add_task(Path(out).name, total=count)
            yield lambda done: bar.update(task, completed=done)
    else:
        told = 0

        def tell(done: int) -> None:
            nonlocal told
            if done // _TOLD_EVERY > told and done < count:
                told = done // _TOLD_EVERY
                click.echo(f"{out}: {done} of {count} {things}")

        yield tell
