"""What a database holds, in figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from siamese_proto.data.databases.datum import Decoding, Size, parse_datum, size_of
from siamese_proto.data.databases.store import Database
from siamese_proto.proto import schema


@dataclass(frozen=True)
class Listing:
    """Counts over all records of a database."""

    records: int
    encoded: int  # records that hold an image file
    sizes: dict[Size, int]  # (C, H, W) -> records, most frequent first
    labels: dict[int, int]  # label -> records, by label


def datums(database: Database) -> Iterator[tuple[bytes, schema.Datum]]:
    """Key and message of every record."""
    return ((key, parse_datum(key, value)) for key, value in database.records())


def list_database(database: Database) -> Listing:
    """Walk through a whole database; DataError naming the key of a record that cannot be read."""
    sizes: Counter[Size] = Counter()
    labels: Counter[int] = Counter()
    encoded = 0
    for key, datum in datums(database):
        sizes[size_of(key, datum, Decoding())] += 1
        labels[datum.label] += 1
        encoded += datum.encoded
    return Listing(labels.total(), encoded, dict(sizes.most_common()), dict(sorted(labels.items())))
