"""The HDF5Output layer: a file of what two blobs held, batch after batch."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from siamese_proto.errors import DataError, GraphError, NetError, quoted
from siamese_proto.files import check_writable, replacing
from siamese_proto.graph.ir import Shape, exactly
from siamese_proto.layers.base import Layer, RunState, layer
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_log = logging.getLogger(__name__)
_NAMES = ("data", "label")  # of the datasets
_being_written: set[str] = set()  # paths


@layer("HDF5Output")
class HDF5Output(Layer):
    """Writes both bottoms into the datasets `data` and `label` of the HDF5 file `file_name`, as HDF5Data reads them.

    (N, *S), (N, *T) -> nothing. The datasets have four axes: (rows, C, H, W), those that a bottom lacks being 1.
    Each batch adds its N rows (Caffe ends at the second). The first batch begins a new file, which takes the place of
    an old one of its name once the net is closed, or gone; a resumed run thus holds the rows since it was resumed.
    Caffe: hdf5_output_layer.cpp
    """

    bottoms = exactly(2)
    bottom_names = ("data", "label")
    tops = exactly(0)
    differentiable = False
    writes_files = True

    def read(self, message: schema.LayerParameter) -> None:
        self.file_name = message.hdf5_output_param.file_name
        if not self.file_name:
            raise GraphError("no file_name is given; write the file's path", field="hdf5_output_param.file_name")

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        for index, shape in enumerate(bottoms):
            if len(shape) > 4:
                raise GraphError(f"bottom {index} has shape {shape}, but the file's datasets have four axes at most")
        rows = [shape[0] if shape else 1 for shape in bottoms]
        if rows[0] != rows[1]:
            raise GraphError(f"its bottoms have {rows[0]} and {rows[1]} rows; the file needs as many of both")
        return []

    def prepare(self) -> None:
        check_writable(self.file_name)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        try:
            self.top_shapes([tuple(bottom.shape) for bottom in bottoms])
            if not run.writes_files:
                return []
            writer = run.files.get(self.key)
            if not isinstance(writer, RowWriter):
                if run.iteration and os.path.exists(self.file_name):
                    _log.warning("%s is begun anew: it will hold the rows since the run was resumed", self.file_name)
                run.files[self.key] = writer = RowWriter(self.file_name)
            writer.add([_four_axes(bottom) for bottom in bottoms])
        except NetError as problem:
            raise problem.at(layer=self.name, location=self.context.location) from None
        return []

    def describe(self) -> str:
        return f"to {self.file_name}"


def _four_axes(bottom: Tensor) -> NDArray[Any]:
    """The numbers of a blob in the (num, channels, height, width) of old, in single precision or double."""
    import torch

    numbers = bottom.detach().to("cpu")
    numbers = numbers if numbers.dtype in (torch.float32, torch.float64) else numbers.float()
    shape = tuple(bottom.shape)
    found: NDArray[Any] = numbers.numpy().reshape(shape + (1,) * (4 - len(shape)))
    return found


class RowWriter:
    """An HDF5 file to which rows are added; it has its name once it is closed, if only by the end of the program."""

    def __init__(self, path: str) -> None:
        target = os.path.abspath(path)
        if target in _being_written:
            raise DataError(f"{quoted(path)} is being written by another layer or net already; choose another name")
        with contextlib.ExitStack() as stack:
            _being_written.add(target)
            stack.callback(_being_written.discard, target)
            partial = stack.enter_context(replacing(path))
            self._disk = stack.enter_context(_Disk(partial))
            self._file = stack.enter_context(_hdf5(self._disk))
            self._opened = stack.pop_all()
        self._finish = weakref.finalize(self, _finish, self._opened, self._disk, self._file)

    def add(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Add rows to both datasets, arrays (N, C, H, W); where the disk is full the file is given up by a NetError."""
        for name, array in zip(_NAMES, arrays, strict=True):
            before = self._file[name].shape[1:] if name in self._file else array.shape[1:]
            if before != array.shape[1:]:
                raise DataError(f"rows of its {name} have shape {array.shape[1:]}, but those before {before}")
        for name, array in zip(_NAMES, arrays, strict=True):
            self._add(name, array)
        self._file.flush()
        if self._disk.failure is not None:
            self.close()

    def _add(self, name: str, array: NDArray[Any]) -> None:
        if name not in self._file:
            self._file.create_dataset(name, data=array, maxshape=(None, *array.shape[1:]))
            return
        dataset = self._file[name]
        rows = len(dataset)
        dataset.resize(rows + len(array), axis=0)
        dataset[rows:] = array

    def close(self) -> None:
        """Bring the file to the disk, under its name; a second call does nothing. NetError where the disk is full."""
        self._finish()


class _Disk(io.FileIO):
    """A file that remembers what went wrong in writing, and goes on as if nothing had.

    For the HDF5 library writes when its objects are freed too, where nobody can catch an error, and prints it.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path, "r+")
        self.failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all, or remember why not."""
        left = memoryview(data).cast("B")
        try:
            while left and self.failure is None:
                left = left[super().write(left) :]
        except OSError as error:
            self.failure = error
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None) -> int:
        """Bring it to a length, or remember why not."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = error
            return size or 0


def _hdf5(disk: _Disk) -> Any:
    import h5py

    return h5py.File(disk, "w")


def _finish(opened: contextlib.ExitStack, disk: _Disk, file: Any) -> None:
    """Close the file and give it its name, unless its disk has failed."""
    with opened:
        file.close()
        if disk.failure is not None:
            raise disk.failure
