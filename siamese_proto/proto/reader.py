"""Read prototxt files into messages, with the location of every field and with the fields that the schema lacks."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from siamese_proto.errors import Location, ParseError, did_you_mean, quoted
from siamese_proto.proto import schema
from siamese_proto.proto.load import PathOrText, load_text
from siamese_proto.proto.parsed import ParsedNet, ParsedSolver, RawField, Source
from siamese_proto.proto.text import Block, Node, Token, parse_tree
from siamese_proto.proto.upgrade.net import upgrade_read_net
from siamese_proto.proto.upgrade.solver import upgrade_read_solver
from siamese_proto.proto.values import Field, UnknownEnumValueError, fields_of

AnyMessage = TypeVar("AnyMessage", bound=Message)


def parse_net(path_or_text: PathOrText) -> ParsedNet:
    """Read a net and upgrade it to the current format.

    Fields and values that the schema does not know, or cannot hold, are kept: see `unknown_problems`.

    Args:
        path_or_text: A path object, or a text that names an existing file, is a path; other texts that hold `{`, `:` or
            a newline are the net itself.

    Raises:
        ParseError: The file cannot be read, is not a net, or cannot be upgraded.
    """
    message, source, notes = _load_message(path_or_text, schema.NetParameter, "net")
    solver_fields = {"base_lr", "lr_policy", "max_iter", "net", "train_net"}
    if not (message.layer or message.layers or message.input) and _unknown_names(source) & solver_fields:
        text = "expected a net, got a solver file; pass the net that it names"
        raise ParseError(text, location=source.location)
    return upgrade_read_net(message, source, notes=notes)


def parse_solver(path_or_text: PathOrText) -> ParsedSolver:
    """Read solver settings and upgrade them to the current format; see `parse_net`.

    Nets written inside them are not upgraded; `inline_net` does that.
    """
    message, source, notes = _load_message(path_or_text, schema.SolverParameter, "solver setting")
    if _unknown_names(source) & {"layer", "layers", "input"}:
        text = 'expected a solver file, got a net; pass a solver file with the line net: "FILE"'
        raise ParseError(text, location=source.location)
    return upgrade_read_solver(message, source, notes=notes)


def inline_net(parsed: ParsedSolver, path: str) -> ParsedNet:
    """Return the net inside a solver file at `path` (`net_param`, `test_net_param[1]`), upgraded."""
    name, _, index = path.rstrip("]").partition("[")
    written = getattr(parsed.message, name)
    message = schema.NetParameter()
    message.CopyFrom(written[int(index)] if index else written)
    return upgrade_read_net(message, parsed.source.below(path))


def _load_message(
    path_or_text: PathOrText, message_class: type[AnyMessage], content: str
) -> tuple[AnyMessage, Source, tuple[str, ...]]:
    """Read a file; ParseError for empty files and for label maps of object detectors (`item { name: "cat" id: 1 }`)."""
    loaded = load_text(path_or_text)
    message, source = read_message(loaded.text, message_class, loaded.file)
    if not source.fields and not source.unknown:
        raise ParseError(f"the file is empty, expected a {content}", location=source.location)
    items = [raw for path, raw in source.unknown if not path]
    if items and not source.fields and all(raw.name == "item" for raw in items):
        text = f"expected a net or a solver file, got a label map ({len(items)} items with names of classes)"
        raise ParseError(text, location=items[0].location)
    return message, source, loaded.notes


def _unknown_names(source: Source) -> set[str]:
    """Return the names of unknown fields at the top level."""
    return {raw.name for path, raw in source.unknown if not path}


def read_message(text: str, message_class: type[AnyMessage], file: str = "<text>") -> tuple[AnyMessage, Source]:
    """Read a text as a message of any class of the schema. Raises ParseError if it is not in the text format."""
    message = message_class()
    reading = _Reading(file)
    reading.fill(message, parse_tree(text, file), "")
    return message, Source(Location(file, 1), reading.fields, tuple(reading.unknown))


class _Reading:
    """Fills messages from the tree of a text and collects the locations of fields."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.fields: dict[str, Location] = {}
        self.unknown: list[tuple[str, RawField]] = []

    def fill(self, message: Message, nodes: list[Node], path: str) -> None:
        fields = fields_of(message.DESCRIPTOR)
        for node in nodes:
            field = fields.get(node.name)
            for value in node.values:
                if field is None:
                    self.unknown.append((path, self._raw(node, value)))
                else:
                    self._value(message, field, node, value, path)

    def _value(self, message: Message, field: Field, node: Node, value: Token | Block, parent: str) -> None:
        """Set a field, or keep a value that it cannot hold, with the reason: the rest of the file is read anyway."""
        path = f"{parent}.{field.name}" if parent else field.name
        present = getattr(message, field.name)
        if field.repeated:
            path = f"{path}[{len(present)}]"
        try:
            self._check_fits(field, node, value, path)
            if field.convert is not None and isinstance(value, Token):
                converted = field.convert(value)
                if field.repeated:
                    present.append(converted)
                else:
                    setattr(message, field.name, converted)
        except UnknownEnumValueError:
            self.unknown.append((parent, self._raw(node, value)))
            return
        except ValueError as error:
            raw = replace(self._raw(node, value), fault=f"{quoted(field.name)}: {error}", location=self._place(value))
            self.unknown.append((parent, raw))
            return
        self.fields[path] = self._place(value if node.is_list else node)
        if isinstance(value, Block):
            child = present.add() if field.repeated else present
            child.SetInParent()
            self.fill(child, value.fields, path)

    def _check_fits(self, field: Field, node: Node, value: Token | Block, path: str) -> None:
        """Raise ValueError for a second value of a field that takes one, and for a message instead of a value."""
        if not field.repeated and path in self.fields:
            if node.is_list:
                raise ValueError("expected one value, got a list")
            raise ValueError(f"given twice, first in line {self.fields[path].line}; keep one value")
        if field.convert is not None and isinstance(value, Block):
            raise ValueError("expected a value, got a message in braces")
        if field.convert is None and isinstance(value, Token):
            raise ValueError(f"expected a message, {quoted(f'{field.name} {{ ... }}')}, got {value}")

    def _raw(self, node: Node, value: Token | Block) -> RawField:
        location = self._place(value if node.is_list else node)
        if isinstance(value, Block):
            inside = tuple(self._raw(child, below) for child in value.fields for below in child.values)
            return RawField(node.name, inside, location)
        if value.kind == "string":
            return RawField(node.name, value.data.decode("utf-8", "surrogateescape"), location, is_string=True)
        return RawField(node.name, value.text, location)

    def _place(self, written: Node | Token | Block) -> Location:
        return Location(self.file, written.line, written.column)


