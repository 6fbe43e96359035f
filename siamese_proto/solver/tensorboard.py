"""A run as TensorBoard shows it."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from siamese_proto.errors import SolverError, quoted
from siamese_proto.solver.log import Event, log
from siamese_proto.solver.solver import Solver

_INTERVAL = 100  # iterations, if the solver displays nothing


def write_events(solver: Solver, folder: str) -> Callable[[], None]:
    """From now on write every loss, the learning rate and the outputs of tests.

    Losses are fetched from the device when the solver displays one. Events of an earlier run after the first iteration
    of this one are hidden. A failure after this call ends the events, not the run.

    Returns:
        A function that finishes the events; call it at the end of the run.

    Raises:
        SolverError: tensorboard is not installed, or the folder cannot be created.
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
        self.written = iteration  # the losses of earlier iterations are written
        self.has_failed = False

    def after_iteration(self, solver: Solver) -> None:
        iteration = solver.iteration - 1
        if iteration % (solver.settings.display or _INTERVAL) == 0:
            self._write([("train/lr", solver.rule.param_groups[0]["lr"], iteration), *self._losses(solver)])

    def after_test(self, solver: Solver, scores: Sequence[Mapping[str, Tensor]]) -> None:
        self._write(
            (f"test{index or ''}/{name}", value.item(), solver.iteration)
            for index, means in enumerate(scores)
            for name, value in means.items()
            if value.numel() == 1
        )

    def close(self, solver: Solver) -> None:
        self._write(self._losses(solver))
        self._write((), close=True)

    def _losses(self, solver: Solver) -> list[tuple[str, float, int]]:
        missing = solver.iteration - self.written
        losses = solver.recent_losses(missing) if missing > 0 else []
        self.written = solver.iteration
        return [("train/loss", loss, at) for at, loss in enumerate(losses, solver.iteration - len(losses))]

    def _write(self, scalars: Iterable[tuple[str, float, int]], *, close: bool = False) -> None:
        try:
            for name, value, iteration in () if self.has_failed else scalars:
                self.writer.add_scalar(name, value, iteration)
            if close:
                self.writer.close()
        except OSError as error:
            if not self.has_failed:
                log(Event.SNAPSHOT, f"EVENTS FAILED, training continues without them: {error}", level=logging.ERROR)
            self.has_failed = True
