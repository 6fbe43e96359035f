"""Show the source line of an error, with a caret under the location."""

import functools
import os
import unicodedata
from contextlib import suppress
from pathlib import Path

from siamese_proto.errors import Location, NetError
from siamese_proto.proto.load import STDIN, load_text, standard_input

_WIDTH = 96  # letters of the line, at most
_MARGIN = "    "
_LARGEST = 16 << 20  # bytes; larger files are not read again


def excerpt(location: Location | None) -> str:
    """Return the line at a location and a caret below it, or an empty text if the file has no such line.

    Long lines are cut around the caret. Tabs become spaces, and letters that cannot be printed become `?`.
    """
    lines = _lines_of(location.file) if location is not None else ()
    if location is None or not 0 < location.line <= len(lines):
        return ""
    line = lines[location.line - 1].rstrip()
    if not line.strip() or (location.column == 1 and line.startswith("#")):
        return ""  # the message is about the whole file
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
    """Return the number of terminal columns of a letter."""
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def _lines_of(file: str) -> tuple[str, ...]:
    if file == STDIN:
        return _split(standard_input().decode("utf-8", "replace"))
    with suppress(OSError, ValueError):
        status = os.stat(file)
        if status.st_size <= _LARGEST:
            return _read_lines(file, status.st_mtime_ns, status.st_size)
    return ()


@functools.lru_cache(maxsize=8)  # a file has many findings
def _read_lines(file: str, modified: int, size: int) -> tuple[str, ...]:
    with suppress(NetError):
        return _split(load_text(Path(file)).text)
    return ()


def _split(text: str) -> tuple[str, ...]:
    """Return the lines as the reader counts them: carriage returns end lines only in a text without newlines."""
    return tuple(text.split("\n") if "\n" in text else text.split("\r"))
