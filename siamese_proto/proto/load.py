"""Text from files: which texts are paths, encodings, and what can be wrong with a file before it is parsed."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple, TypeAlias

from siamese_proto.errors import ParseError, did_you_mean

PathOrText: TypeAlias = str | os.PathLike[str]

_ENCODINGS: dict[str, tuple[str, ...]] = {"utf-8": (), "gb18030": ("read as GB18030, not UTF-8",)}
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


STDIN = "<stdin>"  # what errors call the standard input, which the path `-` stands for
_read_before: tuple[object, bytes] | None = None  # a stream, and what was in it


class LoadedText(NamedTuple):
    """A text, what to call its file in errors, and what had to be changed to decode it."""

    text: str
    file: str
    notes: tuple[str, ...] = ()


def load_text(path_or_text: PathOrText) -> LoadedText:
    """Tell paths from texts (see `parse_net`) and read files; the path `-` is the standard input.

    Raises ParseError where there is no text to be had.
    """
    if not isinstance(path_or_text, str | os.PathLike):
        raise ParseError(f"expected the path or the text of a prototxt, got {_described(path_or_text)}")
    if isinstance(path_or_text, str) and not os.path.exists(path_or_text):
        # `C:\nets\a.prototxt` holds a colon and still is a path.
        looks_like_text = "{" in path_or_text or "\n" in path_or_text or ":" in path_or_text
        if looks_like_text and not ("{" not in path_or_text and path_or_text.endswith((".prototxt", ".pbtxt"))):
            return LoadedText(path_or_text.removeprefix("\ufeff"), "<text>")
    file = os.fsdecode(path_or_text)
    if file == "-" and not os.path.exists(file):
        return _decode(standard_input(), STDIN)
    if not file:
        raise ParseError("the path of the file is empty")
    path = Path(file)
    return _decode(_read(path, file), file)


def _described(value: object) -> str:
    """What was given instead of a path or text, and how to make one of it."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{type(value).__name__}; decode it first: data.decode()"
    if hasattr(value, "read"):
        return f"a file object ({type(value).__name__}); give its path, or what it holds as text"
    return "None" if value is None else type(value).__name__


def standard_input() -> bytes:
    """Return all that the standard input holds; it is read once, however often it is asked for."""
    global _read_before
    if sys.stdin is None:
        raise ParseError("there is no standard input to read")
    if _read_before is None or _read_before[0] is not sys.stdin:
        _read_before = (sys.stdin, sys.stdin.buffer.read())
    return _read_before[1]


def _read(path: Path, file: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise ParseError(f"{file}: no such file: the folder {path.parent} does not exist") from None
        hint = did_you_mean(path.name, os.listdir(path.parent))
        raise ParseError(f"{file}: no such file{hint}") from None
    except IsADirectoryError:
        raise ParseError(f"{file}: is a folder, expected a prototxt file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ParseError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _decode(data: bytes, file: str) -> LoadedText:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return LoadedText(data.decode("utf-16", "replace"), file, ("read as UTF-16, not UTF-8",))
    if data.startswith(b"\x1f\x8b"):
        raise ParseError(f"{file}: is compressed with gzip, expected a prototxt; unpack it with gunzip")
    data = data.removeprefix(codecs.BOM_UTF8).removesuffix(b"\x1a")  # how DOS ended a text
    control = _CONTROL.search(data)
    if control:
        raise ParseError(
            f"{file}: is not text (it holds the byte 0x{control[0][0]:02x}), expected a prototxt; "
            "is it a weights file (.caffemodel)?"
        )
    for encoding, note in _ENCODINGS.items():
        with contextlib.suppress(UnicodeDecodeError):
            return LoadedText(data.decode(encoding), file, note)
    # Every byte is a letter of Latin-1, which old comments are written in.
    return LoadedText(data.decode("latin-1"), file, ("read as Latin-1, not UTF-8",))
