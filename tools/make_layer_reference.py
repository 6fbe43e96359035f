"""Write the layer reference from the docstrings of the layers and the schema: make_layer_reference.py [TARGET]."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor

import siamese_proto  # noqa: F401  # registers every layer type
from siamese_proto.check.idle_fields import FILLER_READS, WAYS_TO_COMPUTE
from siamese_proto.files import write_atomically
from siamese_proto.layers.base import DataLayer, Layer, registered, settings_named
from siamese_proto.proto import schema

TARGET = Path(__file__).resolve().parent.parent / "docs" / "layers.md"
FIELDS = cast(dict[str, FieldDescriptor], schema.LayerParameter.DESCRIPTOR.fields_by_name)
HEAD = """# Layer reference

This page lists every layer type, what it computes and its settings. `python tools/make_layer_reference.py` writes it
from the code; do not edit it.

- Shapes read `bottoms -> tops`, outermost axis first: N rows of a batch, C channels, H and W the height and width of
  an image; `*S` stands for any number of axes. Axes count from 0, negative axes from the end.
- Gradients are those of Caffe. The text says where they differ from the derivative of the formula.
- "Caffe:" names the file of BVLC Caffe 1.0 that defines the layer. Layers "not in BVLC Caffe" are extensions; see
  [custom layers](custom_layers.md) for how to add more.
- `siamese-proto check` reports fields that have no effect, with their line.
"""


def reference() -> str:
    """Return the complete page."""
    own = {name: kind for name, kind in registered().items() if kind.__module__.startswith("siamese_proto.")}
    kinds = dict(sorted(own.items(), key=lambda item: item[0].casefold()))
    sections = [section(name, kind) for name, kind in kinds.items()]
    contents = " · ".join(f"[{name}](#{anchor(name)})" for name in kinds)
    shared = [table(message, f"## {message.name}") for message in shared_messages(kinds)]
    return "\n".join([HEAD, contents, "", *sections, common_fields(), *shared, fillers()])


def section(name: str, kind: type[Layer]) -> str:
    """Return the section of one layer type."""
    head, _, rest = cleandoc(kind.__doc__ or "").partition("\n\n")
    lines = [f"## {name}", "", escaped(" ".join(head.split())), ""]
    if rest:
        lines += ["```text", rest, "```", ""]
    lines += [arity(kind), ""]
    for settings in kind.reads:
        message = message_of(FIELDS[settings])
        if message and settings in settings_named(name):
            lines.append(table(message, f"`{settings}`:"))
        else:
            lines += [f"`{settings}`: see {link_of(settings)}.", ""]
    if not kind.reads:
        lines += ["It has no layer-specific settings.", ""]
    return "\n".join(lines)


def arity(kind: type[Layer]) -> str:
    """Return the numbers of bottoms and tops, and special rules for them."""
    words = [f"Bottoms: {kind.bottoms}.", f"Tops: {'as many' if kind.same_count else kind.tops}."]
    if kind.is_loss:
        words.append("A loss: its first top counts with weight 1 unless `loss_weight` says otherwise.")
    if not kind.differentiable:
        words.append("No gradient passes it.")
    if kind.labels:
        words.append(f"No gradient reaches bottom {' and '.join(map(str, kind.labels))}.")
    if issubclass(kind, DataLayer):
        words.append("A data layer: its tops come from outside the net.")
    return " ".join(words)


def table(message: Descriptor, title: str) -> str:
    """Return the table of a message's fields, in the order of the schema."""
    rows = [f"| `{field.name}` | {type_of(field)} | {default_of(field)} |" for field in message.fields]
    return "\n".join([title, "", "| field | type | default |", "|---|---|---|", *rows, ""])


def type_of(field: FieldDescriptor) -> str:
    """`uint32`, `MAX`, `AVE` or `STOCHASTIC`, or the message that the field is."""
    message = message_of(field)
    if message is not None:
        kind = f"[{message.name}](#{anchor(message.name)})" if message.name != "BlobProto" else message.name
    elif field.enum_type is not None:
        kind = ", ".join(f"`{value.name}`" for value in field.enum_type.values)
    else:
        names = vars(FieldDescriptor).items()
        kind = next(name for name, number in names if name.startswith("TYPE_") and number == field.type)
        kind = kind.removeprefix("TYPE_").lower()
    idle = "; no effect: torch chooses the implementation" if field.name in WAYS_TO_COMPUTE else ""
    return kind + (", any number of times" if field.default_value == [] else "") + idle


def default_of(field: FieldDescriptor) -> str:
    """Return the default of a field; empty if Caffe distinguishes unset fields or has no default."""
    if not field.has_default_value:
        return ""
    if field.enum_type is not None:
        return f"`{field.enum_type.values_by_number[field.default_value].name}`"
    value = field.default_value
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else f'"{value}"' if isinstance(value, str) else str(value)


def shared_messages(kinds: dict[str, type[Layer]]) -> Sequence[Descriptor]:
    """Return messages nested in others, and settings that are not named after a layer type."""
    messages: dict[str, Descriptor] = {}

    def visit(fields: Iterable[FieldDescriptor]) -> None:
        for message in map(message_of, fields):
            if message is not None and message.name != "BlobProto" and message.name not in messages:
                messages[message.name] = message
                visit(message.fields)

    read = {settings for kind in kinds.values() for settings in kind.reads}
    named = {settings for name in kinds for settings in settings_named(name)}
    visit(FIELDS[settings] for settings in read - named)
    for settings in read & named:
        message = message_of(FIELDS[settings])
        visit(message.fields if message is not None else ())
    visit(plain_fields())
    return [messages[name] for name in sorted(messages)]


def link_of(settings: str) -> str:
    """Return the link to a message's fields: at the layer with its name, otherwise in a separate section."""
    message = message_of(FIELDS[settings])
    owner = next((name for name in registered() if settings in settings_named(name)), None)
    name = owner or (message.name if message is not None else settings)
    return f"[{name}](#{anchor(name)})"


def message_of(field: FieldDescriptor) -> Descriptor | None:
    """Return the message type of a field, or None."""
    return field.message_type


def plain_fields() -> Iterator[FieldDescriptor]:
    """Return the fields of a layer that are not settings of its type."""
    return (field for name, field in FIELDS.items() if not name.endswith("_param"))


def common_fields() -> str:
    """Return the section on fields of every layer."""
    rows = [f"| `{field.name}` | {type_of(field)} | {default_of(field)} |" for field in plain_fields()]
    head = ["## Every layer", "", "Fields that a layer of any type may have.", ""]
    return "\n".join([*head, "| field | type | default |", "|---|---|---|", *rows, ""])


def fillers() -> str:
    """Return the section on filler types and their fields."""
    rows = [
        f"| `{name}` | {', '.join(f'`{field}`' for field in fields) or 'nothing'} |"
        for name, fields in FILLER_READS.items()
    ]
    return "\n".join(["## Types of fillers", "", "| type | fields |", "|---|---|", *rows, ""])


def anchor(heading: str) -> str:
    """Return the URL fragment of a heading."""
    return heading.lower().replace(" ", "-")


def escaped(text: str) -> str:
    """Escape a docstring as Markdown: stars and underscores outside code stay literal."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<|])", r"\\\1", part) for part in parts)


if __name__ == "__main__":
    write_atomically(sys.argv[1] if len(sys.argv) > 1 else TARGET, reference().encode())
