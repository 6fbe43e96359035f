"""How long work tells how far it is."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

_TOLD_EVERY = 10000  # things, where lines tell the progress


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
