"""Values that are no numbers: NaN and infinity in data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NotFinite(NamedTuple):
    """How many values of an array are NaN or infinite, and the first row that has one."""

    values: int
    row: int

    def __str__(self) -> str:
        values = "1 value that is" if self.values == 1 else f"{self.values} values that are"
        return f"{values} NaN or infinite, the first in row {self.row}"


def not_finite(values: NDArray[Any]) -> NotFinite | None:
    """Look for NaN and infinity in an array whose first axis are rows; None where all is finite."""
    import numpy

    if values.dtype.kind != "f" or not values.ndim:
        return None
    bad = ~numpy.isfinite(values)
    count = int(bad.sum())
    return NotFinite(count, int(bad.reshape(len(bad), -1).any(1).argmax())) if count else None
