"""Prototxt files to messages: every layer and field with its place, and what the schema does not know kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar, cast

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from siamese_proto.errors import Location, ParseError, did_you_mean, quoted
from siamese_proto.proto import schema
from siamese_proto.proto.load import PathOrText, load_text
from siamese_proto.proto.parsed import ParsedNet, ParsedSolver, RawField, Source
from siamese_proto.proto.text import Block, Node, Scalar, parse_tree
from siamese_proto.proto.upgrade.net import upgrade_read_net
from siamese_proto.proto.upgrade.solver import upgrade_read_solver
from siamese_proto.proto.values import Field, UnknownEnumValueError, fields_of

AnyMessage = TypeVar("AnyMessage", bound=Message)


def parse_net(path_or_text: PathOrText) -> ParsedNet:
    """Read a net and bring it to today's dialect.

    A path object, or a text that names an existing file, is a path; a text that holds `{`, `:` or a newline is the net
    itself. Fields and values that the schema does not know, or cannot hold, are kept (`unknown_problems` lists them).
    Raises ParseError where the file cannot be read, is not a prototxt, or cannot be upgraded.
    """
    loaded = load_text(path_or_text)
    message, source = read_message(loaded.text, schema.NetParameter, loaded.file)
    _refuse_empty(source, "net")
    _refuse_label_map(source)
    if not (message.layer or message.layers or message.input):
        told = _names(source) & {"base_lr", "lr_policy", "max_iter", "net", "train_net"}
        _refuse_other(source, told, "this is a solver file, not a net; give the net that it names")
    return upgrade_read_net(message, source, notes=loaded.notes)


def parse_solver(path_or_text: PathOrText) -> ParsedSolver:
    """Read solver settings and bring them to today's dialect; see `parse_net`.

    Nets written inside them stay as they are written: `inline_net` reads those.
    """
    loaded = load_text(path_or_text)
    message, source = read_message(loaded.text, schema.SolverParameter, loaded.file)
    _refuse_empty(source, "solver setting")
    _refuse_label_map(source)
    told = _names(source) & {"layer", "layers", "input"}
    _refuse_other(source, told, 'this is a net, not a solver file; name it in one: net: "FILE"')
    return upgrade_read_solver(message, source, notes=loaded.notes)


def inline_net(parsed: ParsedSolver, path: str) -> ParsedNet:
    """The net written inside a solver file at `path` (`net_param`, `test_net_param[1]`), in today's dialect."""
    name, _, index = path.rstrip("]").partition("[")
    written = getattr(parsed.message, name)
    message = schema.NetParameter()
    message.CopyFrom(written[int(index)] if index else written)
    return upgrade_read_net(message, parsed.source.below(path))


def _refuse_empty(source: Source, what: str) -> None:
    if not source.fields and not source.unknown:
        raise ParseError(f"the file is empty: it holds no {what}", location=source.location)


def _refuse_label_map(source: Source) -> None:
    """The file of an object detector that names its classes: `item { name: "cat" label: 1 }`."""
    top = [raw for path, raw in source.unknown if not path]
    if top and not source.fields and all(raw.name == "item" for raw in top):
        text = f"this is a label map ({len(top)} items with names of classes), not a net or a solver file"
        raise ParseError(text, location=top[0].location)


def _names(source: Source) -> set[str]:
    """The unknown fields at the top level."""
    return {field.name for path, field in source.unknown if not path}


def _refuse_other(source: Source, told: set[str], fault: str) -> None:
    """A file of the other kind, told by fields that this kind does not have."""
    if told:
        raise ParseError(fault, location=source.location)


def read_message(text: str, message_class: type[AnyMessage], file: str = "<text>") -> tuple[AnyMessage, Source]:
    """Read a text as a message of any class of the schema; ParseError with the place where it is not one."""
    message = message_class()
    reading = _Reading(file)
    reading.fill(message, parse_tree(text, file), "")
    return message, Source(Location(file, 1), reading.fields, tuple(reading.unknown))


