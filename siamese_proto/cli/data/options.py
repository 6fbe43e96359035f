"""Options that several data commands share, and their progress display."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import click

from siamese_proto.data.databases.store import Backend

_REPORT_EVERY = 10000  # items per line of progress
BACKENDS = click.Choice(["leveldb", "lmdb"], case_sensitive=False)

backend = click.option("--backend", type=BACKENDS, default="leveldb", show_default=True)
found_backend = click.option("--backend", type=BACKENDS, help="[default: determined from the files]")
draw = click.option(
    "--draw",
    type=click.Choice(["balanced", "uniform"]),
    default="balanced",
    show_default=True,
    help="balanced: a fixed fraction of pairs of the same class; uniform: both images from all, as Caffe's tool.",
)
fraction = click.option(
    "--same-fraction",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Fraction of pairs of the same class (balanced only).",
)
seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
overwrite = click.option("--overwrite", is_flag=True, help="Replace existing databases.")


def backend_of(name: str) -> Backend:
    """Return the backend that an option names."""
    return cast(Backend, name.upper())


@contextlib.contextmanager
def progress(out: str, count: int, things: str) -> Iterator[Callable[[int], None]]:
    """Show a bar on terminals and occasional lines elsewhere; yield a function to call with the number done."""
    if sys.stdout.isatty():
        from rich.progress import Progress

        with Progress(transient=True) as bar:
            task = bar.add_task(Path(out).name, total=count)
            yield lambda done: bar.update(task, completed=done)
    else:
        reported = 0

        def report(done: int) -> None:
            nonlocal reported
            if done // _REPORT_EVERY > reported and done < count:
                reported = done // _REPORT_EVERY
                click.echo(f"{out}: {done} of {count} {things}")

        yield report
