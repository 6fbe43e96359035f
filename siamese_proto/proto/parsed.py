"""A file as it was read: the message, and where in the text every layer and field of it stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from siamese_proto.errors import Location
from siamese_proto.proto import schema


@dataclass(frozen=True)
class RawField:
    """A field as it was written: what the schema does not know, or cannot hold, is kept this way.

    `value` is the text of a scalar (without quotes, `is_string` tells whether it had them), or the fields of a message.
    `fault` says why a field that the schema does know cannot hold it: a fork of Caffe may have another type for it.
    """

    name: str
    value: str | tuple[RawField, ...]
    location: Location
    is_string: bool = False
    fault: str = ""


@dataclass(frozen=True)
class Source:
    """Where a message stands in the text.

    `fields` maps the path of every field below it (`convolution_param.kernel_size[0]`, `bottom[1]`, `top[0]`; the index
    only at repeated fields) to its place. `unknown` holds fields and values that the schema does not know or cannot
    hold, with the path of the message they stand in (`""`: directly in this message).
    """

    location: Location
    fields: Mapping[str, Location] = field(default_factory=dict)
    unknown: tuple[tuple[str, RawField], ...] = ()

    def find(self, path: str | None) -> Location:
        """The place of a field; of the nearest message around it where the field itself was not written."""
        while path:
            if path in self.fields:
                return self.fields[path]
            path = path.rpartition(".")[0] if not path.endswith("]") else path[: path.rindex("[")]
        return self.location

    def renamed(self, rename: Callable[[str], str | None]) -> Source:
        """The same places under other paths; `rename` gives None for a path that there is no longer."""
        fields = {new: place for old, place in self.fields.items() if (new := rename(old)) is not None}
        return Source(self.location, fields, tuple((rename(path) or "", raw) for path, raw in self.unknown))

    def without(self, *names: str) -> Source:
        """What is left when the fields `names` are gone, with all that stands in them."""

        def gone(path: str) -> bool:
            return path.partition(".")[0].partition("[")[0] in names

        fields = {path: place for path, place in self.fields.items() if not gone(path)}
        return Source(self.location, fields, tuple(entry for entry in self.unknown if not gone(entry[0])))

    def below(self, path: str) -> Source:
        """What stands in the message field at `path`, with paths that begin there."""
        prefix = path + "."
        fields = {name.removeprefix(prefix): place for name, place in self.fields.items() if name.startswith(prefix)}
        unknown = ((at[len(prefix) :], raw) for at, raw in self.unknown if at == path or at.startswith(prefix))
        return Source(self.find(path), fields, tuple(unknown))

    def split(self, name: str) -> tuple[Source, tuple[Source, ...]]:
        """What is left without the repeated message field `name`, and one Source for each message of it."""
        mark = name + "["
        rest: dict[str, Location] = {}
        places: list[Location] = []
        fields: list[dict[str, Location]] = []
        unknown: list[list[tuple[str, RawField]]] = []
        for path, place in self.fields.items():
            head, _, below = path.partition(".")
            if not head.startswith(mark):
                rest[path] = place
            elif below:
                fields[int(head[len(mark) : -1])][below] = place
            else:  # a message stands before what is in it
                places.append(place)
                fields.append({})
                unknown.append([])
        unknown_rest = []
        for path, raw in self.unknown:
            head, _, below = path.partition(".")
            if head.startswith(mark):
                unknown[int(head[len(mark) : -1])].append((below, raw))
            else:
                unknown_rest.append((path, raw))
        parts = (Source(*part) for part in zip(places, fields, map(tuple, unknown), strict=True))
        return Source(self.location, rest, tuple(unknown_rest)), tuple(parts)


@dataclass(frozen=True)
class ParsedNet:
    """A net in today's dialect, whatever dialect it was written in."""

    message: schema.NetParameter
    layers: tuple[Source, ...]  # one for each of message.layer, in its order
    source: Source  # of the net itself
    upgrades: tuple[str, ...] = ()  # what had to be changed to bring it to today's dialect, one line each

    @property
    def file(self) -> str:
        """The file's path as it was given, or `<text>`."""
        return self.source.location.file


@dataclass(frozen=True)
class ParsedSolver:
    """Solver settings in today's dialect."""

    message: schema.SolverParameter
    source: Source
    upgrades: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The file's path as it was given, or `<text>`."""
        return self.source.location.file
