"""Load texts from files: paths or texts, encodings, files that are no text, and nets or solver settings."""

import codecs
import contextlib
import os
import re
import sys
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from siamese_proto.errors import ParseError, did_you_mean
from siamese_proto.proto import schema
from siamese_proto.proto.text import parse_tree

PathOrText: TypeAlias = str | os.PathLike[str]

_ENCODINGS: dict[str, tuple[str, ...]] = {"utf-8": (), "gb18030": ("read as GB18030, not UTF-8",)}
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


STDIN = "<stdin>"  # name of the standard input in errors; its path is `-`
_read_before: tuple[object, bytes] | None = None  # a stream and its contents


class LoadedText(NamedTuple):
    """A text, the name of its file in errors, and notes about its encoding."""

    text: str
    file: str
    notes: tuple[str, ...] = ()


def load_text(path_or_text: PathOrText) -> LoadedText:
    """Read a file, or return a text that is passed instead of a path.

    A path object, or a text that names an existing file, is a path; other texts that hold `{`, `:` or a newline are the
    text itself. The path `-` is the standard input.

    Raises:
        ParseError: The file cannot be read or is not text.
    """
    if not isinstance(path_or_text, str | os.PathLike):
        kind = type(path_or_text).__name__
        hint = ""
        if isinstance(path_or_text, bytes | bytearray | memoryview):
            hint = "; decode it first: data.decode()"
        elif hasattr(path_or_text, "read"):
            hint = "; pass the path of the file, or file.read()"
        raise ParseError(f"expected the path or the text of a prototxt, got an object of type {kind}{hint}")
    if isinstance(path_or_text, str) and not os.path.exists(path_or_text):
        # `C:\nets\a.prototxt` holds a colon and still is a path.
        looks_like_text = "{" in path_or_text or "\n" in path_or_text or ":" in path_or_text
        if looks_like_text and not ("{" not in path_or_text and path_or_text.endswith((".prototxt", ".pbtxt"))):
            return LoadedText(path_or_text.removeprefix("\ufeff"), "<text>")
    file = os.fsdecode(path_or_text)
    if file == "-" and not os.path.exists(file):
        return _decode(standard_input(), STDIN)
    if not file:
        raise ParseError("the path is empty")
    path = Path(file)
    return _decode(_read(path, file), file)


def kind_of(path: PathOrText) -> Literal["net", "solver"]:
    """Return whether a prototxt file holds a net or solver settings, by its fields at the top level.

    Raises:
        ParseError: The file cannot be read or is not a prototxt.
    """
    loaded = load_text(path)
    names = {node.name for node in parse_tree(loaded.text, loaded.file)}
    if names & {"layer", "layers"}:
        return "net"
    net = len(names & set(schema.NetParameter.DESCRIPTOR.fields_by_name))
    solver = len(names & set(schema.SolverParameter.DESCRIPTOR.fields_by_name))
    return "solver" if solver > net else "net"


def standard_input() -> bytes:
    """Return the contents of the standard input. They are read once and kept."""
    global _read_before
    if sys.stdin is None:
        raise ParseError("the standard input is closed")
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
        raise ParseError(f"{file}: expected a prototxt, got a folder") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ParseError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _decode(data: bytes, file: str) -> LoadedText:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return LoadedText(data.decode("utf-16", "replace"), file, ("read as UTF-16, not UTF-8",))
    if data.startswith(b"\x1f\x8b"):
        raise ParseError(f"{file}: expected a prototxt, got a gzip archive; unpack it with gunzip")
    data = data.removeprefix(codecs.BOM_UTF8).removesuffix(b"\x1a")  # end of a text in DOS
    control = _CONTROL.search(data)
    if control:
        raise ParseError(
            f"{file}: expected a prototxt, got binary data (byte 0x{control[0][0]:02x}); "
            "is it a weights file (.caffemodel)?"
        )
    for encoding, note in _ENCODINGS.items():
        with contextlib.suppress(UnicodeDecodeError):
            return LoadedText(data.decode(encoding), file, note)
    # Old comments are in Latin-1, in which every byte is a letter.
    return LoadedText(data.decode("latin-1"), file, ("read as Latin-1, not UTF-8",))
