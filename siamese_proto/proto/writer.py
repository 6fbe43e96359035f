"""Messages to text, in the layout of protobuf's own printer."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence

from google.protobuf import text_encoding, text_format
from google.protobuf.message import Message

from siamese_proto.files import write_atomically
from siamese_proto.proto.parsed import ParsedNet, ParsedSolver, RawField
from siamese_proto.proto.values import fields_of

Unknown = Sequence[tuple[str, RawField]]  # as in Source


def write_net(parsed: ParsedNet) -> str:
    """The text of a net in today's dialect; what the schema does not know follows what it knows, in its message."""
    unknown = [*parsed.source.unknown]
    for i, source in enumerate(parsed.layers):
        unknown += [(f"layer[{i}].{path}".rstrip("."), raw) for path, raw in source.unknown]
    return message_text(parsed.message, unknown)


def write_solver(parsed: ParsedSolver) -> str:
    """The text of solver settings in today's dialect; see `write_net`."""
    return message_text(parsed.message, parsed.source.unknown)


def message_text(message: Message, unknown: Unknown = ()) -> str:
    """The text of any message, with two spaces a level, and the fields of `unknown` at the messages they stand in."""
    by_path: dict[str, list[RawField]] = {}
    for path, raw in unknown:
        by_path.setdefault(path, []).append(raw)
    out = io.StringIO()
    _write(message, "", by_path, out, 0)
    return out.getvalue()


def save_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text as UTF-8, whole or not at all. Raises NetError where the file cannot be written."""
    write_atomically(path, text.encode())


def _write(message: Message, path: str, unknown: dict[str, list[RawField]], out: io.StringIO, indent: int) -> None:
    written: set[str] = set()
    for field, value in message.ListFields():
        known = fields_of(message.DESCRIPTOR)[field.name]
        for i, one in enumerate(value if known.repeated else [value]):
            at = f"{path}{field.name}" + (f"[{i}]" if known.repeated else "")
            written.add(at)
            if known.convert is None and any(other == at or other.startswith(at + ".") for other in unknown):
                out.write(f"{' ' * indent}{field.name} {{\n")
                _write(one, at + ".", unknown, out, indent + 2)
                out.write(f"{' ' * indent}}}\n")
            else:
                text_format.PrintField(field, one, out, indent)
    for raw in unknown.get(path[:-1], ()):
        _write_raw(raw, out, indent)


def _write_raw(raw: RawField, out: io.StringIO, indent: int) -> None:
    space = " " * indent
    if isinstance(raw.value, tuple):
        out.write(f"{space}{raw.name} {{\n")
        for child in raw.value:
            _write_raw(child, out, indent + 2)
        out.write(f"{space}}}\n")
    elif raw.is_string:
        data = raw.value.encode("utf-8", "surrogateescape")
        out.write(f'{space}{raw.name}: "{text_encoding.CEscape(data, as_utf8=_is_utf8(data))}"\n')
    else:
        out.write(f"{space}{raw.name}: {raw.value}\n")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
