"""Opening and replacing weights files, and the errors about them."""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from siamese_proto.errors import WeightsError, quoted
from siamese_proto.files import replacing
from siamese_proto.weights.wire import Bytes

Path = str | os.PathLike[str]

# What h5py and torch raise for damaged files, as determined by changing bytes at random.
DAMAGED = (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, ArithmeticError, MemoryError)


def weights_error(file: str, text: str, *, layer: str | None = None) -> WeightsError:
    """Return an error about a weights file, whose location is the path alone."""
    place = f"layer {quoted(layer)}: " if layer is not None else ""
    return WeightsError(f"{file}: {place}{text}")


def map_file(path: Path) -> Bytes:
    """Return the bytes of a file, which are read on access. Raises WeightsError if it is empty or cannot be opened."""
    file = os.fsdecode(path)
    try:
        with open(file, "rb") as opened:
            if os.fstat(opened.fileno()).st_size == 0:
                raise weights_error(file, "the file is empty")
            # Private pages that are writable: torch warns about arrays that are not.
            return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise weights_error(file, f"cannot be read: {error.strerror or error}") from error


def looks_like(start: bytes) -> str:
    """Describe a file that holds no weights by its first bytes; empty if it may hold some."""
    if start.startswith(b"\x1f\x8b"):
        return "a gzip file: unpack it first"
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # more than a character cut off at the end
            return ""
        text = start[: error.start].decode("utf-8")
    if any(not letter.isprintable() and letter not in "\ufeff\t\n\r\f" for letter in text):
        return ""
    begin = text.lstrip("\ufeff \t\r\n").lower()
    if begin.startswith("version https://git-lfs"):
        return "a Git LFS pointer: fetch the file itself with `git lfs pull`"
    if begin.startswith(("<!doctype", "<html")):
        return "a web page: the download went wrong"
    return "a text file: give the net to --model, the weights here" if "layer" in begin else "a text file"


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the block ends. Raises NetError if it cannot be written."""
    with replacing(path) as partial, open(partial, "wb") as file:
        yield file
