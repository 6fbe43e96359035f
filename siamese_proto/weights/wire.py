"""The wire format of protobuf, as far as it takes to find large arrays in a file without reading the file.

protobuf itself takes twice the file in memory and stops at 2 GiB; what is small is left to it.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

Bytes = bytes | mmap.mmap
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_MOST_FIELDS = 1 << 20  # of one message: no net has more, and rubbish is given up early


class WireError(ValueError):
    """The bytes are not a protobuf message."""


@dataclass(frozen=True)
class Field:
    """A field in the bytes: it begins at `start`, its value at `value`, and it is over at `end`."""

    number: int
    kind: int
    start: int
    value: int
    end: int


def fields(data: Bytes, start: int, end: int) -> Iterator[Field]:
    """The fields of the message between `start` and `end`. Raises WireError where it breaks off or is none."""
    count = 0
    while start < end:
        tag, value = read_varint(data, start, end)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            after = read_varint(data, value, end)[1]
        elif kind == LENGTH:
            length, value = read_varint(data, value, end)
            after = value + length
        elif kind in (FIXED64, FIXED32):
            after = value + (8 if kind == FIXED64 else 4)
        else:
            raise WireError(f"no field can begin at byte {start}")
        count += 1
        if number == 0 or count > _MOST_FIELDS:
            raise WireError(f"no field can begin at byte {start}")
        if after > end:
            raise WireError(f"byte {start} begins a field of {after - value} bytes, of which {end - value} are there")
        yield Field(number, kind, start, value, after)
        start = after


def read_varint(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """The number that begins at `start`, and where it is over."""
    number = 0
    for index in range(start, min(end, start + 10)):
        byte = data[index]
        number |= (byte & 0x7F) << 7 * (index - start)
        if byte < 0x80:
            return number, index + 1
    raise WireError(f"byte {start} begins a number that does not end")


def varint(number: int) -> bytes:
    """A number (not negative) as protobuf writes it."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def tag(number: int, kind: int) -> bytes:
    """What begins a field."""
    return varint(number << 3 | kind)


def delimited(number: int, value: bytes) -> bytes:
    """A whole field that holds bytes, text or a message."""
    return tag(number, LENGTH) + varint(len(value)) + value
