"""What can be wrong with what a user gave, said in one line."""

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
    """A problem in the user's file or data.

    Its text is one line: where (`file:line`), which layer, what is wrong, what was expected and what to try.
    `field` is the path of the message field at fault (`convolution_param.kernel_size`), for code that does not know
    lines but whose caller does: the caller adds them with `at`.
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
        """Add what is not known yet about the place; returns self, to be raised."""
        self.location = self.location or location
        self.layer = self.layer if self.layer is not None else layer
        return self

    def __str__(self) -> str:
        where = f"{self.location}: " if self.location else ""
        layer = f"layer {quoted(self.layer)}: " if self.layer is not None else ""
        return f"{where}{layer}{self.message}"


class ParseError(NetError):
    """The text is not a prototxt, or the bytes are not the message they should be."""


class GraphError(NetError):
    """The text is a prototxt, but not a net that can be built."""


class WeightsError(NetError):
    """A weights or solver state file that cannot be used."""


class DataError(NetError):
    """A database, list or image that cannot be used."""


class SolverError(NetError):
    """Solver settings that cannot be carried out, or a run that cannot go on."""


_MOST_SHOWN = 1000  # characters of a name in a message


def quoted(name: str) -> str:
    """A name from a user's file, between single quotes, on one line; long ones shortened."""
    return f"'{escaped(shortened(name))}'"


def escaped(text: str) -> str:
    """A text on one line: control characters, line breaks among them, and what cannot be printed are escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str) -> str:
    """A text with its middle left out where it is too long to be read in a message."""
    return text if len(text) <= _MOST_SHOWN else f"{text[:60]}...{text[-20:]} ({len(text)} characters)"


# Of more candidates than these, only those that begin or end like the name are compared with it.
_MOST_COMPARED = 100


class Names:
    """Candidates for `did_you_mean` in alphabetical order: a net with thousands of mistakes sorts its names once."""

    def __init__(self) -> None:
        self._by_folded: dict[str, str] = {}
        self._forwards: list[str] = []
        self._backwards: list[str] = []
        self._seen = 0

    def with_all(self, names: Mapping[str, object]) -> Names:
        """Take in what was added at the end of `names`, always the same mapping, since the last call; returns self."""
        for name in itertools.islice(names, self._seen, None):
            folded = name.casefold()
            if folded not in self._by_folded:
                bisect.insort(self._forwards, folded)
                bisect.insort(self._backwards, folded[::-1])
            self._by_folded[folded] = name
        self._seen = len(names)
        return self

    def hint(self, name: str) -> str:
        """As `did_you_mean`."""
        wanted = name.casefold()
        likely: Iterable[str] = self._by_folded
        if len(self._forwards) > _MOST_COMPARED:
            backwards = _neighbours(wanted[::-1], self._backwards)
            likely = [*_neighbours(wanted, self._forwards), *(candidate[::-1] for candidate in backwards)]
        nearest = _nearest(wanted, tuple(likely))
        return f"; did you mean {quoted(self._by_folded[nearest])}?" if nearest is not None else ""


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """The hint `; did you mean 'x'?` for the candidate nearest to `name`, or an empty text."""
    return Names().with_all(dict.fromkeys(candidates)).hint(name)


def _neighbours(name: str, ordered: list[str]) -> list[str]:
    """The few candidates between which `name` stands in the order of the alphabet."""
    place = bisect.bisect_left(ordered, name)
    return ordered[max(0, place - 5) : place + 5]


@functools.lru_cache(maxsize=1024)  # files repeat their mistakes
def _nearest(wanted: str, candidates: tuple[str, ...]) -> str | None:
    found = difflib.get_close_matches(wanted, candidates, n=1, cutoff=0.6)
    return found[0] if found else None


def edits(one: str, other: str) -> int:
    """How many letters have to be put in, left out or replaced to make one text of the other (Levenshtein)."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, its in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != its))
    return row[-1]
