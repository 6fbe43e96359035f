"""The source line that a message is about, with a caret under the place."""

from __future__ import annotations

import functools
import os
import unicodedata
from contextlib import suppress
from pathlib import Path

from siamese_proto.errors import Location, NetError
from siamese_proto.proto.load import STDIN, load_text, standard_input

_WIDTH = 96  # letters of the line that are shown at most
_MARGIN = "    "
_LARGEST = 16 << 20  # bytes of a file that is read again for this


def excerpt(location: Location | None) -> str:
    """Return the line at a place and, below it, a caret; an empty text where the file has no such line.

    Long lines are cut around the caret. Tabs become spaces, and what is not printable a `?`.
    """
    lines = _lines_of(location.file) if location is not None else ()
    if location is None or not 0 < location.line <= len(lines):
        return ""
    line = lines[location.line - 1].rstrip()
    if not line.strip() or (location.column == 1 and line.startswith("#")):
        return ""  # nothing to point at: the message is about the whole file
    caret = min(max(location.column - 1, 0), len(line))
    line = "".join(" " if c.isspace() else c if c.isprintable() else "?" for c in line)
    start = min(len(line) - len(line.lstrip()), caret)
    if len(line) - start > _WIDTH:
        start = max(start, min(caret - _WIDTH // 2, len(line) - _WIDTH))
    before = "..." if line[:start].strip() else ""
    shown = line[start : start + _WIDTH]
    after = "..." if line[start + _WIDTH :] else ""
    indent = " " * (len(before) + sum(map(_columns, line[start:caret])))
    return f"{_MARGIN}{before}{shown}{after}\n{_MARGIN}{indent}^"


def _columns(letter: str) -> int:
    """How many columns of a terminal a letter takes."""
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _lines_of(file: str) -> tuple[str, ...]:
    if file == STDIN:
        return _split(standard_input().decode("utf-8", "replace"))
    with suppress(OSError, ValueError):
        found = os.stat(file)
        if found.st_size <= _LARGEST:
            return _read_lines(file, found.st_mtime_ns, found.st_size)
    return ()


@functools.lru_cache(maxsize=8)  # a file has many findings
def _read_lines(file: str, modified: int, size: int) -> tuple[str, ...]:
    with suppress(NetError):
        return _split(load_text(Path(file)).text)
    return ()


def _split(text: str) -> tuple[str, ...]:
    """The lines as the reader counts them: a lone carriage return ends one where there is no newline."""
    return tuple(text.split("\n") if "\n" in text else text.split("\r"))
