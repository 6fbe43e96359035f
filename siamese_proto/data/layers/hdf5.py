"""The HDF5Data layer: tops that are datasets of HDF5 files."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from siamese_proto.data.bad_records import not_finite
from siamese_proto.data.layers.source_layer import SourceLayer
from siamese_proto.errors import DataError, GraphError, did_you_mean, quoted
from siamese_proto.files import find_path
from siamese_proto.graph.ir import Arity, Shape
from siamese_proto.layers.base import Coverage, RunState, layer
from siamese_proto.proto import schema

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Arrays = list[NDArray[numpy.float32]]

_log = logging.getLogger(__name__)
_QUICK = 1 << 26  # bytes of a source that are looked through without being asked for
_LOOKED_AT = 1_000_000  # labels of a file
_FILL = 1 << 30  # bytes that a dataset may take in memory with next to nothing in the file


@layer("HDF5Data")
class HDF5Data(SourceLayer):
    """Rows of the datasets named as the tops, from the files that a list names, over and over.

    () -> (batch_size, *K) a top, where the dataset is (rows, *K). Caffe: hdf5_data_layer.cpp
    With `shuffle`, files and the rows in them come in a new order each time round.
    """

    tops = Arity(1, None)
    source_kind = "list"
    source_hint = "write a file with the path of an HDF5 file a line"
    ahead = 2

    def read(self, message: schema.LayerParameter) -> None:
        if message.HasField("transform_param"):
            raise GraphError("HDF5Data does not transform its data; remove transform_param", field="transform_param")
        settings = message.hdf5_data_param
        self.source = settings.source
        self.batch_size = settings.batch_size
        self.shuffle = settings.shuffle
        self.names = tuple(message.top)

    def tops_beside(self, first: Shape) -> Sequence[Shape | None]:
        return [None] * self.top_count

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        file = self.locate()[0]
        return [(self.batch_size, *shape[1:]) for shape in dataset_shapes(file, self.names)]

    def open_source(self, run: RunState) -> HDF5Batches:
        return HDF5Batches(self.locate(), self.names, self.batch_size, shuffle=self.shuffle, seed=run.seed)

    def coverage(self, most: int | None = None) -> Coverage | None:
        files = self.located()
        if files is None:
            return None
        rows = [dataset_shapes(file, self.names)[0][0] for file in files]
        return Coverage(self.source, sum(rows), self.batch_size)

    def label_values(self, top: int) -> NDArray[Any] | None:
        import numpy

        files = self.located()
        if files is None:
            return None
        found = []
        for file in files:
            with _opened(file) as opened:
                labels = _datasets(opened, file, self.names)[top]
                if labels.size != labels.shape[0]:
                    return None
                found.append(numpy.ravel(labels[:_LOOKED_AT]))
        return numpy.concatenate(found)

    def bad_values(self) -> str:
        quick = _QUICK
        for file in self.located() or ():
            with _opened(file) as opened:
                for name, dataset in zip(self.names, _datasets(opened, file, self.names), strict=True):
                    quick -= dataset.nbytes
                    if quick < 0:
                        return ""
                    found = not_finite(dataset[()])
                    if found is not None:
                        return f"{quoted(name)} of HDF5 file {quoted(file)} has {found}; correct the data"
        return ""

    def describe(self) -> str:
        return f"HDF5 {self.source}, batches of {self.batch_size}"

    def locate(self) -> Sequence[str]:
        """Return the paths in the list, which are relative to the working directory or to the list's folder."""
        source = super().locate()
        try:
            lines = Path(source).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"list {quoted(self.source)} is not a text file with the path of an HDF5 file a line",
                field="hdf5_data_param.source",
            ) from error
        folder = str(Path(source).parent)
        # Caffe reads words, so that several files may stand on a line; a path with spaces is what is there as a whole.
        named = [[line] if find_path(line, folder) else line.split() for line in map(str.strip, lines) if line]
        names = list(itertools.chain.from_iterable(named))
        if not names:
            raise DataError(f"list {quoted(self.source)} names no file", field="hdf5_data_param.source")
        found = [(name, find_path(name, folder)) for name in names]
        for name, path in found:
            if path is None:
                raise self.missing(f"HDF5 file {quoted(name)}, named in {quoted(self.source)}, is not there")
        return [path for _, path in found if path is not None]


def dataset_shapes(file: str, names: Sequence[str]) -> Sequence[Shape]:
    """The shapes of datasets in a file; DataError where one is missing or their rows differ."""
    with _opened(file) as opened:
        return [tuple(dataset.shape) for dataset in _datasets(opened, file, names)]


