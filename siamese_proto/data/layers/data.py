"""The Data layer: batches of images and labels from a database."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from siamese_proto.data.bad_records import BadRecordError, Reading, first_usable
from siamese_proto.data.databases.datum import Decoding, Size, parse_datum, size_of
from siamese_proto.data.databases.store import Backend, Record
from siamese_proto.data.layers.source_layer import SourceLayer
from siamese_proto.data.transform import read_transform
from siamese_proto.graph.ir import Arity
from siamese_proto.layers.base import Coverage, RunState, layer
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from siamese_proto.data.feeder import Source

_LOOKED_AT = 1000  # records whose labels are looked at before a run
_OUT_OF_USE = ("scale", "mean_file", "crop_size", "mirror", "force_encoded_color", "rand_skip")


@layer("Data")
class Data(SourceLayer):
    """Records of a database in key order, over and over, through `transform_param`.

    () -> (batch_size, C, H, W) and, where there is a second top, the labels, (batch_size,)
    Caffe: data_layer.cpp, data_transformer.cpp. Random crops and mirrors depend on the seed and the record's position
    alone, so that data layers with the same settings stay in step. With batch_size 1 records may differ in height and
    width.
    """

    tops = Arity(1, 2)
    reads = ("data_param", "transform_param")
    source_kind = "database"
    source_hint = "make it with 'siamese-proto data'"

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.data_param
        self.source = settings.source
        self.batch_size = settings.batch_size
        self.backend = cast(Backend, schema.DataParameter.DB.Name(settings.backend))
        self.ahead = settings.prefetch
        self.transform = read_transform(message.transform_param, self.phase)
        # Fields of old dialects that Caffe accepts inside today's data_param, and that do nothing there.
        self.out_of_use = tuple(f"data_param.{name}" for name in _OUT_OF_USE if settings.HasField(name))

    def first_size(self) -> Size:
        path = self.locate()
        return _first_size(path, self.backend, _stamp(path), self.transform.decoding)

    def open_source(self, run: RunState) -> Source:
        from siamese_proto.data.databases.database import open_database
        from siamese_proto.data.layers.reader import DatabaseBatches

        transformer = self.transformer(run.seed, each_its_size=self.batch_size == 1)
        database = open_database(self.locate(), self.backend)
        reading = Reading.of(run, self.name)
        return DatabaseBatches(database, self.batch_size, transformer, reading, with_labels=self.top_count > 1)

    def unused_fields(self) -> Sequence[str]:
        return self.out_of_use

    def describe(self) -> str:
        return f"{self.backend} {self.source}, batches of {self.batch_size}"

    def coverage(self, most: int | None = None) -> Coverage | None:
        from siamese_proto.data.databases.database import open_database

        path = self.located()
        if path is None:
            return None
        with open_database(path, self.backend) as database:
            return Coverage(self.source, database.count(most), self.batch_size)

    def label_values(self, top: int) -> NDArray[Any] | None:
        import numpy

        from siamese_proto.data.databases.database import open_database

        path = self.located()
        if top != 1 or path is None:
            return None
        with open_database(path, self.backend) as database:
            records = itertools.islice(database.records(), _LOOKED_AT)
            labels = [label for record in records if (label := _label_of(record)) is not None]
        return numpy.array(labels)


def _label_of(record: Record) -> int | None:
    """None for a record that cannot be used: reading it tells."""
    try:
        return parse_datum(*record).label
    except BadRecordError:
        return None


def _stamp(path: str) -> tuple[int, ...]:
    """What changes when a database is made anew."""
    files = [Path(path), Path(path) / "data.mdb", Path(path) / "CURRENT"]
    return tuple(file.stat().st_mtime_ns for file in files if file.exists())


@functools.lru_cache(maxsize=64)
def _first_size(path: str, backend: Backend, stamp: tuple[int, ...], decoding: Decoding) -> Size:
    """(C, H, W) of the first record that has one, read once a process: several graphs are made of one file."""
    from siamese_proto.data.databases.database import no_records, open_database

    with open_database(path, backend) as database:
        size = first_usable(database.records(), lambda record: size_of(record[0], parse_datum(*record), decoding))
        if size is None:
            raise no_records(database)
        return size
