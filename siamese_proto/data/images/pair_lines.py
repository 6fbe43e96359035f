"""The lines of files that name pairs: CSV, words between spaces or tabs, and the `pairs.txt` of LFW."""

import csv
import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal, NamedTuple

from siamese_proto.errors import DataError, quoted

SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))
Row = tuple[str, str, float]  # two names and a label
Form = Literal["CSV", "WORDS", "LFW"]
_log = logging.getLogger(__name__)
_LONGEST = 4096  # characters of a line that are looked at to recognize a file
_LABELS = {3: 1.0, 4: 0.0}  # of the lines of LFW, by their number of words: one person, two persons


class NamedPairs(NamedTuple):
    """The pairs of a file."""

    rows: Sequence[Row]
    numbered: bool  # persons and numbers of their images, as in LFW: the suffix of the names is a guess


def pair_form(path: str) -> Form | None:
    """The form of a text file that names pairs, judged by its first two lines; None for another file."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = (line.strip() for line in iter(lambda: file.readline(_LONGEST), ""))
            first, second = [*islice(filter(None, lines), 2), "", ""][:2]
    except OSError:
        return None
    if _is_count(first) and _numbered(second.split()) is not None:
        return "LFW"
    if any(_are_images(_words(line)) for line in (first, second)):
        return "WORDS"
    return "CSV" if path.lower().endswith(".csv") else None


def read_pairs(source: str) -> NamedPairs:
    """The pairs of a file; DataError with the line that is not one."""
    if os.path.exists(source) and not os.path.isfile(source):
        raise DataError(f"{quoted(source)} is no file; check the path")
    form = pair_form(source)
    read = {"WORDS": _read_words, "LFW": _read_numbered}.get(form or "CSV", _read_csv)
    try:
        with open(source, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            rows = list(read(source, file))
    except OSError as error:
        raise DataError(f"{quoted(source)} cannot be read: {error.strerror}; check the path") from error
    except csv.Error as error:
        raise DataError(f"{quoted(source)} is not a CSV file ({error})") from error
    if not rows:
        raise DataError(f"{quoted(source)} names no pair; write lines of image1,image2,label")
    return NamedPairs(rows, form == "LFW")


def _read_csv(source: str, file: Iterable[str]) -> Iterator[Row]:
    lines = csv.reader(file, skipinitialspace=True)
    seen = False
    for cells in lines:
        if any(cell.strip() for cell in cells):
            row = _row(cells)
            if row is not None:
                seen = True
                yield row
            elif seen or lines.line_num > 1 or len(cells) != 3:
                raise DataError(
                    f"{source}:{lines.line_num}: {quoted(','.join(cells))} is not 'image1,image2,label' with a "
                    "number as label"
                )


def _read_words(source: str, file: Iterable[str]) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if line.strip():
            words = _words(line)
            row = _row(words)
            if row is not None:
                yield row
            elif number > 1 or len(words) != 3:
                raise DataError(
                    f"{source}:{number}: {quoted(line.strip())} is not 'image1 image2 label' with a number as label;"
                    " write image1,image2,label where names have spaces"
                )


def _read_numbered(source: str, file: Iterable[str]) -> Iterator[Row]:
    """Lines `name i j`, two images of a person, and `name1 i name2 j`, after a line with their number."""
    lines = ((number, line.split()) for number, line in enumerate(file, 1) if line.strip())
    counts = [int(word) for word in next(lines)[1]]
    read = 0
    for number, words in lines:
        row = _numbered(words)
        if row is None:
            raise DataError(
                f"{source}:{number}: {quoted(' '.join(words))} is neither 'name i j' nor 'name1 i name2 j', as in the"
                " pairs.txt of LFW"
            )
        yield row
        read += 1
    expected = 2 * math.prod(counts)
    if read != expected:
        _log.warning("%s names %d pairs, but its first line says that there are %d", quoted(source), read, expected)


def _numbered(words: Sequence[str]) -> Row | None:
    numbers = words[1::2] if len(words) == 4 else words[1:]
    if len(words) not in _LABELS or not all(word.isdecimal() and len(word) < 10 for word in numbers):
        return None
    persons = (words[0], words[2] if len(words) == 4 else words[0])
    first, second = (f"{name}/{name}_{int(word):04d}.jpg" for name, word in zip(persons, numbers, strict=True))
    return first, second, _LABELS[len(words)]


def _is_count(line: str) -> bool:
    words = line.split()
    return len(words) in (1, 2) and all(word.isdecimal() and len(word) < 10 for word in words)


def _are_images(words: Sequence[str]) -> bool:
    return _row(words) is not None and all(os.path.splitext(name)[1].lower() in SUFFIXES for name in words[:2])


def _words(line: str) -> list[str]:
    return [word.strip() for word in line.strip().split("\t")] if "\t" in line else line.split()


def _row(cells: Sequence[str]) -> Row | None:
    try:
        first, second, label = (cell.strip() for cell in cells)
        value = float(label)
    except ValueError:
        return None
    return (first, second, value) if first and second and math.isfinite(value) else None