@dataclass
class HDF5Batches:
    """The source of an HDF5Data layer's feeder; see `feeder.Source`. One file is in memory at a time."""

    files: Sequence[str]
    names: Sequence[str]
    batch_size: int
    shuffle: bool
    seed: int
    _only: Arrays = field(default_factory=list)

    def batches(self, first: int) -> Iterator[Arrays]:
        """One (batch_size, *K) array a top."""
        import numpy

        parts: list[Arrays] = []  # of the batch under way
        missing = self.batch_size
        for arrays, order in self._pieces(first * self.batch_size):
            while len(order):
                rows, order = order[:missing], order[missing:]
                parts.append([array[rows] for array in arrays])
                missing -= len(rows)
                if not missing:
                    yield parts[0] if len(parts) == 1 else [numpy.concatenate(top) for top in zip(*parts, strict=True)]
                    parts, missing = [], self.batch_size

    def record(self, batch: int, row: int) -> str:
        """Where a row comes from."""
        index, order = next(self._places(batch * self.batch_size + row))
        return f"row {order[0]} of HDF5 file {quoted(self.files[index])}"

    def close(self) -> None:
        """Forget what was read."""
        self._only = []

    def _pieces(self, position: int) -> Iterator[tuple[Arrays, Any]]:
        """The arrays of a file and the order of their rows, from row `position` of all on, without end."""
        return ((self._read(index), order) for index, order in self._places(position))

    def _places(self, position: int) -> Iterator[tuple[int, Any]]:
        """The number of a file and the order of its rows, from row `position` of all on, without end."""
        shapes = [dataset_shapes(file, self.names) for file in self.files]
        for file, found in zip(self.files, shapes, strict=True):
            if [shape[1:] for shape in found] != [shape[1:] for shape in shapes[0]]:
                raise DataError(
                    f"the datasets of {quoted(file)} have other shapes than those of {quoted(self.files[0])}"
                )
        rows = [found[0][0] for found in shapes]
        begin, position = divmod(position, sum(rows))
        for round_number in itertools.count(begin):
            for index in self._order(len(self.files), round_number, "files"):
                if position >= rows[index]:
                    position -= rows[index]
                    continue
                order = self._order(rows[index], round_number, str(index))[position:]
                position = 0
                yield index, order
            _log.info("Looping around to first file.")

    def _order(self, count: int, round_number: int, what: str) -> Any:
        """0 to `count` - 1, shuffled where wanted, in another way each time round."""
        import numpy

        if not self.shuffle:
            return numpy.arange(count)
        return numpy.random.default_rng([self.seed, round_number, *what.encode()]).permutation(count)

    def _read(self, index: int) -> Arrays:
        import numpy

        if self._only:
            return self._only
        with _opened(self.files[index]) as opened:
            datasets = _datasets(opened, self.files[index], self.names)
            try:
                with numpy.errstate(over="ignore", invalid="ignore"):  # numbers too large for float32 become infinite
                    arrays = [numpy.asarray(dataset[()], numpy.float32) for dataset in datasets]
            except (OSError, MemoryError) as error:
                raise DataError(
                    f"the datasets of HDF5 file {quoted(self.files[index])} cannot be read: {error}; make it again"
                ) from error
        if len(self.files) == 1:
            self._only = arrays
        return arrays


@contextlib.contextmanager
def _opened(file: str) -> Iterator[Any]:
    """An HDF5 file; what the library raises in the block, as DataError."""
    import h5py

    from siamese_proto.weights.files import DAMAGED

    try:
        with h5py.File(file, "r") as opened:
            yield opened
    except DAMAGED as error:
        raise DataError(f"{quoted(file)} is not an HDF5 file, or it is damaged ({error}); make it again") from error


def _datasets(opened: Any, file: str, names: Sequence[str]) -> Sequence[Any]:
    datasets = [_dataset(opened, file, name) for name in names]
    lengths = {name: dataset.shape[0] for name, dataset in zip(names, datasets, strict=True)}
    if len(set(lengths.values())) > 1 or 0 in lengths.values():
        listed = ", ".join(f"{quoted(name)} {length}" for name, length in lengths.items())
        raise DataError(
            f"the datasets of HDF5 file {quoted(file)} must have the same number of rows, above 0: {listed}"
        )
    return datasets


def _dataset(opened: Any, file: str, name: str) -> Any:
    from siamese_proto.weights.hdf5_datasets import NotInFileError, check_stored, find

    try:
        dataset = find(opened, name)
        if dataset is None:
            raise DataError(f"HDF5 file {quoted(file)} has no dataset {quoted(name)}{did_you_mean(name, opened)}")
        if not getattr(dataset, "shape", None) or dataset.dtype.kind not in "fiu":
            raise DataError(
                f"{quoted(name)} in HDF5 file {quoted(file)} is not a dataset of numbers with one axis or more"
            )
        check_stored(dataset, fill=_FILL)
    except NotInFileError as error:
        raise DataError(f"{quoted(name)} in HDF5 file {quoted(file)} {error}; make the file again") from error
    return dataset
