"""Parsed files: the message, and the location of every layer and field in the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from siamese_proto.errors import Location
from siamese_proto.proto import schema


@dataclass(frozen=True)
class RawField:
    """A field as written, which the schema does not know or cannot hold.

    Attributes:
        value: The text of a scalar, without quotes, or the fields of a message.
        is_string: Whether the scalar has quotes.
        fault: Why a field of the schema cannot hold the value. (A fork of Caffe may have another type for it.)
    """

    name: str
    value: str | tuple[RawField, ...]
    location: Location
    is_string: bool = False
    fault: str = ""


@dataclass(frozen=True)
class Source:
    """The locations of a message and its fields in the text.

    Attributes:
        fields: The location of every field by its path (`convolution_param.kernel_size[0]`, `bottom[1]`, `top[0]`; only
            repeated fields have an index).
        unknown: Fields and values that the schema does not know or cannot hold, with the path of their message (`""`
            for this message itself).
    """

    location: Location
    fields: Mapping[str, Location] = field(default_factory=dict)
    unknown: tuple[tuple[str, RawField], ...] = ()

    def find(self, path: str | None) -> Location:
        """Return the location of a field, or of the nearest message around it that is written."""
        while path:
            if path in self.fields:
                return self.fields[path]
            path = path.rpartition(".")[0] if not path.endswith("]") else path[: path.rindex("[")]
        return self.location

    def renamed(self, rename: Callable[[str], str | None]) -> Source:
        """Return the same locations under other paths; `rename` returns None for a path to drop."""
        fields = {new: place for old, place in self.fields.items() if (new := rename(old)) is not None}
        unknown = ((new, raw) for old, raw in self.unknown if (new := rename(old)) is not None)
        return Source(self.location, fields, tuple(unknown))

    def without(self, *names: str) -> Source:
        """Return the locations without the fields `names` and what is inside them."""
        return self.renamed(lambda path: None if re.split(r"[.[]", path, maxsplit=1)[0] in names else path)

    def below(self, path: str) -> Source:
        """Return the locations inside the message field at `path`, with paths relative to it."""

        def inside(name: str) -> str | None:
            return name[len(path) + 1 :] if name == path or name.startswith(path + ".") else None

        inner = self.renamed(inside)
        return Source(self.find(path), {name: place for name, place in inner.fields.items() if name}, inner.unknown)

    def split(self, name: str) -> tuple[Source, tuple[Source, ...]]:
        """Return what remains without the repeated message field `name`, and one Source for each of its messages."""
        rest, messages = _group(self.fields.items(), name)
        unknown_rest, unknown = _group(self.unknown, name)
        parts = []
        for head, entries in messages.items():
            fields = dict(entries)
            parts.append(Source(fields.pop(""), fields, tuple(unknown.get(head, ()))))
        return Source(self.location, dict(rest), tuple(unknown_rest)), tuple(parts)


_Entry = TypeVar("_Entry")


def _group(
    entries: Iterable[tuple[str, _Entry]], name: str
) -> tuple[list[tuple[str, _Entry]], dict[str, list[tuple[str, _Entry]]]]:
    """Return the entries outside of the field `name`, and those inside each `name[i]`, with paths relative to it."""
    rest: list[tuple[str, _Entry]] = []
    groups: dict[str, list[tuple[str, _Entry]]] = {}
    for path, entry in entries:
        head, _, below = path.partition(".")
        if head.startswith(f"{name}["):
            groups.setdefault(head, []).append((below, entry))
        else:
            rest.append((path, entry))
    return rest, groups


@dataclass(frozen=True)
class ParsedNet:
    """A net in the current format."""

    message: schema.NetParameter
    layers: tuple[Source, ...]  # one for each of message.layer, in its order
    source: Source  # of the net itself
    upgrades: tuple[str, ...] = ()  # one line for each change of the upgrade to the current format

    @property
    def file(self) -> str:
        """The path of the file, or `<text>`."""
        return self.source.location.file


@dataclass(frozen=True)
class ParsedSolver:
    """Solver settings in the current format."""

    message: schema.SolverParameter
    source: Source
    upgrades: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The path of the file, or `<text>`."""
        return self.source.location.file


@dataclass
class Draft:
    """A net during its upgrade: the message so far, the locations of its layers, and notes about changes."""

    message: schema.NetParameter
    source: Source  # of the net itself
    layers: list[Source]  # one for each of message.layer
    old_layers: list[Source]  # one for each of message.layers
    notes: list[str] = field(default_factory=list)
