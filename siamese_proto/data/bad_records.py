"""Bad data: records that cannot be used, which end the run or are left out and counted; and NaN and infinity."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from siamese_proto.errors import DataError, quoted
from siamese_proto.layers.base import RunState

if TYPE_CHECKING:
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)
_NAMED = 10  # bad records of a layer that are told one by one
_TRIED = 1000  # records from the first on, in search of one that can be used

Item = TypeVar("Item")
Result = TypeVar("Result")


class BadRecordError(DataError):
    """One record or image that cannot be used, while others may; `record` is its key or name."""

    def __init__(self, record: str, message: str) -> None:
        super().__init__(message)
        self.record = record


@dataclass(frozen=True)
class Reading:
    """How a data layer reads records.

    Where bad ones are left out, each gives its place to the next of its batch that can be used, or to `spare` where
    there is none. So what stands at a position depends on nothing but the position, in a resumed run too, and data
    layers that run side by side stay in step.
    """

    layer: str
    left_out: set[str] | None = None  # the bad records met; None: they end the run

    @staticmethod
    def of(run: RunState, layer: str) -> Reading:
        """As the run says; what is left out is noted in its `bad_records`."""
        return Reading(layer, run.bad_records.setdefault(layer, set()) if run.skip_bad_records else None)

    def all(
        self, items: Sequence[Item], read: Callable[[Item], Result], spare: Callable[[], Result] | None = None
    ) -> list[Result]:
        """What `read` makes of each item; BadRecordError where that ends the run, or where nothing can be used."""
        if self.left_out is None:
            return [read(item) for item in items]
        found: list[Result | None] = [self._read(item, read) for item in items]
        if None not in found:
            return [result for result in found if result is not None]
        good = [result for result in found if result is not None] or ([spare()] if spare else [])
        if not good:
            raise DataError("none of the records of a batch can be used; give others")
        last = good[0]  # of the next in order, which goes on with the first
        filled = []
        for result in reversed(found):
            last = last if result is None else result
            filled.append(last)
        return filled[::-1]

    def _read(self, item: Item, read: Callable[[Item], Result]) -> Result | None:
        try:
            return read(item)
        except BadRecordError as problem:
            self._note(problem)
            return None

    def _note(self, problem: BadRecordError) -> None:
        if self.left_out is None or problem.record in self.left_out:
            return
        self.left_out.add(problem.record)
        if len(self.left_out) <= _NAMED:
            _log.warning("layer %s: left out: %s", quoted(self.layer), problem)


def first_usable(items: Iterable[Item], read: Callable[[Item], Result]) -> Result | None:
    """What `read` makes of the first item that it can use, among the first thousand; None where there is no item.

    Raises the BadRecordError of the first item where there is none.
    """
    first: BadRecordError | None = None
    for item in itertools.islice(items, _TRIED):
        try:
            return read(item)
        except BadRecordError as problem:
            first = first or problem
    if first is not None:
        raise first
    return None


def count_of(runs: Iterable[RunState]) -> str | None:
    """One line that says how many bad records were left out; None where they end the run."""
    runs = [run for run in runs if run.skip_bad_records]
    if not runs:
        return None
    counts: dict[str, set[str]] = {}
    for run in runs:
        for layer, records in run.bad_records.items():
            counts.setdefault(layer, set()).update(records)
    total = sum(map(len, counts.values()))
    told = ", ".join(f"layer {quoted(layer)} {len(records)}" for layer, records in counts.items() if records)
    return f"bad records left out: {total}" + (f" ({told})" if told else "")


class NotFinite(NamedTuple):
    """The number of values that are NaN or infinite, and the first row with one."""

    values: int
    row: int

    def __str__(self) -> str:
        values = "1 value that is" if self.values == 1 else f"{self.values} values that are"
        return f"{values} NaN or infinite, the first in row {self.row}"


def not_finite(values: NDArray[Any]) -> NotFinite | None:
    """Count NaN and infinity in an array (rows, *K). Returns None if all values are finite."""
    import numpy

    if values.dtype.kind != "f" or not values.ndim:
        return None
    bad = ~numpy.isfinite(values)
    count = int(bad.sum())
    return NotFinite(count, int(bad.reshape(len(bad), -1).any(1).argmax())) if count else None
