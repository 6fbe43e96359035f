"""The state of a training run: what snapshots and checks read of a Solver, and the losses of the run."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from siamese_proto.net.net import Net
from siamese_proto.solver.batches import BatchSource
from siamese_proto.solver.rules import UpdateRule
from siamese_proto.solver.settings import Settings

_BUFFER_SIZE = 256  # losses on the device, at most, before they are fetched


class Losses:
    """One loss per iteration, fetched from the device when one is read, so that training does not wait for each.

    Args:
        first: The iteration of the first loss.
        earlier: The last losses before `first`, for averages.
    """

    def __init__(self, first: int = 0, earlier: Iterable[float] = ()) -> None:
        self.first = first
        self._earlier = list(earlier)
        self._fetched: list[float] = []
        # One tensor for all: many small ones would fragment the memory that large tensors need.
        self._buffer: Tensor | None = None
        self._buffered = 0
        self._checked = 0  # fetched losses that are known to be finite

    def append(self, loss: Tensor) -> None:
        """Record a scalar."""
        if self._buffer is not None and self._buffer.dtype != loss.dtype:
            self.floats()
        if self._buffer is None:
            self._buffer = torch.empty(_BUFFER_SIZE, dtype=loss.dtype, device=loss.device)
        self._buffer[self._buffered] = loss
        self._buffered += 1
        if self._buffered == _BUFFER_SIZE:
            self.floats()

    def floats(self) -> list[float]:
        """Return every loss since `first`."""
        if self._buffer is not None:
            self._fetched += self._buffer[: self._buffered].tolist()
            self._buffer, self._buffered = None, 0
        return self._fetched

    def count_since(self, iteration: int) -> int:
        """Return the number of losses from an iteration on."""
        return self.first + len(self.floats()) - iteration

    def recent(self, count: int) -> list[float]:
        """Return the last `count` losses, or as many as there are, including earlier ones."""
        last = self.floats()[-count:]
        missing = count - len(last)
        return [*self._earlier[-missing:], *last] if missing else last

    def mean(self, count: int, *, then: Sequence[float] = ()) -> float:
        """Return the mean of the last `count` losses, counting those of `then` as the latest."""
        last = [*self.recent(count), *then][-count:]
        return sum(last) / len(last)

    def first_not_finite(self) -> int | None:
        """Return the first iteration whose loss is infinite or NaN."""
        for index, loss in enumerate(self.floats()[self._checked :], self._checked):
            if not math.isfinite(loss):
                return self.first + index
            self._checked = index + 1
        return None


class TrainingState(Protocol):
    """The state of a run that snapshots and checks read. A Solver has all of it."""

    settings: Settings
    net: Net
    test_nets: list[Net]
    batches: BatchSource
    rule: UpdateRule
    iteration: int
    current_step: int
    loss_history: Losses
    last_batch: dict[str, Any]
    last_snapshot: Path | None
    snapshot_iterations: list[int]  # of the snapshots written by this run that still exist
    best_scores: dict[str, float]  # by output and direction, `accuracy:max`
