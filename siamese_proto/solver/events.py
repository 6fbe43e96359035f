"""A run as TensorBoard shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from siamese_proto.errors import SolverError
from siamese_proto.solver.loop import Solver

_EVERY = 100  # iterations, where the solver displays nothing


def write_events(solver: Solver, folder: str) -> Callable[[], None]:
    """From now on write every loss, the learning rate and the outputs of tests; call what is returned at the end.

    Losses are fetched from the device where the solver displays one. Events of a former run behind the iteration this
    one begins with are hidden. Raises SolverError where tensorboard is missing or the folder cannot be made.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise SolverError(
            "tensorboard is not installed; python -m pip install tensorboard, or 'siamese-proto[tensorboard]'"
        ) from error
    try:
        writer: Any = SummaryWriter(folder, purge_step=solver.iteration)
    except OSError as error:
        raise SolverError(f"the folder for events, {folder!r}, cannot be written to: {error.strerror}") from error
    written = solver.iteration

    def flush(solver: Solver) -> None:
        nonlocal written
        losses = solver.recent_losses(solver.iteration - written) if solver.iteration > written else []
        for iteration, loss in enumerate(losses, solver.iteration - len(losses)):
            writer.add_scalar("train/loss", loss, iteration)
        written = solver.iteration

    def after_iteration(solver: Solver) -> None:
        displayed = solver.iteration - 1
        if displayed % (solver.settings.display or _EVERY) == 0:
            writer.add_scalar("train/lr", solver.rule.param_groups[0]["lr"], displayed)
            flush(solver)

    def after_test(solver: Solver, scores: Sequence[Mapping[str, Tensor]]) -> None:
        for index, means in enumerate(scores):
            for name, value in means.items():
                if value.numel() == 1:
                    writer.add_scalar(f"test{index or ''}/{name}", value.item(), solver.iteration)

    def close() -> None:
        flush(solver)
        writer.close()

    solver.callbacks.append(after_iteration)
    solver.test_callbacks.append(after_test)
    return close