class UnknownFieldError(ParseError):
    """A field, or a value of one, that the schema does not know."""


class InvalidValueError(ParseError):
    """A value that its field cannot hold."""


def unknown_problems(parsed: ParsedNet | ParsedSolver) -> list[ParseError]:
    """Return an error, not raised, for each field and value that the schema does not know or hold, in file order.

    The `field` of each error is its path in the layer (`my_layer_param`), or in the message itself outside of layers.
    """
    problems = [_unknown(parsed.message, path, raw) for path, raw in parsed.source.unknown if not is_engine(raw)]
    if isinstance(parsed, ParsedNet):
        for message, source in zip(parsed.message.layer, parsed.layers, strict=True):
            for path, raw in source.unknown:
                if not is_engine(raw):
                    problem = _unknown(message, path, raw)
                    problem.layer = message.name
                    problems.append(problem)
    return sorted(problems, key=lambda problem: problem.location.line if problem.location else 0)


def is_engine(raw: RawField) -> bool:
    """Return whether a field is the `engine` of some fork, which chooses between implementations of the same result."""
    return raw.name == "engine" and isinstance(raw.value, str) and not raw.fault


def _unknown(message: Message, path: str, raw: RawField) -> ParseError:
    if raw.fault:
        return InvalidValueError(raw.fault, location=raw.location, field=f"{path}.{raw.name}".lstrip("."))
    descriptor = cast(Descriptor, message.DESCRIPTOR)  # of both implementations of protobuf
    for step in filter(None, path.split(".")):
        descriptor = cast(Descriptor, descriptor.fields_by_name[step.partition("[")[0]].message_type)
    full = f"{path}.{raw.name}" if path else raw.name
    where = f" in {path}" if path else ""
    schema_field = descriptor.fields_by_name.get(raw.name)
    names = [value.name for value in schema_field.enum_type.values] if schema_field and schema_field.enum_type else []
    if names and isinstance(raw.value, str) and raw.value not in names:
        hint = did_you_mean(raw.value, names)
        text = f"unknown value {quoted(raw.value)} of {full}, expected one of {', '.join(names)}{hint}"
    elif schema_field:  # written in a V0 or V1 layer
        text = f"unknown field {quoted(raw.name)}{where} in this old format; write the layer as layer {{ ... }}"
    else:
        text = f"unknown field {quoted(raw.name)}{where}{_nearest(raw.name, descriptor.fields_by_name)}"
    return UnknownFieldError(text, location=raw.location, field=full)


def _nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint. Names in `_param` are compared without this suffix, which makes all of them similar."""
    suffix = "_param"
    if name.endswith(suffix):
        hint = did_you_mean(name.removesuffix(suffix), (k.removesuffix(suffix) for k in names if k.endswith(suffix)))
        return hint.replace("'?", f"{suffix}'?")
    return did_you_mean(name, names)
