"""From database records to batches, in key order and again from the start (data_layer.cpp)."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siamese_proto.data.datum import Size, key_text, parse_datum, pixels_of
from siamese_proto.data.store import Database, Record
from siamese_proto.data.transform import Transformer
from siamese_proto.errors import DataError, quoted
from siamese_proto.proto import schema

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from siamese_proto.data.datum import Pixels
    from siamese_proto.data.transform import Floats

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatabaseBatches:
    """The source of a Data layer's feeder; see `feeder.Source`."""

    database: Database
    batch_size: int
    transformer: Transformer
    with_labels: bool = True

    def batches(self, first: int) -> Iterator[Sequence[NDArray[numpy.float32]]]:
        """Data (N, C, H, W) and, if wanted, labels (N,), both float32."""
        import numpy

        records = endless(self.database, first * self.batch_size)
        for number in itertools.count(first):
            batch = [(key, parse_datum(key, value)) for key, value in itertools.islice(records, self.batch_size)]
            pixels = self._pixels(batch, number * self.batch_size)
            labels = numpy.array([datum.label for _, datum in batch], numpy.float32)
            yield (pixels, labels) if self.with_labels else (pixels,)

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def _pixels(self, records: Sequence[tuple[bytes, schema.Datum]], position: int) -> Floats:
        import numpy

        size = self.transformer.size
        if all(_is_plain(datum, size) for _, datum in records):
            joined = b"".join(datum.data for _, datum in records)
            images = numpy.frombuffer(joined, numpy.uint8).reshape(len(records), *size)
            return self.transformer.batch(images, position)
        return self.transformer.batch([self._image(key, datum) for key, datum in records], position)

    def _image(self, key: bytes, datum: schema.Datum) -> Pixels:
        pixels = pixels_of(key, datum, self.transformer.settings.decoding)
        self.transformer.check(pixels, f"record {key_text(key)} of database {quoted(self.database.path)}")
        return pixels


def endless(database: Database, position: int) -> Iterator[Record]:
    """Records from number `position` on, counted on across the end of the database, which begins again there."""
    start = _key_at(database, position) if position else None
    while True:
        empty = True
        for record in database.records(start):
            empty = False
            yield record
        if empty:
            raise DataError(f"database {quoted(database.path)} has no records; make it again")
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
