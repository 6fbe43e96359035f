"""Write messages as text, in the layout of protobuf's printer."""

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
    """Return the text of a net in the current format. In each message, unknown fields follow the known ones."""
    unknown = [*parsed.source.unknown]
    for i, source in enumerate(parsed.layers):
        unknown += [(f"layer[{i}].{path}".rstrip("."), raw) for path, raw in source.unknown]
    return message_text(parsed.message, unknown)


def write_solver(parsed: ParsedSolver) -> str:
    """Return the text of solver settings in the current format; see `write_net`."""
    return message_text(parsed.message, parsed.source.unknown)


def message_text(message: Message, unknown: Unknown = ()) -> str:
    """Return the text of a message, indented by two spaces a level. `unknown` is as in `Source`."""
    by_path: dict[str, list[RawField]] = {}
    for path, raw in unknown:
        by_path.setdefault(path, []).append(raw)
    out = io.StringIO()
    _write(message, "", by_path, out, 0)
    return out.getvalue()


def save_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text as UTF-8, completely or not at all. Raises NetError if the file cannot be written."""
    write_atomically(path, text.encode())


def _write(message: Message, path: str, unknown: dict[str, list[RawField]], out: io.StringIO, indent: int) -> None:
    written: set[str] = set()
    for field, value in message.ListFields():
        known_field = fields_of(message.DESCRIPTOR)[field.name]
        for i, one in enumerate(value if known_field.repeated else [value]):
            at = f"{path}{field.name}" + (f"[{i}]" if known_field.repeated else "")
            written.add(at)
            if known_field.convert is None and any(other == at or other.startswith(at + ".") for other in unknown):
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
        is_utf8 = data == data.decode("utf-8", "ignore").encode()
        out.write(f'{space}{raw.name}: "{text_encoding.CEscape(data, as_utf8=is_utf8)}"\n')
    else:
        out.write(f"{space}{raw.name}: {raw.value}\n")
