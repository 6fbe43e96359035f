"""siamese-proto train: train a net with the settings of a solver file."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from siamese_proto.cli.caffe_flags import flag, logging_to, plain_lines, split, state_flags
from siamese_proto.cli.gpus import chosen_gpus, run_processes, with_own_gpu
from siamese_proto.cli.group import Command, section
from siamese_proto.cli.options import (
    OUTPUT,
    RUN,
    bad_records,
    log_file,
    mismatched,
    no_fuse,
    python_layers,
    running,
    user_layers,
)
from siamese_proto.solver.log import Event, log
from siamese_proto.solver.settings import Settings, read_settings, with_state

if TYPE_CHECKING:
    from siamese_proto.solver import Solver

_effects = click.Choice(["stop", "snapshot", "none"])
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of mallopt(3) of glibc
_LARGEST_BLOCKS = (2**30, 2**25)  # bytes; some versions of glibc refuse the first
_SIGNAL_EXIT = 128  # plus the number of the signal: the exit status of a program that a signal ends


@click.command(cls=Command)
@section(
    "What to train",
    flag("solver", required=True, metavar="FILE", help="The solver file."),
    flag("weights", metavar="A,B", help="Weights files to begin with, instead of the solver's; loaded by layer name."),
    flag("snapshot", metavar="FILE", help="A solver state, Caffe's or ours, to resume from; auto: the newest one."),
)
@section(
    OUTPUT,
    click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Keep only the last N snapshots."),
    click.option(
        "--keep-best", metavar="OUTPUT[:max]", help="Keep PREFIX_best.caffemodel, the best by an output of a test net."
    ),
    log_file,
    click.option("--tensorboard", metavar="DIR", help="Write events for TensorBoard to this folder."),
)
@state_flags
@section(
    RUN,
    flag(
        "sigint-effect",
        type=_effects,
        default="stop",
        show_default=True,
        help="The effect of Ctrl-C; stop writes a snapshot too.",
    ),
    flag("sighup-effect", type=_effects, default="snapshot", show_default=True, help="The effect of a hang-up signal."),
    no_fuse,
    running,
)
@user_layers
@python_layers
@bad_records
@mismatched
def train(
    solver: str,
    weights: str | None,
    snapshot: str | None,
    keep: int | None,
    keep_best: str | None,
    level: int | None,
    stage: str | None,
    gpu: str | None,
    log_file: str | None,
    sigint_effect: str,
    sighup_effect: str,
    tensorboard: str | None,
    skip_mismatched: bool,
    **options: Any,  # of Solver: fuse, compiled, precision, allow_python_layers, skip_bad_records
) -> None:
    """Train a net with the settings of a solver file.

    Ctrl-C writes a snapshot and stops the run; a second Ctrl-C stops it immediately. The log lines are those of Caffe.
    In a terminal, a progress bar replaces the lines about training.

    `--gpu 0,1` and `--gpu all` train on several GPUs with one process each, as Caffe does. Each process reads its own
    batch of batch_size records, and gradients are averaged.
    `torchrun --nproc-per-node N --no-python -- siamese-proto train ...` does the same, also without GPUs. If
    torchrun restarts the processes, the run continues from its last snapshot.
    """
    if weights and snapshot not in (None, "auto"):
        raise click.UsageError("--weights and --snapshot exclude each other: a snapshot has its own weights.")
    if skip_mismatched and snapshot not in (None, "auto"):
        raise click.UsageError("--skip-mismatched needs --weights: a snapshot belongs to one net.")
    gpus = chosen_gpus(gpu)
    if len(gpus) > 1 and "RANK" not in os.environ:
        raise SystemExit(run_processes(len(gpus), sys.argv[1:]))
    from siamese_proto.solver import Solver

    is_first = os.environ.get("RANK", "0") == "0"
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(_progress_bar()) if is_first and sys.stderr.isatty() else None
        handler = _AboveBar(progress) if progress is not None else plain_lines()
        handler.setLevel(logging.INFO if is_first else logging.ERROR)  # the first process logs the same lines
        stack.enter_context(logging_to([handler], log_file if is_first else None))
        settings = with_own_gpu(with_state(read_settings(Path(solver)), level, split(stage)), gpus)
        restart = stack.enter_context(_joined_run(settings, keeps_best=keep_best is not None))
        keep_freed_memory()
        run = Solver(
            settings,
            None if restart else split(weights) or None,
            restart or snapshot,
            skip_mismatched=skip_mismatched,
            **options,
        )
        stack.callback(run.close)
        if is_first:
            _add_callbacks(run, keep, keep_best, tensorboard, stack)
        if progress is not None:
            _follow(run, progress)
        with answering_signals(run, sigint_effect, sighup_effect) as stop_signals:
            log(Event.TRAIN_STARTED, "Starting Optimization")
            run.solve()
        if not run.stopped:
            log(Event.TRAIN_FINISHED, "Optimization Done.")
    if run.stopped:
        from siamese_proto.solver.run_lock import would_restart

        if is_first:
            text = f"stopped at iteration {run.iteration}; continue with --snapshot {run.last_snapshot}"
            click.echo(text, err=True)
        if not would_restart():  # torchrun restarts a run that ends with another status than 0
            raise SystemExit(_SIGNAL_EXIT + (stop_signals[0] if stop_signals else signal.SIGINT))


def _add_callbacks(
    solver: Solver, keep: int | None, criterion: str | None, tensorboard: str | None, stack: contextlib.ExitStack
) -> None:
    from siamese_proto.solver.retention import keep_best, keep_last
    from siamese_proto.solver.tensorboard import write_events

    if keep is not None:
        keep_last(solver, keep)
    if criterion is not None:
        keep_best(solver, criterion)
    if tensorboard is not None:
        stack.callback(write_events(solver, tensorboard))


@contextlib.contextmanager
def _joined_run(settings: Settings, *, keeps_best: bool) -> Iterator[Path | None]:
    """Join the processes to train with and reserve the snapshot_prefix; yields the snapshot to restart from, if any."""
    from siamese_proto.solver.parallel import process_group
    from siamese_proto.solver.setup import device
    from siamese_proto.solver.snapshots import newest_of_run, reserved_prefix

    with process_group(device(settings)) as group, reserved_prefix(settings, group, always=keeps_best) as run:
        newest = newest_of_run(settings.snapshot_prefix, run) if group.is_first else None
        yield group.broadcast_object(newest)


@contextlib.contextmanager
def answering_signals(solver: Solver, sigint_effect: str, sighup_effect: str) -> Iterator[list[int]]:
    """Request a stop or a snapshot when a signal arrives; a second Ctrl-C ends the run immediately.

    Yields the list of the signals that requested a stop, which grows as they arrive.
    """
    stop_signals: list[int] = []
    effects = {signal.SIGINT: sigint_effect, signal.SIGTERM: "stop"}
    if hasattr(signal, "SIGHUP"):  # Windows has none
        effects[signal.SIGHUP] = sighup_effect

    def answer(number: int, frame: object) -> None:
        effect = effects[signal.Signals(number)]
        if effect == "snapshot":
            solver.request_snapshot()
        elif effect == "stop":
            stop_signals.append(number)
            # each of several processes gets Ctrl-C twice: from the terminal, and from the process that started it
            if number == signal.SIGINT and solver.group.size == 1:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            solver.request_stop()

    before = {number: signal.signal(number, answer) for number in effects}
    try:
        yield stop_signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _progress_bar() -> Any:
    """A progress bar with the iteration, the loss, the rate and the remaining time."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("iteration {task.completed}/{task.total}"),
        BarColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        refresh_per_second=4,
    )


