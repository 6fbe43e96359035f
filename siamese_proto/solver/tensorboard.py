"""A run as TensorBoard shows it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from siamese_proto.errors import SolverError, quoted
from siamese_proto.solver.log import Event, log
from siamese_proto.solver.solver import Solver

_EVERY = 100  # iterations, where the solver displays nothing


def write_events(solver: Solver, folder: str) -> Callable[[], None]:
    """From now on write every loss, the learning rate and the outputs of tests; call what is returned at the end.

    Losses are fetched from the device where the solver displays one. Events of a former run behind the iteration this
    one begins with are hidden. Raises SolverError where tensorboard is missing or the folder cannot be made; what
    fails later ends the events, not the run.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise SolverError(
            "tensorboard is not installed; python -m pip install tensorboard, or 'siamese-proto[tensorboard]'"
        ) from error
    try:
        writer = SummaryWriter(folder, purge_step=solver.iteration)
    except OSError as error:
        raise SolverError(f"the folder for events, {quoted(folder)}, cannot be written to: {error.strerror}") from error
    events = _Events(writer, solver.iteration)
    solver.callbacks.append(events.after_iteration)
    solver.test_callbacks.append(events.after_test)
    return lambda: events.close(solver)


class _Events:
    def __init__(self, writer: Any, iteration: int) -> None:
        self.writer = writer
        self.written = iteration  # losses of the iterations before it are
        self.works = True

    def after_iteration(self, solver: Solver) -> None:
        displayed = solver.iteration - 1
        if displayed % (solver.settings.display or _EVERY) == 0:
            self._write([("train/lr", solver.rule.param_groups[0]["lr"], displayed), *self._losses(solver)])

    def after_test(self, solver: Solver, scores: Sequence[Mapping[str, Tensor]]) -> None:
        self._write(
            (f"test{index or ''}/{name}", value.item(), solver.iteration)
            for index, means in enumerate(scores)
            for name, value in means.items()
            if value.numel() == 1
        )

    def close(self, solver: Solver) -> None:
        self._write(self._losses(solver))
        with self._failing_alone():
            self.writer.close()

    def _losses(self, solver: Solver) -> list[tuple[str, float, int]]:
        missing = solver.iteration - self.written
        losses = solver.recent_losses(missing) if missing > 0 else []
        self.written = solver.iteration
        return [("train/loss", loss, at) for at, loss in enumerate(losses, solver.iteration - len(losses))]

    def _write(self, scalars: Iterable[tuple[str, float, int]]) -> None:
        with self._failing_alone():
            for name, value, iteration in scalars if self.works else ():
                self.writer.add_scalar(name, value, iteration)

    @contextmanager
    def _failing_alone(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self.works:
                log(Event.SNAPSHOT, f"EVENTS FAILED, training goes on without them: {error}", level=logging.ERROR)
            self.works = False
