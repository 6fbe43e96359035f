"""Typed settings of layers that the schema does not know: `my_layer_param { ... }`, in text and in binary files.

A frozen dataclass says what stands in the message. From it a message class is made in a descriptor pool of its own, so
that text and bytes are read, checked and written as the schema's own messages are; the schema itself is never changed.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from siamese_proto.errors import GraphError, Location, ParseError, did_you_mean, quoted
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import RawField
from siamese_proto.proto.reader import UnknownFieldError
from siamese_proto.proto.text import Token
from siamese_proto.proto.values import fields_of

Kind = descriptor_pb2.FieldDescriptorProto
_SCALARS = {int: Kind.TYPE_INT64, float: Kind.TYPE_FLOAT, bool: Kind.TYPE_BOOL, str: Kind.TYPE_STRING}
_LENGTH_DELIMITED = 2  # the wire type of messages
_WORDS = "0123456789+-."


@dataclass(frozen=True)
class OwnSettings:
    """The settings of a registered layer type: its dataclass, and the field of LayerParameter that they stand in."""

    parameters: type
    name: str
    number: int
    message_class: type[Message] = field(repr=False)

    def from_text(self, raws: Sequence[RawField]) -> tuple[bytes, dict[str, Location]]:
        """The bytes of the settings as they were written, and the place of every field in them, by path.

        Raises ParseError, with its place, for what the dataclass does not know or does not take.
        """
        message = self.message_class()
        places: dict[str, Location] = {}
        for raw in raws:
            if isinstance(raw.value, str):
                raise ParseError(
                    f"{quoted(self.name)} is a message, expected '{self.name} {{ ... }}', got {quoted(raw.value)}",
                    location=raw.location,
                    field=self.name,
                )
            places.setdefault(self.name, raw.location)
            _fill(message, raw.value, self.name, places)
        return message.SerializePartialToString(), places

    def of(self, message: schema.LayerParameter) -> Any:
        """The settings in a layer's message, as the dataclass; GraphError where one that must be given is not."""
        read = self.message_class()
        try:
            read.MergeFromString(binary_settings(message, self.number) or b"")
        except (DecodeError, UnicodeDecodeError):  # the second by the pure-Python protobuf
            text = f"field {self.number} is not the {self.name} that {self.parameters.__name__} describes"
            raise GraphError(text, field=self.name) from None
        return _to_dataclass(self.parameters, read, self.name)

    def put(self, message: schema.LayerParameter, data: bytes) -> None:
        """Add settings to a layer's message, as the field of their number that the schema does not know."""
        message.MergeFromString(_varint(self.number << 3 | _LENGTH_DELIMITED) + _varint(len(data)) + data)


def own_settings(parameters: type, name: str, number: int | None) -> OwnSettings:
    """What a dataclass means as the field `name` of LayerParameter.

    A field of it is int, float, bool, str, a Literal of names, another such dataclass, a tuple of any of these
    (`tuple[int, ...]`), or one of them or None; its number is its place, from 1, unless its metadata gives one:
    `field(default=1.0, metadata={"number": 3})`. Without `number` one is made of the name. Raises ValueError for a
    name or number that the schema has, and TypeError for a dataclass that cannot be read.
    """
    known = schema.LayerParameter.DESCRIPTOR
    if name in known.fields_by_name:
        raise ValueError(f"{name} is a field of Caffe's own; give the settings another name")
    if number is not None and number in known.fields_by_number:
        taken = cast(Descriptor, known).fields_by_number[number].name
        raise ValueError(f"field {number} is {taken} in Caffe; leave the number of {name} out")
    # Beyond all numbers in use, and the same in every process; protobuf's largest is 2^29 - 1.
    chosen = number if number is not None else 1_000_000 + zlib.crc32(name.encode()) % 500_000_000
    if not 0 < chosen < 2**29 or 19000 <= chosen < 20000:
        raise ValueError(f"{chosen} cannot be the number of a field")
    return OwnSettings(parameters, name, chosen, message_class_of(parameters))


def binary_settings(message: schema.LayerParameter, number: int) -> bytes | None:
    """What stands in a binary message at a number that the schema does not know; None where nothing does."""
    found = [
        unknown.data
        for unknown in cast(Iterable[Any], UnknownFieldSet(message))  # the stubs of protobuf do not know
        if unknown.field_number == number and unknown.wire_type == _LENGTH_DELIMITED
    ]
    return b"".join(found) if found else None


@functools.cache
def message_class_of(parameters: type) -> type[Message]:
    """The message class of a dataclass, in a descriptor pool that holds nothing else."""
    described = descriptor_pb2.FileDescriptorProto(name="settings.proto", package="settings", syntax="proto2")
    _describe(parameters, described.message_type.add(), ".settings", ())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"settings.{parameters.__name__}"))


class _Declared(NamedTuple):
    """A field of a dataclass."""

    field: Field[Any]
    kind: Any  # the type of one value
    is_tuple: bool
    number: int


