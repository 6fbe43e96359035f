"""The losses of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

# So many losses may wait on the device before they are fetched without being asked for.
_WAITING = 256


class Losses:
    """One loss an iteration, left on the device until somebody asks, so that training does not wait for each.

    `first` is the iteration the first of them belongs to; `earlier` are the last losses before it, for the average.
    """

    def __init__(self, first: int = 0, earlier: Iterable[float] = ()) -> None:
        self.first = first
        self._earlier = list(earlier)
        self._fetched: list[float] = []
        # One tensor for all: many small ones, each wherever it was made, would lie in the way of the large ones.
        self._waiting: Tensor | None = None
        self._count = 0  # of those in it
        self._found_finite = 0

    def append(self, loss: Tensor) -> None:
        """Record a scalar."""
        if self._waiting is not None and self._waiting.dtype != loss.dtype:
            self.floats()
        if self._waiting is None:
            self._waiting = torch.empty(_WAITING, dtype=loss.dtype, device=loss.device)
        self._waiting[self._count] = loss
        self._count += 1
        if self._count == _WAITING:
            self.floats()

    def floats(self) -> list[float]:
        """Every loss since `first`."""
        if self._waiting is not None:
            self._fetched += self._waiting[: self._count].tolist()
            self._waiting, self._count = None, 0
        return self._fetched

    def since(self, iteration: int) -> int:
        """How many losses there are from an iteration on."""
        return self.first + len(self.floats()) - iteration

    def recent(self, count: int) -> list[float]:
        """The last `count` losses, or as many as there are, earlier ones included."""
        last = self.floats()[-count:]
        missing = count - len(last)
        return [*self._earlier[-missing:], *last] if missing else last

    def mean(self, count: int, *, then: Sequence[float] = ()) -> float:
        """The mean of the last `count` losses, those of `then` coming last; what is displayed."""
        last = [*self.recent(count), *then][-count:]
        return sum(last) / len(last)

    def first_not_finite(self) -> int | None:
        """The first iteration whose loss is infinite or not a number."""
        for index, loss in enumerate(self.floats()[self._found_finite :], self._found_finite):
            if not math.isfinite(loss):
                return self.first + index
            self._found_finite = index + 1
        return None
