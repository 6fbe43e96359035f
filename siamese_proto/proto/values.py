"""Convert values as written to values of fields. A ValueError says what is expected."""

import contextlib
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from siamese_proto.errors import did_you_mean, quoted
from siamese_proto.proto.text import Token

Value: TypeAlias = str | bytes | int | float | bool

_OCTAL = re.compile(r"([+-]?)0(\d+)")
_SPECIAL_FLOAT = re.compile(r"(-?)(inf(?:inity)?|nan)f?", re.IGNORECASE)
_BOOLS = {"true": True, "t": True, "1": True, "True": True, "false": False, "f": False, "0": False, "False": False}
_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
_MOST_DIGITS = 100
_LARGE = int("1" + _MOST_DIGITS * "0")


class UnknownEnumValueError(ValueError):
    """An enum value that the schema does not know, perhaps one of a fork of Caffe."""


@dataclass(frozen=True)
class Field:
    """A field of a message type. `convert` turns a written value into the field's value; None for messages."""

    name: str
    repeated: bool
    convert: Callable[[Token], Value] | None


@functools.cache
def fields_of(descriptor: Descriptor) -> dict[str, Field]:
    """Return the fields of a message type by name."""
    return {field.name: Field(field.name, _is_repeated(field), _converter(field)) for field in descriptor.fields}


def _is_repeated(field: FieldDescriptor) -> bool:
    of_any_release: Any = field  # protobuf before 6.31 has only `label`, which later releases deprecate
    if hasattr(field, "is_repeated"):
        return field.is_repeated
    return bool(of_any_release.label == FieldDescriptor.LABEL_REPEATED)


def _converter(field: FieldDescriptor) -> Callable[[Token], Value] | None:
    if field.type in _INTEGERS:
        return functools.partial(_integer, *_INTEGERS[field.type])
    if field.enum_type is not None:
        return functools.partial(_enum, {value.name: value.number for value in field.enum_type.values})
    converters: dict[int, Callable[[Token], Value] | None] = {
        FieldDescriptor.TYPE_MESSAGE: None,
        FieldDescriptor.TYPE_BOOL: _boolean,
        FieldDescriptor.TYPE_STRING: _string,
        FieldDescriptor.TYPE_BYTES: _bytes,
    }
    return converters.get(field.type, _float)


def _unexpected(expected: str, value: Token, hint: str = "") -> ValueError:
    if value.kind == "word" and value.text[:2].isupper():
        hint = hint or "; is it a placeholder that was not filled in?"
    return ValueError(f"expected {expected}, got {value}{hint}")


def parse_integer(text: str) -> int:
    """Read an integer in protobuf's syntax: decimal, 0x hexadecimal, or octal with a leading 0 (see `whole_number`)."""
    octal = _OCTAL.fullmatch(text)
    return int(f"{octal[1]}0o{octal[2]}" if octal else text, 0)


def _integer(low: int, high: int, value: Token) -> int:
    if value.kind != "number":
        raise _unexpected("an integer", value)
    try:
        number = parse_integer(value.text)
    except ValueError:
        hint = ""
        with contextlib.suppress(ValueError):
            number_as_float = float(value.text)
            if number_as_float.is_integer() and abs(number_as_float) < 1e15:
                hint = f"; write {number_as_float:.0f}"
        raise _unexpected("an integer", value, hint) from None
    if not low <= number <= high:
        raise _unexpected(f"an integer from {low} to {high}", value)
    return number


def _float(value: Token) -> float:
    special = _SPECIAL_FLOAT.fullmatch(value.text)
    if special and value.kind != "string":
        return float(special[1] + special[2])
    if value.kind != "number":
        raise _unexpected("a number", value)
    if re.match(r"-?0\d", value.text):
        raise _unexpected("a number without leading zeros", value)
    try:
        return float(value.text.rstrip("fF"))
    except ValueError:
        raise _unexpected("a number", value) from None


def _boolean(value: Token) -> bool:
    if value.kind != "string" and value.text in _BOOLS:
        return _BOOLS[value.text]
    raise _unexpected("true or false", value, did_you_mean(value.text, ("true", "false")))


def _string(value: Token) -> str:
    if value.kind == "number":
        raise _unexpected("a string in quotes", value)
    if value.kind == "word":
        return value.text  # MyCaffe writes `lr_policy: step`
    try:
        return value.data.decode()
    except UnicodeDecodeError:
        raise _unexpected("a string in UTF-8", value) from None


def _bytes(value: Token) -> bytes:
    if value.kind != "string":
        raise _unexpected("bytes in quotes", value)
    return value.data


def _enum(numbers: dict[str, int], value: Token) -> int:
    name = value.data.decode("utf-8", "replace") if value.kind == "string" else value.text
    if name in numbers:
        return numbers[name]
    try:
        number = parse_integer(name)
    except ValueError:
        number = None
    if number is None or number not in numbers.values():
        raise UnknownEnumValueError(f"expected one of {', '.join(numbers)}, got {quoted(name)}")
    return number


def whole_number(text: str) -> int:
    """Read decimal digits with an optional sign, as in lists of images: `010` is ten. (Prototxt: see `parse_integer`.)

    A number of more than 100 digits, which is too large everywhere, is read as 10^100 with its sign. Python does not
    read numbers of more than 4,300 digits.

    Raises:
        ValueError: Other texts.
    """
    written = text.strip()
    digits = written.lstrip("+-")
    if len(digits) <= _MOST_DIGITS or not digits.isdecimal():
        return int(written)
    return -_LARGE if written.startswith("-") else _LARGE