def _follow(solver: Solver, progress: Any) -> None:
    """Advance the bar with the solver. The loss is fetched when the bar is drawn, not every iteration."""
    task = progress.add_task("", total=solver.settings.max_iter, completed=solver.iteration, loss="", rate="")
    drawn = progress.get_time()

    def move(solver: Solver) -> None:
        nonlocal drawn
        progress.update(task, completed=solver.iteration)
        if progress.get_time() - drawn >= 0.25 or solver.iteration == solver.settings.max_iter:
            drawn = progress.get_time()
            speed = progress.tasks[0].speed or 0
            progress.update(task, loss=f"loss {solver.recent_losses(1)[0]:.4g}", rate=f"{speed:.1f} iter/s")

    solver.callbacks.append(move)


class _AboveBar(logging.Handler):
    """Prints log lines above the progress bar: tests, snapshots and warnings, but not what the bar itself shows."""

    _hidden = (
        None,
        Event.SETTINGS,
        Event.TRAINING_LOSS,
        Event.TRAINING_OUTPUT,
        Event.LEARNING_RATE,
        Event.TRAIN_FINISHED,
    )

    def __init__(self, progress: Any) -> None:
        super().__init__()
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        if record.levelno >= logging.WARNING or getattr(record, "event", None) not in self._hidden:
            self.progress.console.print(record.getMessage(), markup=False, highlight=False, soft_wrap=True)


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next step; False if it is not glibc.

    By default glibc returns blocks of some megabytes to the system, and every step requests them again, page by page.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or not any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGEST_BLOCKS):
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _LARGEST_BLOCKS[0]) and mallopt(_TOP_PAD, _LARGEST_BLOCKS[1]))
