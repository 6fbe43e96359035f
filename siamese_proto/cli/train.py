"""siamese-proto train: train a net as a solver file says."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from siamese_proto.cli.caffe_flags import flag, logging_to, plain_lines, split, state_flags
from siamese_proto.cli.gpus import chosen_gpus, on_own_gpu, run_together
from siamese_proto.cli.options import bad_records, mismatched, python_layers, running, user_layers
from siamese_proto.solver.log import Event, log
from siamese_proto.solver.settings import Settings, read_settings, with_state

if TYPE_CHECKING:
    from siamese_proto.solver import Solver

_effects = click.Choice(["stop", "snapshot", "none"])
_ENDED_BY = 128  # and the number of the signal: the exit status of programs that a signal ends


@click.command()
@flag("solver", required=True, metavar="FILE", help="The solver file.")
@flag("weights", metavar="A,B", help="Weights files to begin with, copied by layer name, in place of the solver's.")
@flag("snapshot", metavar="FILE", help="A solver state, Caffe's or ours, to go on from; auto: the newest.")
@click.option("--keep", type=click.IntRange(min=1), metavar="N", help="Let only the last N snapshots stay.")
@click.option("--keep-best", metavar="OUTPUT[:max]", help="Keep PREFIX_best.caffemodel by an output of a test net.")
@state_flags
@click.option("--log", "log_file", metavar="FILE", help="Add the log lines to this file, with Caffe's prefix.")
@flag("sigint-effect", type=_effects, default="stop", show_default=True, help="What Ctrl-C does; stop snapshots too.")
@flag("sighup-effect", type=_effects, default="snapshot", show_default=True, help="What a hang-up does.")
@click.option("--tensorboard", metavar="DIR", help="Write events for TensorBoard into this folder.")
@click.option("--no-fuse", is_flag=True, help="Run every layer as it is written, twin branches one by one.")
@running
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
    no_fuse: bool,
    compiled: bool,
    precision: str,
    allow_python_layers: bool,
    skip_bad_records: bool,
    skip_mismatched: bool,
) -> None:
    """Train a net as a solver file says.

    Ctrl-C makes a snapshot and stops; a second one stops at once. Log lines are Caffe's. On a terminal a bar shows the
    progress instead of the training lines.

    `--gpu 0,1` and `--gpu all` train on several GPUs, one process each, as Caffe does: each reads batch_size records of
    its own for an iteration, and gradients are averaged.
    `torchrun --nproc-per-node N --no-python -- siamese-proto train ...` does so without GPUs too, and continues from
    the run's last snapshot after a restart.
    """
    if weights and snapshot not in (None, "auto"):
        raise click.UsageError("--weights and --snapshot exclude each other: a snapshot brings its own weights.")
    if skip_mismatched and snapshot not in (None, "auto"):
        raise click.UsageError("--skip-mismatched goes with --weights: a snapshot belongs to one net.")
    gpus = chosen_gpus(gpu)
    if len(gpus) > 1 and "RANK" not in os.environ:
        raise SystemExit(run_together(len(gpus), sys.argv[1:]))
    is_first = os.environ.get("RANK", "0") == "0"
    with contextlib.ExitStack() as stack:
        progress = stack.enter_context(_progress()) if is_first and sys.stderr.isatty() else None
        handler = _AboveBar(progress) if progress is not None else plain_lines()
        handler.setLevel(logging.INFO if is_first else logging.ERROR)  # what others have to say, the first says too
        stack.enter_context(logging_to([handler], log_file if is_first else None))
        settings = on_own_gpu(with_state(read_settings(Path(solver)), level, split(stage)), gpus)
        snapshot, weights = stack.enter_context(
            _among_others(settings, snapshot, weights, keeps_best=keep_best is not None)
        )
        made = _make_solver(
            settings,
            split(weights),
            snapshot,
            fuse=not no_fuse,
            compiled=compiled,
            precision=precision,
            allow_python_layers=allow_python_layers,
            skip_bad_records=skip_bad_records,
            skip_mismatched=skip_mismatched,
        )
        stack.callback(made.close)
        if is_first:
            _observe(made, keep, keep_best, tensorboard, stack)
        if progress is not None:
            _follow(made, progress)
        with answering_signals(made, sigint_effect, sighup_effect) as stopped_by:
            log(Event.TRAIN_STARTED, "Starting Optimization")
            made.solve()
        if not made.stopped:
            log(Event.TRAIN_FINISHED, "Optimization Done.")
    if made.stopped:
        if is_first:
            click.echo(f"stopped at iteration {made.iteration}; go on with --snapshot {made.last_snapshot}", err=True)
        if _would_restart():  # torchrun takes any other status than 0 for a crash, and would go on
            return
        raise SystemExit(_ENDED_BY + (stopped_by[0] if stopped_by else signal.SIGINT))


@contextlib.contextmanager
def _among_others(
    settings: Settings, snapshot: str | None, weights: str | None, *, keeps_best: bool
) -> Iterator[tuple[str | None, str | None]]:
    """Meet the processes to train with, if any; what to begin with: after a restart the last snapshot of the run."""
    from siamese_proto.solver.parallel import joined
    from siamese_proto.solver.run_lock import newest_of_run
    from siamese_proto.solver.setup import device
    from siamese_proto.solver.snapshots import writing

    with joined(device(settings)) as team, writing(settings, team, always=keeps_best) as run:
        newest = team.same(newest_of_run(settings.snapshot_prefix, run) if team.is_first else None)
        yield (str(newest), None) if newest is not None else (snapshot, weights)


def _would_restart() -> bool:
    from siamese_proto.solver.run_lock import would_restart

    return would_restart()


def _make_solver(
    settings: Settings,
    weights: tuple[str, ...],
    snapshot: str | None,
    *,
    fuse: bool,
    allow_python_layers: bool,
    skip_bad_records: bool,
    skip_mismatched: bool,
    compiled: bool,
    precision: str,
) -> Solver:
    from siamese_proto.solver import Solver

    leave = {
        "allow_python_layers": allow_python_layers,
        "skip_bad_records": skip_bad_records,
        "skip_mismatched": skip_mismatched,
    }
    return Solver(settings, weights or None, snapshot, None, fuse=fuse, compiled=compiled, precision=precision, **leave)


def _observe(
    solver: Solver, keep: int | None, best: str | None, tensorboard: str | None, stack: contextlib.ExitStack
) -> None:
    from siamese_proto.solver.retention import keep_best, keep_last
    from siamese_proto.solver.tensorboard import write_events

    if keep is not None:
        keep_last(solver, keep)
    if best is not None:
        keep_best(solver, best)
    if tensorboard is not None:
        stack.callback(write_events(solver, tensorboard))


@contextlib.contextmanager
def answering_signals(solver: Solver, sigint_effect: str, sighup_effect: str) -> Iterator[list[int]]:
    """Let signals ask for a stop or a snapshot after the iteration that runs; a second Ctrl-C ends it at once.

    Gives the list of those that asked for a stop, which grows as they come in.
    """
    stopped_by: list[int] = []
    effects = {signal.SIGINT: sigint_effect, signal.SIGTERM: "stop"}
    if hasattr(signal, "SIGHUP"):  # Windows has none
        effects[signal.SIGHUP] = sighup_effect

    def answer(number: int, frame: object) -> None:
        effect = effects[signal.Signals(number)]
        if effect == "snapshot":
            solver.request_snapshot()
        elif effect == "stop":
            stopped_by.append(number)
            # of several processes each gets Ctrl-C twice: from the terminal, and from who started them
            if number == signal.SIGINT and solver.team.count == 1:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            solver.request_stop()

    before = {number: signal.signal(number, answer) for number in effects}
    try:
        yield stopped_by
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _progress() -> Any:
    """A bar with the iteration, the loss, the rate and the time left."""
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
    """Move the bar with the solver. The loss is asked for as often as it is drawn, not every iteration."""
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
