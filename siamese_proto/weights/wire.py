"""The wire format of protobuf, as needed to find large arrays in a file without reading the file.

protobuf itself needs twice the file in memory and stops at 2 GiB; it parses the small fields.
https://protobuf.dev/programming-guides/encoding/
"""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Bytes = bytes | mmap.mmap
VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_MAX_FIELDS = 1 << 20  # of one message: more than any net has, so that random bytes are refused early


class WireError(ValueError):
    """The bytes are not a protobuf message."""


@dataclass(frozen=True)
class Field:
    """A field in the bytes: it begins at `start`, its value at `value`, and it ends before `end`."""

    number: int
    kind: int
    start: int
    value: int
    end: int


def fields(data: Bytes, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message between `start` and `end`. Raises WireError if it is incomplete or invalid."""
    count = 0
    while start < end:
        tag, value = read_varint(data, start, end)
        number, kind = tag >> 3, tag & 7
        count += 1
        if number == 0 or count > _MAX_FIELDS or kind not in (VARINT, FIXED64, LENGTH, FIXED32):
            raise WireError(f"no field can begin at byte {start}")
        if kind == VARINT:
            after = read_varint(data, value, end)[1]
        elif kind == LENGTH:
            length, value = read_varint(data, value, end)
            after = value + length
        else:
            after = value + (8 if kind == FIXED64 else 4)
        if after > end:
            raise WireError(f"byte {start} begins a field of {after - value} bytes, but only {end - value} follow")
        yield Field(number, kind, start, value, after)
        start = after


def read_varint(data: Bytes, start: int, end: int) -> tuple[int, int]:
    """Return the number that begins at `start`, and where it ends."""
    number = 0
    for index in range(start, min(end, start + 10)):
        byte = data[index]
        number |= (byte & 0x7F) << 7 * (index - start)
        if byte < 0x80:
            return number, index + 1
    raise WireError(f"byte {start} begins a number that does not end")


def varint(number: int) -> bytes:
    """Encode a number that is not negative."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def delimited(number: int, pieces: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """Return a field that holds bytes, text or a message, in pieces: its tag and length, then those of its value."""
    return [varint(number << 3 | LENGTH) + varint(sum(map(len, pieces))), *pieces]
