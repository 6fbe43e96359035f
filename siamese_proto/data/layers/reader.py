"""From database records to batches, in key order and again from the start (data_layer.cpp)."""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from siamese_proto.data.bad_records import BadRecordError, Reading, first_usable
from siamese_proto.data.databases.database import no_records, open_database
from siamese_proto.data.databases.datum import Size, key_text, parse_datum, pixels_of
from siamese_proto.data.databases.store import Database, Record
from siamese_proto.data.transform import Transformer
from siamese_proto.errors import quoted
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from siamese_proto.data.databases.datum import Pixels
    from siamese_proto.data.transform import Floats

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatabaseBatches:
    """The source of a Data layer's feeder; see `feeder.Source`."""

    database: Database
    batch_size: int
    transformer: Transformer
    reading: Reading
    with_labels: bool = True

    def batches(self, first: int) -> Iterator[Sequence[Floats] | Callable[[], Sequence[Floats]]]:
        """Data (N, C, H, W) and, if wanted, labels (N,), both float32."""
        records = endless(self.database, first * self.batch_size)
        for number in itertools.count(first):
            batch = list(itertools.islice(records, self.batch_size))
            make = functools.partial(self._batch, batch, number * self.batch_size)
            yield make if _is_encoded(batch[0]) else make()

    def record(self, batch: int, row: int) -> str:
        """Where a row comes from."""
        key, _ = next(endless(self.database, batch * self.batch_size + row))
        return f"record {key_text(key)} of database {quoted(self.database.path)}"

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def _batch(self, records: Sequence[Record], position: int) -> Sequence[Floats]:
        import numpy

        images = self.reading.all(records, self._image, self._spare)
        pixels = self._pixels(images, position)
        labels = numpy.array([image.label for image in images], numpy.float32)
        return (pixels, labels) if self.with_labels else (pixels,)

    def _pixels(self, images: Sequence[_Image], position: int) -> Floats:
        import numpy

        if all(isinstance(image.pixels, bytes) for image in images):
            joined = b"".join(image.pixels for image in images if isinstance(image.pixels, bytes))
            return self.transformer.batch(
                numpy.frombuffer(joined, numpy.uint8).reshape(len(images), *self.transformer.size), position
            )
        return self.transformer.batch([self._array(image.pixels) for image in images], position)

    def _array(self, pixels: Pixels | bytes) -> Pixels:
        import numpy

        if isinstance(pixels, bytes):
            return numpy.frombuffer(pixels, numpy.uint8).reshape(self.transformer.size)
        return pixels

    def _image(self, record: Record) -> _Image:
        key, value = record
        datum = parse_datum(key, value)
        if _is_plain(datum, self.transformer.size):
            return _Image(datum.data, datum.label)
        what = f"record {key_text(key)} of database {quoted(self.database.path)}"
        decoding = self.transformer.settings.decoding
        pixels = pixels_of(key, datum, decoding, lambda size: self.transformer.check_size(size, what))
        return _Image(pixels, datum.label)

    def _spare(self) -> _Image:
        """The first record that can be used."""
        with open_database(self.database.path, self.database.backend) as database:
            found = first_usable(database.records(), self._image)
        if found is None:
            raise no_records(self.database)
        return found


class _Image(NamedTuple):
    """A record whose sizes have been checked; its pixels stay bytes where they are as the first record's."""

    pixels: Pixels | bytes
    label: int


def _is_encoded(record: Record) -> bool:
    """Whether a record takes decoding; one that cannot be read does not matter."""
    try:
        return parse_datum(*record).encoded
    except BadRecordError:
        return False


def endless(database: Database, position: int) -> Iterator[Record]:
    """Records from number `position` on, counted on across the end of the database, which begins again there."""
    start = _key_at(database, position) if position else None
    while True:
        empty = True
        for record in database.records(start):
            empty = False
            yield record
        if empty:
            raise no_records(database)
        _log.info("Restarting data prefetching from start.")
        start = None


def _key_at(database: Database, position: int) -> bytes | None:
    """The key of record `position`, modulo their number; that number is only counted where it matters."""
    count = 0
    for number, key in enumerate(database.keys()):
        if number == position:
            return key
        count = number + 1
    return _key_at(database, position % count) if count else None


def _is_plain(datum: schema.Datum, size: Size) -> bool:
    return (
        not datum.encoded
        and (datum.channels, datum.height, datum.width) == size
        and len(datum.data) == size[0] * size[1] * size[2]
    )
