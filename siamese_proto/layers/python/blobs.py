"""Blobs as a Python layer sees them: the interface of pycaffe, on numpy arrays."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from siamese_proto.graph.ir import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class Blob:
    """Values and gradients of one shape. The arrays are allocated at first use, filled with 0.

    `num`, `channels`, `height` and `width` are the first four sizes, or 1 for missing axes (blob.hpp: LegacyShape).
    """

    def __init__(self, shape: Shape = ()) -> None:
        self._shape = tuple(shape)
        self._type: Any = "float32"
        self._data: Array | None = None
        self._diff: Array | None = None

    @property
    def shape(self) -> Shape:
        """The size of each axis, outermost first."""
        return self._shape

    @property
    def data(self) -> Array:
        """The values. Write them in place: `blob.data[...] = x`."""
        if self._data is None:
            self._data = self._zeros()
        return self._data

    @property
    def diff(self) -> Array:
        """The gradient. Write it in place."""
        if self._diff is None:
            self._diff = self._zeros()
        return self._diff

    @property
    def count(self) -> int:
        """The number of values."""
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
        """Change the shape. The content is kept if the number of values stays the same."""
        sizes = tuple(int(dim) for dim in dims)
        if any(size < 0 for size in sizes):
            raise ValueError(f"a blob cannot have the shape {sizes}")
        same_count = prod(sizes) == self.count
        self._data = self._data.reshape(sizes) if same_count and self._data is not None else None
        self._diff = self._diff.reshape(sizes) if same_count and self._diff is not None else None
        self._shape = sizes

    def hold(self, data: Array, diff: Array | None = None) -> None:
        """Replace the blob's arrays, shape and type by those of `data` and `diff`."""
        self._shape, self._type = data.shape, data.dtype
        self._data, self._diff = data, diff

    def take_type(self, kind: Any) -> None:
        """Set the number type. Arrays of another type are discarded."""
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
        """Add a parameter of this shape, filled with 0."""
        blob = Blob()
        blob.reshape(*dims)
        self.append(blob)
