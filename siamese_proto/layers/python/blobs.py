"""What a Python layer sees of blobs: the objects of pycaffe, over numpy arrays."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from siamese_proto.graph.ir import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Blob:
    """Values and gradients of one shape. Arrays are made when they are first asked for, full of 0.

    `num`, `channels`, `height` and `width` are the first four sizes, 1 where there are fewer (blob.hpp: LegacyShape).
    """

    def __init__(self, shape: Shape = ()) -> None:
        self._shape = tuple(shape)
        self._type: Any = "float32"
        self._data: Array | None = None
        self._diff: Array | None = None

    @property
    def shape(self) -> Shape:
        """The sizes, outermost first."""
        return self._shape

    @property
    def data(self) -> Array:
        """The values; written in place, `blob.data[...] = x`."""
        if self._data is None:
            self._data = self._zeros()
        return self._data

    @property
    def diff(self) -> Array:
        """The gradient; written in place."""
        if self._diff is None:
            self._diff = self._zeros()
        return self._diff

    @property
    def count(self) -> int:
        """How many values there are."""
        return prod(self._shape)

    @property
    def num(self) -> int:
        """The first size."""
        return self._legacy(0)

    @property
    def channels(self) -> int:
        """The second size."""
        return self._legacy(1)

    @property
    def height(self) -> int:
        """The third size."""
        return self._legacy(2)

    @property
    def width(self) -> int:
        """The fourth size."""
        return self._legacy(3)

    def reshape(self, *dims: int) -> None:
        """Take another shape; what is in the blob stays where the number of values does."""
        sizes = tuple(int(dim) for dim in dims)
        if any(size < 0 for size in sizes):
            raise ValueError(f"a blob cannot have the shape {sizes}")
        same_count = prod(sizes) == self.count
        self._data = self._data.reshape(sizes) if same_count and self._data is not None else None
        self._diff = self._diff.reshape(sizes) if same_count and self._diff is not None else None
        self._shape = sizes

    def hold(self, data: Array, diff: Array | None = None) -> None:
        """Take these arrays, with their shape and type, in place of the blob's own."""
        self._shape, self._type = data.shape, data.dtype
        self._data, self._diff = data, diff

    def take_type(self, kind: Any) -> None:
        """Compute in numbers of this type; arrays of another are dropped."""
        if self._type != kind:
            self._type, self._data, self._diff = kind, None, None

    def _zeros(self) -> Array:
        import numpy as np

        return np.zeros(self._shape, self._type)

    def _legacy(self, index: int) -> int:
        return self._shape[index] if index < len(self._shape) else 1


class Blobs(list[Blob]):
    """The parameters of a Python layer."""

    def add_blob(self, *dims: int) -> None:
        """One more parameter, full of 0."""
        blob = Blob()
        blob.reshape(*dims)
        self.append(blob)
