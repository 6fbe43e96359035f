"""The base class of data layers that read files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from siamese_proto.data.databases.datum import Size
from siamese_proto.data.transform import Transform, Transformer, read_mean
from siamese_proto.errors import DataError, quoted
from siamese_proto.files import find_path, where_tried
from siamese_proto.graph.ir import Shape, SourceMissingError
from siamese_proto.layers.base import DataLayer, Feeder, RunState

if TYPE_CHECKING:
    from siamese_proto.data.feeder import Source


class SourceLayer(DataLayer):
    """A data layer with a `source` and a `batch_size`.

    A subclass says how to locate the source (`locate`), the size of its first record (`first_size`) and how to open
    its batches (`open_source`).
    """

    source_kind: ClassVar[str]  # in messages
    source_hint: ClassVar[str] = ""  # what to do if the source does not exist
    source: str
    batch_size: int
    transform: Transform
    ahead = 4  # batches that are prefetched

    def locate(self) -> Any:
        """Return the path of the source. Raises SourceMissingError if it is not set or does not exist."""
        self.check_settings()
        path, folder = find_path(self.source, self.context.folder), self.context.folder
        if path is None:
            hint = f"; {self.source_hint}" if self.source_hint else ""
            tried = where_tried(self.source, folder)
            raise self.missing(f"{self.source_kind} {quoted(self.source)} is not there{tried}{hint}")
        return path

    def located(self) -> Any:
        """Return what `locate` returns; None if the source does not exist."""
        try:
            return self.locate()
        except SourceMissingError:
            return None

    def check_settings(self) -> None:
        """Raise SourceMissingError if `source` or `batch_size` is not set."""
        if not self.source:
            raise self.missing(f"no source is given; write the {self.source_kind}'s path")
        self.check_batch_size()

    def check_batch_size(self) -> None:
        """Raise SourceMissingError if `batch_size` is not set."""
        if not self.batch_size:
            raise self.missing("no batch_size is given; write one above 0", "batch_size")

    def missing(self, text: str, field: str = "source") -> SourceMissingError:
        """Return the error for a source that cannot be read yet."""
        return SourceMissingError(text, field=f"{self.reads[0]}.{field}")

    def first_size(self) -> Size:
        """Return (C, H, W) of the first record. Raises SourceMissingError or DataError."""
        raise NotImplementedError

    def size_by_settings(self) -> Size | None:
        """Return (C, H, W) of the records if the settings determine it."""
        return None

    def shapes_of(self, size: Size) -> Sequence[Shape]:
        """Return the shapes of the tops for records of this size."""
        return ((self.batch_size, *self.transform.output_size(size)), (self.batch_size,))[: self.top_count]

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        try:
            return self.shapes_of(self._size())
        except SourceMissingError as error:
            size = self.size_by_settings()
            if size is not None and self.batch_size:
                error.shapes = self.shapes_of(size)
            raise

    def _size(self) -> Size:
        try:
            return self.first_size()
        except DataError as error:
            error.field = error.field or f"{self.reads[0]}.source"
            raise

    def transformer(self, seed: int, *, each_its_size: bool = False) -> Transformer:
        """Return the transformation of records, whose size is that of the first one."""
        size = self._size()
        self.transform.output_size(size)
        mean = read_mean(self.transform, size, self.context.folder)
        return Transformer(self.transform, size, mean, seed, each_its_size=each_its_size)

    def open_source(self, run: RunState) -> Source:
        """Open the source of batches."""
        raise NotImplementedError

    def open(self, run: RunState) -> Feeder:
        from siamese_proto.data.feeder import PrefetchFeeder

        try:
            return PrefetchFeeder(self.open_source(run), ahead=self.ahead)
        except SourceMissingError as error:
            raise DataError(error.message, field=error.field) from error
