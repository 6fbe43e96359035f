"""From a written value to the value of a field; ValueError says what was expected."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from siamese_proto.errors import did_you_mean, quoted
from siamese_proto.proto.text import Scalar

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
    """An enum value that the schema does not know; it may be one of a fork of Caffe."""


@dataclass(frozen=True)
class Field:
    """What the reader needs to know of a field; `convert` is None for messages."""

    name: str
    repeated: bool
    convert: Callable[[Scalar], Value] | None


@functools.cache
def fields_of(descriptor: Descriptor) -> dict[str, Field]:
    """The fields of a message type by name."""
    return {field.name: Field(field.name, _is_repeated(field), _converter(field)) for field in descriptor.fields}


def _is_repeated(field: FieldDescriptor) -> bool:
    """Whether a field holds a list."""
    of_any_release: Any = field  # before 6.31 protobuf has `label` alone; later releases warn of it
    if hasattr(field, "is_repeated"):
        return field.is_repeated
    return bool(of_any_release.label == FieldDescriptor.LABEL_REPEATED)


def _converter(field: FieldDescriptor) -> Callable[[Scalar], Value] | None:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return None
    if field.type in _INTEGERS:
        return functools.partial(_integer, *_INTEGERS[field.type])
    if field.enum_type is not None:
        return functools.partial(_enum, {value.name: value.number for value in field.enum_type.values})
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _boolean
    if field.type == FieldDescriptor.TYPE_STRING:
        return _string
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes
    return _float


def _refuse(expected: str, value: Scalar, hint: str = "") -> ValueError:
    found = value.text if value.kind == "string" else quoted(value.text)
    if value.kind == "word" and value.text[:2].isupper():
        hint = hint or "; is it a placeholder that was not filled in?"
    return ValueError(f"expected {expected}, found {found}{hint}")


def parse_integer(text: str) -> int:
    """An integer as protobuf writes them: decimal, 0x hexadecimal, octal with a leading 0."""
    octal = _OCTAL.fullmatch(text)
    return int(f"{octal[1]}0o{octal[2]}" if octal else text, 0)


def _integer(low: int, high: int, value: Scalar) -> int:
    if value.kind != "number":
        raise _refuse("an integer", value)
    try:
        number = parse_integer(value.text)
    except ValueError:
        raise _refuse("an integer", value, _as_integer(value.text)) from None
    if not low <= number <= high:
        raise _refuse(f"an integer from {low} to {high}", value)
    return number


def _as_integer(text: str) -> str:
    """The hint `; write 100000` for `1e5`."""
    try:
        number = float(text)
    except ValueError:
        return ""
    return f"; write {number:.0f}" if number.is_integer() and abs(number) < 1e15 else ""


def _float(value: Scalar) -> float:
    special = _SPECIAL_FLOAT.fullmatch(value.text)
    if special and value.kind != "string":
        return float(special[1] + special[2])
    if value.kind != "number":
        raise _refuse("a number", value)
    if re.match(r"-?0\d", value.text):
        raise _refuse("a number without leading zeros", value)
    try:
        return float(value.text.rstrip("fF"))
    except ValueError:
        raise _refuse("a number", value) from None


def _boolean(value: Scalar) -> bool:
    if value.kind != "string" and value.text in _BOOLS:
        return _BOOLS[value.text]
    raise _refuse("true or false", value, did_you_mean(value.text, ("true", "false")))


def _string(value: Scalar) -> str:
    if value.kind == "number":
        raise _refuse("a text in quotes", value)
    if value.kind == "word":
        return value.text  # MyCaffe writes `lr_policy: step`
    try:
        return value.data.decode()
    except UnicodeDecodeError:
        raise _refuse("a text in UTF-8", value) from None


def _bytes(value: Scalar) -> bytes:
    if value.kind != "string":
        raise _refuse("bytes in quotes", value)
    return value.data


def _enum(numbers: dict[str, int], value: Scalar) -> int:
    name = value.data.decode("utf-8", "replace") if value.kind == "string" else value.text
    if name in numbers:
        return numbers[name]
    try:
        number = int(name, 0)
    except ValueError:
        number = None
    if number is None or number not in numbers.values():
        raise UnknownEnumValueError(f"expected one of {', '.join(numbers)}, found {quoted(name)}")
    return number


def whole_number(text: str) -> int:
    """Read decimal digits, with a sign perhaps; a number of more than 100 digits is 10^100, with its sign.

    Such a number is too large wherever one is expected, and Python does not read those of more than 4,300 digits.
    Raises ValueError for other texts, as `int` does.
    """
    written = text.strip()
    digits = written.lstrip("+-")
    if len(digits) <= _MOST_DIGITS or not digits.isdecimal():
        return int(written)
    return -_LARGE if written.startswith("-") else _LARGE