class _Reading:
    """Fills messages from the tree of a text and notes where everything stood."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.fields: dict[str, Location] = {}
        self.unknown: list[tuple[str, RawField]] = []

    def fill(self, message: Message, nodes: list[Node], path: str) -> None:
        known = fields_of(message.DESCRIPTOR)
        prefix = f"{path}." if path else ""
        for node in nodes:
            field = known.get(node.name)
            if field is None:
                self.unknown.extend((path, raw) for raw in self._raw(node))
            else:
                for value in node.values:
                    self._value(message, field, node, value, prefix)

    def _value(self, message: Message, field: Field, node: Node, value: Scalar | Block, prefix: str) -> None:
        path = prefix + field.name
        location = self._place(value if node.is_list else node)
        if field.repeated:
            path = f"{path}[{len(getattr(message, field.name))}]"
        elif path in self.fields:
            self._keep(node, value, prefix, _given_twice(node, self.fields[path].line))
            return
        if isinstance(value, Block):
            self._block(message, field, node, value, path, location)
        elif self._scalar(message, field, node, value, prefix):
            self.fields[path] = location

    def _block(self, message: Message, field: Field, node: Node, value: Block, path: str, location: Location) -> None:
        if field.convert is not None:
            fault = f"{quoted(field.name)} takes a plain value, not a message in braces"
            self._keep(node, value, path.removesuffix(field.name), fault)
            return
        self.fields[path] = location
        if field.repeated:
            child = getattr(message, field.name).add()
        else:
            child = getattr(message, field.name)
            child.SetInParent()
        self.fill(child, value.fields, path)

    def _scalar(self, message: Message, field: Field, node: Node, value: Scalar, prefix: str) -> bool:
        if field.convert is None:
            hint = f"{field.name} {{ ... }}"
            found = value.text if value.kind == "string" else quoted(value.text)
            fault = f"{quoted(field.name)} is a message, expected {quoted(hint)}, found {found}"
            self._keep(node, value, prefix, fault)
            return False
        try:
            converted = field.convert(value)
        except UnknownEnumValueError:
            self.unknown.append((prefix[:-1], self._raw_value(node, value)))
            return False
        except ValueError as error:
            self._keep(node, value, prefix, f"{quoted(field.name)}: {error}")
            return False
        if field.repeated:
            getattr(message, field.name).append(converted)
        else:
            setattr(message, field.name, converted)
        return True

    def _keep(self, node: Node, value: Scalar | Block, prefix: str, fault: str) -> None:
        """Keep a value that its field cannot hold, with what is wrong: the rest of the file is read all the same."""
        raw = replace(self._raw_value(node, value), fault=fault, location=self._place(value))
        self.unknown.append((prefix[:-1], raw))

    def _raw(self, node: Node) -> list[RawField]:
        return [self._raw_value(node, value) for value in node.values]

    def _raw_value(self, node: Node, value: Scalar | Block) -> RawField:
        location = self._place(value if node.is_list else node)
        if isinstance(value, Block):
            return RawField(node.name, tuple(raw for child in value.fields for raw in self._raw(child)), location)
        if value.kind == "string":
            return RawField(node.name, value.data.decode("utf-8", "surrogateescape"), location, is_string=True)
        return RawField(node.name, value.text, location)

    def _place(self, written: Node | Scalar | Block) -> Location:
        return Location(self.file, written.line, written.column)


def _given_twice(node: Node, first: int) -> str:
    if node.is_list:
        return f"{quoted(node.name)} takes one value, not a list"
    return f"{quoted(node.name)} is given twice, first in line {first}; it takes one value"


class UnknownFieldError(ParseError):
    """A field, or a value of one, that the schema does not know."""


class MisfitError(ParseError):
    """A value that its field cannot hold."""


def unknown_problems(parsed: ParsedNet | ParsedSolver) -> list[ParseError]:
    """An error, not raised, for each field and value that the schema does not know or hold, in the order written.

    `field` of each is its path in the layer (`my_layer_param`), or in the message itself outside of layers.
    """
    problems = [_unknown(parsed.message, path, raw) for path, raw in parsed.source.unknown if not is_engine(raw)]
    if isinstance(parsed, ParsedNet):
        for message, source in zip(parsed.message.layer, parsed.layers, strict=True):
            for path, raw in source.unknown:
                if is_engine(raw):
                    continue
                problem = _unknown(message, path, raw)
                problem.layer = message.name
                problems.append(problem)
    return sorted(problems, key=lambda problem: problem.location.line if problem.location else 0)


def is_engine(raw: RawField) -> bool:
    """Whether a field chooses, in the words of some fork, between ways to compute one and the same thing."""
    return raw.name == "engine" and isinstance(raw.value, str) and not raw.fault


def _unknown(message: Message, path: str, raw: RawField) -> ParseError:
    if raw.fault:
        return MisfitError(raw.fault, location=raw.location, field=f"{path}.{raw.name}".lstrip("."))
    descriptor = cast(Descriptor, message.DESCRIPTOR)  # of either of the two kinds of protobuf
    for step in filter(None, path.split(".")):
        descriptor = cast(Descriptor, descriptor.fields_by_name[step.partition("[")[0]].message_type)
    full = f"{path}.{raw.name}" if path else raw.name
    where = f" in {path}" if path else ""
    known = descriptor.fields_by_name.get(raw.name)
    names = [value.name for value in known.enum_type.values] if known and known.enum_type else []
    if names and isinstance(raw.value, str) and raw.value not in names:
        hint = did_you_mean(raw.value, names)
        text = f"unknown value {quoted(raw.value)} of {full}, expected one of {', '.join(names)}{hint}"
    elif known:  # it was written in a V0 or V1 layer
        text = f"field {quoted(raw.name)}{where} belongs to today's dialect; write the layer as layer {{ ... }}"
    else:
        text = f"unknown field {quoted(raw.name)}{where}{_nearest(raw.name, descriptor.fields_by_name)}"
    return UnknownFieldError(text, location=raw.location, field=full)


def _nearest(name: str, known: Iterable[str]) -> str:
    """A hint; half of the letters of `roi_param` and `relu_param` are equal whatever stands before them."""
    suffix = "_param"
    if name.endswith(suffix):
        hint = did_you_mean(name.removesuffix(suffix), (k.removesuffix(suffix) for k in known if k.endswith(suffix)))
        return hint.replace("'?", f"{suffix}'?")
    return did_you_mean(name, known)