def _declared(parameters: type) -> Iterator[_Declared]:
    hints = get_type_hints(parameters)
    for place, declared in enumerate(fields(parameters), start=1):
        kind, is_tuple = hints[declared.name], False
        if get_origin(kind) in (Union, UnionType):
            options = [option for option in get_args(kind) if option is not NoneType]
            kind = options[0] if len(options) == 1 else kind
        if get_origin(kind) is tuple and len(get_args(kind)) == 2 and get_args(kind)[1] is Ellipsis:
            kind, is_tuple = get_args(kind)[0], True
        yield _Declared(declared, kind, is_tuple, declared.metadata.get("number", place))


def _describe(
    parameters: type, described: descriptor_pb2.DescriptorProto, scope: str, around: tuple[type, ...]
) -> None:
    if not is_dataclass(parameters) or parameters in around:
        fault = "holds itself" if parameters in around else "is not a dataclass"
        raise TypeError(f"{parameters.__name__} {fault}; settings are described by a dataclass")
    described.name = parameters.__name__
    scope = f"{scope}.{parameters.__name__}"
    for declared in _declared(parameters):
        made = described.field.add(name=declared.field.name, number=declared.number)
        made.label = Kind.LABEL_REPEATED if declared.is_tuple else Kind.LABEL_OPTIONAL
        # A message of its own keeps names of the same kind apart.
        inner = f"{declared.field.name}_"
        if declared.kind in _SCALARS:
            made.type = _SCALARS[declared.kind]
        elif get_origin(declared.kind) is Literal and all(isinstance(name, str) for name in get_args(declared.kind)):
            made.type, made.type_name = Kind.TYPE_ENUM, f"{scope}.{inner}.Value"
            values = described.nested_type.add(name=inner).enum_type.add(name="Value").value
            for number, name in enumerate(get_args(declared.kind)):
                values.add(name=name, number=number)
        elif _is_dataclass(declared.kind):
            made.type, made.type_name = Kind.TYPE_MESSAGE, f"{scope}.{inner}.{declared.kind.__name__}"
            box = described.nested_type.add(name=inner)
            _describe(declared.kind, box.nested_type.add(), f"{scope}.{inner}", (*around, parameters))
        else:
            raise TypeError(
                f"{parameters.__name__}.{declared.field.name} cannot be {declared.kind}; it can be int, float, bool, "
                "str, a Literal of names, a dataclass of these, a tuple[.., ...] of one, or one | None"
            )


def _fill(message: Message, raws: Sequence[RawField], path: str, places: dict[str, Location]) -> None:
    """Fields as they were written into a message, each checked, and its place noted."""
    known = fields_of(cast(Descriptor, message.DESCRIPTOR))
    for raw in raws:
        here = f"{path}.{raw.name}"
        if raw.name not in known:
            hint = did_you_mean(raw.name, known)
            text = f"unknown field {quoted(raw.name)} in {path}{hint}"
            raise UnknownFieldError(text, location=raw.location, field=here)
        convert, repeated = known[raw.name].convert, known[raw.name].repeated
        if repeated:
            here = f"{here}[{len(getattr(message, raw.name))}]"
        elif here in places:
            raise ParseError(
                f"{quoted(raw.name)} is given twice; it takes one value", location=raw.location, field=here
            )
        places[here] = raw.location
        if (convert is None) != isinstance(raw.value, tuple):
            wanted = f"a message, '{raw.name} {{ ... }}'" if convert is None else "a plain value"
            raise ParseError(f"{quoted(raw.name)} takes {wanted}", location=raw.location, field=here)
        if convert is None:
            child = getattr(message, raw.name)
            child = child.add() if repeated else child
            child.SetInParent()
            _fill(child, cast(tuple[RawField, ...], raw.value), here, places)
            continue
        try:
            value = convert(_scalar(raw))
        except ValueError as error:  # UnknownEnumValueError is one
            raise ParseError(f"{quoted(raw.name)}: {error}", location=raw.location, field=here) from None
        if repeated:
            getattr(message, raw.name).append(value)
        else:
            setattr(message, raw.name, value)


def _scalar(raw: RawField) -> Token:
    text = cast(str, raw.value)
    line, column = raw.location.line, raw.location.column
    if raw.is_string:
        return Token("string", quoted(text), line, column, text.encode("utf-8", "surrogateescape"))
    return Token("number" if text[0] in _WORDS else "word", text, line, column)


def _to_dataclass(parameters: type, message: Message, path: str) -> Any:
    given: dict[str, Any] = {}
    for declared in _declared(parameters):
        name = declared.field.name
        here = f"{path}.{name}"
        if declared.is_tuple:
            found = getattr(message, name)
            if found or (declared.field.default is MISSING and declared.field.default_factory is MISSING):
                given[name] = tuple(_to_value(declared.kind, value, here) for value in found)
        elif message.HasField(name):
            given[name] = _to_value(declared.kind, getattr(message, name), here)
        elif declared.field.default is MISSING and declared.field.default_factory is MISSING:
            raise GraphError(f"{here} is missing; it has no default", field=path)
    return parameters(**given)


def _to_value(kind: Any, value: Any, path: str) -> Any:
    if get_origin(kind) is Literal:
        return get_args(kind)[value]
    return _to_dataclass(kind, value, path) if _is_dataclass(kind) else value


def _is_dataclass(kind: Any) -> bool:
    return isinstance(kind, type) and is_dataclass(kind)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
