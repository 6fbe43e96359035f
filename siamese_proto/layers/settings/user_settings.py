"""Typed settings of custom layers, `my_layer_param { ... }`, in text and in binary files.

A frozen dataclass describes the message. A message class is built from it in a separate descriptor pool. Text and bytes
are then read, checked and written like the messages of the schema, and the schema itself never changes.
"""

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
    """The settings of a registered layer type: its dataclass and its field of LayerParameter."""

    parameters: type
    name: str
    number: int
    message_class: type[Message] = field(repr=False)

    def from_text(self, raws: Sequence[RawField]) -> tuple[bytes, dict[str, Location]]:
        """Return the settings as bytes, and the location of each field by its path.

        Raises:
            ParseError: A field is unknown to the dataclass or has an invalid value; the error has the location.
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
        """Return the settings in a layer's message as the dataclass. A missing required field raises GraphError."""
        read = self.message_class()
        try:
            read.MergeFromString(binary_settings(message, self.number) or b"")
        except (DecodeError, UnicodeDecodeError):  # the pure-Python protobuf raises the second
            text = f"field {self.number} is not a valid {self.name}: expected the fields of {self.parameters.__name__}"
            raise GraphError(text, field=self.name) from None
        return _to_dataclass(self.parameters, read, self.name)

    def put(self, message: schema.LayerParameter, data: bytes) -> None:
        """Add settings to a layer's message, as an unknown field with their number."""
        message.MergeFromString(_varint(self.number << 3 | _LENGTH_DELIMITED) + _varint(len(data)) + data)


def own_settings(parameters: type, name: str, number: int | None) -> OwnSettings:
    """Return the settings that a dataclass describes, as the field `name` of LayerParameter.

    A field of the dataclass is int, float, bool, str, a Literal of names, another such dataclass, a tuple of one of
    these (`tuple[int, ...]`), or one of these or None. Its number is its position, from 1, unless its metadata has one:
    `field(default=1.0, metadata={"number": 3})`.

    Args:
        parameters: The dataclass.
        name: The field name of the whole message.
        number: The field number of the whole message; default: computed from the name.

    Raises:
        ValueError: The schema already has this name or number, or the number is out of range.
        TypeError: The dataclass has a field of an unsupported type.
    """
    descriptor = schema.LayerParameter.DESCRIPTOR
    if name in descriptor.fields_by_name:
        raise ValueError(f"{name} is already a field of Caffe; choose another name for the settings")
    if number is not None and number in descriptor.fields_by_number:
        owner = cast(Descriptor, descriptor).fields_by_number[number].name
        raise ValueError(f"field {number} is {owner} in Caffe; omit the number of {name}")
    # Larger than all numbers in use, and the same in every process. protobuf's maximum is 2^29 - 1.
    chosen = number if number is not None else 1_000_000 + zlib.crc32(name.encode()) % 500_000_000
    if not 0 < chosen < 2**29 or 19000 <= chosen < 20000:
        raise ValueError(f"{chosen} is not a valid field number")
    return OwnSettings(parameters, name, chosen, message_class_of(parameters))


def binary_settings(message: schema.LayerParameter, number: int) -> bytes | None:
    """Return the content of an unknown field of a binary message, or None if it is missing."""
    contents = [
        unknown.data
        for unknown in cast(Iterable[Any], UnknownFieldSet(message))  # missing in the stubs of protobuf
        if unknown.field_number == number and unknown.wire_type == _LENGTH_DELIMITED
    ]
    return b"".join(contents) if contents else None


@functools.cache
def message_class_of(parameters: type) -> type[Message]:
    """Return the message class of a dataclass, in a separate descriptor pool."""
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
        fault = "contains itself" if parameters in around else "is not a dataclass"
        raise TypeError(f"{parameters.__name__} {fault}; settings need a dataclass")
    described.name = parameters.__name__
    scope = f"{scope}.{parameters.__name__}"
    for declared in _declared(parameters):
        described_field = described.field.add(name=declared.field.name, number=declared.number)
        described_field.label = Kind.LABEL_REPEATED if declared.is_tuple else Kind.LABEL_OPTIONAL
        # A separate message avoids collisions between equal names.
        inner = f"{declared.field.name}_"
        if declared.kind in _SCALARS:
            described_field.type = _SCALARS[declared.kind]
        elif get_origin(declared.kind) is Literal and all(isinstance(name, str) for name in get_args(declared.kind)):
            described_field.type, described_field.type_name = Kind.TYPE_ENUM, f"{scope}.{inner}.Value"
            values = described.nested_type.add(name=inner).enum_type.add(name="Value").value
            for number, name in enumerate(get_args(declared.kind)):
                values.add(name=name, number=number)
        elif _is_dataclass(declared.kind):
            described_field.type, described_field.type_name = (
                Kind.TYPE_MESSAGE,
                f"{scope}.{inner}.{declared.kind.__name__}",
            )
            box = described.nested_type.add(name=inner)
            _describe(declared.kind, box.nested_type.add(), f"{scope}.{inner}", (*around, parameters))
        else:
            raise TypeError(
                f"{parameters.__name__}.{declared.field.name} cannot be {declared.kind}; expected int, float, bool, "
                "str, a Literal of names, a dataclass of these, a tuple[.., ...] of one, or one | None"
            )


def _fill(message: Message, raws: Sequence[RawField], path: str, places: dict[str, Location]) -> None:
    """Fill a message from raw fields: check each one and record its location."""
    descriptors = fields_of(cast(Descriptor, message.DESCRIPTOR))
    for raw in raws:
        here = f"{path}.{raw.name}"
        if raw.name not in descriptors:
            hint = did_you_mean(raw.name, descriptors)
            text = f"unknown field {quoted(raw.name)} in {path}{hint}"
            raise UnknownFieldError(text, location=raw.location, field=here)
        convert, repeated = descriptors[raw.name].convert, descriptors[raw.name].repeated
        if repeated:
            here = f"{here}[{len(getattr(message, raw.name))}]"
        elif here in places:
            raise ParseError(
                f"{quoted(raw.name)} is given twice; expected one value", location=raw.location, field=here
            )
        places[here] = raw.location
        if (convert is None) != isinstance(raw.value, tuple):
            expected = f"a message, '{raw.name} {{ ... }}'" if convert is None else "a plain value"
            raise ParseError(f"{quoted(raw.name)}: expected {expected}", location=raw.location, field=here)
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
    values: dict[str, Any] = {}
    for declared in _declared(parameters):
        name = declared.field.name
        here = f"{path}.{name}"
        if declared.is_tuple:
            items = getattr(message, name)
            if items or (declared.field.default is MISSING and declared.field.default_factory is MISSING):
                values[name] = tuple(_to_value(declared.kind, value, here) for value in items)
        elif message.HasField(name):
            values[name] = _to_value(declared.kind, getattr(message, name), here)
        elif declared.field.default is MISSING and declared.field.default_factory is MISSING:
            raise GraphError(f"{here} is missing; it is required", field=path)
    return parameters(**values)


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
