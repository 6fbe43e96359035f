"""Lists of images: a line `path label` for each image."""

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from siamese_proto.errors import DataError, quoted, shortened
from siamese_proto.proto.values import whole_number

_ENTRY = re.compile(r"(.+)[ \t]([+-]?\d+)", re.DOTALL)
_NUMBER_AT_END = re.compile(r"\S[ \t]+[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$", re.IGNORECASE)
Entry = tuple[str, int]  # path and label


def several_labels(name: str) -> str:
    """Return what to do about several labels in a line, if a name ends with numbers; else ""."""
    if not _NUMBER_AT_END.search(name):
        return ""
    return (
        "its line ends with several numbers, but a list has one label a line: keep one, or write the labels to an"
        " HDF5 file and read it with HDF5Data"
    )


@functools.lru_cache(maxsize=4)
def read_list(source: str, stamp: int) -> Sequence[Entry]:
    """Return the path and the label of each line, split at the last space or tab. `stamp` changes with the file.

    Raises DataError for a line that is not 'path label'.
    """
    entries = []
    try:
        lines = Path(source).read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
    except OSError as error:
        raise DataError(f"list {quoted(source)} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            match = _ENTRY.fullmatch(line.rstrip())
            if not match:
                hint = several_labels(line.rstrip().rpartition(" ")[0])
                hint = f"; {hint}" if hint else ""
                raise DataError(
                    f"{source}:{number}: {quoted(line)} is not 'path label' with a whole number as label{hint}"
                )
            name, label = match[1], whole_number(match[2])
            if not -(2**31) <= label < 2**31:
                raise DataError(
                    f"{source}:{number}: label {shortened(match[2])} does not fit in the 32 bits that labels have"
                )
            entries.append((name, label))
    if not entries:
        raise DataError(f"list {quoted(source)} names no image", field="image_data_param.source")
    return entries
