"""Errors in the user's files and data, each described in one line, and hints for misspelt names."""

from __future__ import annotations

import bisect
import difflib
import functools
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Location:
    """A place in a text file; line and column count from 1."""

    file: str
    line: int
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class NetError(Exception):
    """A problem in the user's files or data.

    Its text is one line: the place (`file:line`), the layer, what is wrong, what was expected and what to try.
    `field` is the path of the message field at fault (`convolution_param.kernel_size`), which is set by code that does
    not know the line; the caller adds the location with `at`.
    """

    def __init__(
        self, message: str, *, location: Location | None = None, layer: str | None = None, field: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = escaped(" ".join(message.split("\n")))
        self.location = location
        self.layer = layer
        self.field = field

    def at(self, *, location: Location | None = None, layer: str | None = None) -> NetError:
        """Add the location or the layer if it is unknown, and return self, to be raised."""
        self.location = self.location or location
        self.layer = self.layer if self.layer is not None else layer
        return self

    def __str__(self) -> str:
        where = f"{self.location}: " if self.location else ""
        layer = f"layer {quoted(self.layer)}: " if self.layer is not None else ""
        return f"{where}{layer}{self.message}"


class ParseError(NetError):
    """The text is not a prototxt, or the bytes are not the expected message."""


class GraphError(NetError):
    """The text is a prototxt, but not a net that can be built."""


class WeightsError(NetError):
    """A weights or solver state file that cannot be used."""


class DataError(NetError):
    """A database, list or image that cannot be used."""


class SolverError(NetError):
    """Solver settings that are invalid, or a run that cannot continue."""


_MAX_SHOWN = 1000  # characters of a name in a message


def quoted(name: str) -> str:
    """Return a name from a user's file in single quotes, on one line and shortened."""
    return f"'{escaped(shortened(name))}'"


def escaped(text: str) -> str:
    """Return a text on one line: line breaks and other characters that cannot be printed are escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str) -> str:
    """Return a text without its middle if it is too long for a message."""
    return text if len(text) <= _MAX_SHOWN else f"{text[:60]}...{text[-20:]} ({len(text)} characters)"


# With more candidates, only those that begin or end like the name are compared with it.
_MAX_COMPARED = 100


class Names:
    """Candidates for `did_you_mean` in alphabetical order, so that many hints sort the names once."""

    def __init__(self) -> None:
        self._by_folded: dict[str, str] = {}
        self._forwards: list[str] = []
        self._backwards: list[str] = []
        self._count = 0

    def with_all(self, names: Mapping[str, object]) -> Names:
        """Add the names at the end of `names`, always the same mapping, since the last call; return self."""
        for name in itertools.islice(names, self._count, None):
            folded = name.casefold()
            if folded not in self._by_folded:
                bisect.insort(self._forwards, folded)
                bisect.insort(self._backwards, folded[::-1])
            self._by_folded[folded] = name
        self._count = len(names)
        return self

    def hint(self, name: str) -> str:
        """Return the hint of `did_you_mean`."""
        folded = name.casefold()
        likely: Iterable[str] = self._by_folded
        if len(self._forwards) > _MAX_COMPARED:
            backwards = _neighbors(folded[::-1], self._backwards)
            likely = [*_neighbors(folded, self._forwards), *(candidate[::-1] for candidate in backwards)]
        nearest = _nearest(folded, tuple(likely))
        return f"; did you mean {quoted(self._by_folded[nearest])}?" if nearest is not None else ""


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """Return the hint `; did you mean 'x'?` for the candidate most similar to `name`, or an empty text."""
    return Names().with_all(dict.fromkeys(candidates)).hint(name)


def _neighbors(name: str, ordered: list[str]) -> list[str]:
    """Return the few candidates next to `name` in alphabetical order."""
    place = bisect.bisect_left(ordered, name)
    return ordered[max(0, place - 5) : place + 5]


@functools.lru_cache(maxsize=1024)  # files repeat their mistakes
def _nearest(name: str, candidates: tuple[str, ...]) -> str | None:
    matches = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return matches[0] if matches else None


def edits(one: str, other: str) -> int:
    """Return the number of letters to insert, delete or replace to turn one text into the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, other_letter in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (letter != other_letter))
    return row[-1]
