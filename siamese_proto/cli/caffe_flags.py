"""Flags of Caffe's commands, in all their spellings, and the handlers of log lines."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from siamese_proto.cli.group import CaffeFlag, section
from siamese_proto.errors import NetError, SolverError, quoted
from siamese_proto.proto.values import whole_number
from siamese_proto.solver.log import CaffeFormatter, Event, log

if TYPE_CHECKING:
    import torch


def flag(spelling: str, *, name: str | None = None, **settings: Any) -> Callable[[Any], Any]:
    """Return an option in Caffe's spellings too: `--sigint-effect`, `--sigint_effect`, `-sigint_effect`."""
    underscored = spelling.replace("-", "_")
    spellings = dict.fromkeys([f"--{spelling}", f"--{underscored}", f"-{underscored}"])
    return click.option(*spellings, name or underscored, cls=CaffeFlag, **settings)


state_flags = section(
    "Which net",
    flag("level", type=int, help="Level for the include rules of layers."),
    flag("stage", metavar="A,B", help="Stages for the include rules of layers."),
    section(
        "How to run",
        flag("gpu", metavar="ID|all", show_default="the CPU", help="Run on this GPU; train takes several: 0,1."),
    ),
)


def split(names: str | None) -> tuple[str, ...]:
    """Split a list at its commas, without the spaces around them."""
    return tuple(part.strip() for part in (names or "").split(",") if part.strip())


def chosen_device(gpu: str | None) -> torch.device:
    """Return the device of `--gpu`, the CPU without the option. Raises NetError if the GPU does not exist."""
    import torch

    if gpu is None:
        return torch.device("cpu")
    first, *others = gpu_ids(gpu)
    if others and gpu != "all":  # Caffe would divide the work among them
        log(Event.GPU, f"running on GPU {first} alone", level=logging.WARNING)
    check_gpus([first])
    return torch.device("cuda", first)


def gpu_ids(gpu: str) -> list[int]:
    """Return the GPUs that a value of `--gpu` names; all those of this machine for "all"."""
    if gpu == "all":
        import torch

        return list(range(torch.cuda.device_count())) or [0]
    ids = split(gpu)
    if not ids or not all(part.isdecimal() for part in ids):
        raise click.BadParameter(f"{gpu!r} is neither a list of GPU numbers nor 'all'", param_hint="--gpu")
    return [whole_number(part) for part in ids]


def check_gpus(ids: Sequence[int]) -> None:
    """Raise NetError if this machine does not have a GPU that `--gpu` names."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    missing = [number for number in ids if number >= count]
    if missing:
        present = f"the GPUs here are numbered 0 to {count - 1}" if count else "torch finds no GPU here"
        raise NetError(f"--gpu {missing[0]}: {present}; leave --gpu out to run on the CPU")


@contextlib.contextmanager
def logging_to(handlers: Sequence[logging.Handler], file: str | None) -> Iterator[None]:
    """Send log records of the library to these handlers and, with Caffe's prefix, to the end of a file."""
    chosen = [*handlers, *([_file_handler(file)] if file is not None else [])]
    logger = logging.getLogger("siamese_proto")
    before = logger.level
    logger.setLevel(logging.INFO)
    for handler in chosen:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(before)
        for handler in chosen:
            logger.removeHandler(handler)
            handler.close()


def _file_handler(file: str) -> logging.Handler:
    try:
        handler = _LogFile(file)
    except OSError as error:
        raise SolverError(f"the log file {quoted(file)} cannot be written: {error.strerror}") from error
    handler.setFormatter(CaffeFormatter())
    return handler


class _LogFile(logging.FileHandler):
    """A log file. If writing fails, for example because the disk is full, the command continues without it."""

    def __init__(self, file: str) -> None:
        super().__init__(file, encoding="utf-8")
        self.file = file
        self.failed = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, or print once that the file cannot be written."""
        if self.failed or self.stream is None:
            return
        try:
            self.stream.write(self.format(record) + self.terminator)
            self.flush()
        except OSError as error:
            self.failed = True
            text = f"{self.file}: the log cannot be written ({error.strerror}); continuing without it"
            click.echo(f"warning: {text}", err=True)

    def close(self) -> None:
        """Close the file, without a second error if writing has failed."""
        with contextlib.suppress(OSError) if self.failed else contextlib.nullcontext():
            super().close()


def plain_lines() -> logging.Handler:
    """Return a handler that prints log lines with Caffe's prefix on stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(CaffeFormatter())
    return handler
