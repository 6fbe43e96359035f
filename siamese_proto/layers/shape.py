"""Layers that cut, join, reshape and transpose blobs."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from siamese_proto.errors import DataError, GraphError
from siamese_proto.graph.ir import Arity, Shape, exactly
from siamese_proto.layers.base import Layer, RunState, canonical_axis, layer
from siamese_proto.layers.checks import read_axis, refuse_in_place
from siamese_proto.layers.settings.user_settings import binary_settings
from siamese_proto.layers.torch_source import Source, expression, shown
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("Slice")
class Slice(Layer):
    """Cut along `axis` (formerly `slice_dim`) at the slice points, by default into equal parts.

    (.., S, ..) -> one (.., S_i, ..) per top, where the S_i add up to S
    Caffe: slice_layer.cpp
    """

    tops = Arity(1, None)

    def read(self, message: schema.LayerParameter) -> None:
        self.axis, self.axis_field = read_axis(message.slice_param, "slice_param", "slice_dim")
        self.points = tuple(message.slice_param.slice_point)
        if self.points and len(self.points) != self.top_count - 1:
            raise GraphError(
                f"slice_point is set {len(self.points)} times for {self.top_count} tops: "
                f"set it {self.top_count - 1} times, or leave it out for equal parts",
                field="slice_param.slice_point[0]",
            )
        for index, (before, point) in enumerate(zip((0, *self.points), self.points, strict=False)):
            if point <= before:
                raise GraphError(
                    f"slice_point {point} must be greater than {before}, where the previous slice begins",
                    field=f"slice_param.slice_point[{index}]",
                )

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        axis = canonical_axis(self.axis, bottoms[0], self.axis_field)
        size = bottoms[0][axis]
        if self.points and self.points[-1] >= size:
            raise GraphError(
                f"slice_point {self.points[-1]} is not inside axis {axis}, which has size {size}",
                field=f"slice_param.slice_point[{len(self.points) - 1}]",
            )
        if not self.points and size % self.top_count:
            raise GraphError(
                f"{self.top_count} tops do not divide axis {axis} of size {size} into equal parts: set slice_point",
                field=self.axis_field,
            )
        part = size // self.top_count
        ends = (*self.points, size) if self.points else tuple(part * (i + 1) for i in range(self.top_count))
        starts = (0, *ends[:-1])
        cut = [end - start for start, end in zip(starts, ends, strict=True)]
        return [(*bottoms[0][:axis], size, *bottoms[0][axis + 1 :]) for size in cut]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        x = bottoms[0]
        if self.points:
            return x.tensor_split(self.points, self.axis)
        if x.shape[self.axis] % self.top_count:
            raise DataError(
                f"axis {self.axis} of size {x.shape[self.axis]} cannot be cut into {self.top_count} equal parts",
                layer=self.name,
            )
        return x.tensor_split(self.top_count, self.axis)

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        if self.top_count == 1:
            return expression("{0}")
        return expression(f"{{0}}.tensor_split({shown(self.points or self.top_count)}, dim={self.axis})")

    def rows_independent(self) -> bool:
        return self.axis > 0

    def describe(self) -> str:
        return f"axis {self.axis}" + (f" at {', '.join(map(str, self.points))}" if self.points else "")


@layer("Concat")
class Concat(Layer):
    """Join the bottoms along `axis` (formerly `concat_dim`).

    several (.., S_i, ..) -> (.., sum of S_i, ..)
    Caffe: concat_layer.cpp
    """

    bottoms = Arity(1, None)

    def read(self, message: schema.LayerParameter) -> None:
        self.axis, self.axis_field = read_axis(message.concat_param, "concat_param", "concat_dim")

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        axis = canonical_axis(self.axis, bottoms[0], self.axis_field)
        first = bottoms[0]
        for index, bottom in enumerate(bottoms):
            if len(bottom) != len(first) or bottom[:axis] != first[:axis] or bottom[axis + 1 :] != first[axis + 1 :]:
                raise GraphError(
                    f"bottom {index} of shape {bottom} cannot be joined to bottom 0 of shape {first}: "
                    f"only axis {axis} may differ",
                    field=f"bottom[{index}]",
                )
        return [(*first[:axis], sum(bottom[axis] for bottom in bottoms), *first[axis + 1 :])]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        return [torch.cat(tuple(bottoms), self.axis)] if len(bottoms) > 1 else [bottoms[0]]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        if len(bottoms) == 1:
            return expression("{0}")
        joined = ", ".join(f"{{{index}}}" for index in range(len(bottoms)))
        return expression(f"torch.cat(({joined}), dim={self.axis})")

    def rows_independent(self) -> bool:
        return self.axis > 0

    def describe(self) -> str:
        return f"axis {self.axis}"


@layer("Split")
class Split(Layer):
    """Copy the bottom to each top; the gradients add up.

    (*S) -> (*S) for each top
    Caffe: split_layer.cpp
    """

    tops = Arity(1, None)

    def read(self, message: schema.LayerParameter) -> None:
        refuse_in_place(message)

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [bottoms[0]] * self.top_count

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [bottoms[0]] * self.top_count

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        return Source(("{0}",) * self.top_count)

    def rows_independent(self) -> bool:
        return True


@layer("Silence")
class Silence(Layer):
    """Read blobs, so that they are not outputs of the net.

    any -> no tops
    Caffe: silence_layer.cpp
    """

    bottoms = Arity(1, None)
    tops = exactly(0)

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return []

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return []

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        return Source()

    def rows_independent(self) -> bool:
        return True


@layer("Flatten")
class Flatten(Layer):
    """Join the axes from `axis` to `end_axis` (inclusive) to one axis.

    (*A, *B, *C) -> (*A, prod B, *C)
    Caffe: flatten_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        refuse_in_place(message)
        self.axis = message.flatten_param.axis
        self.end_axis = message.flatten_param.end_axis

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [self._flattened(bottoms[0])]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [bottoms[0].reshape(self._flattened(tuple(bottoms[0].shape)))]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        start, end = (axis % len(bottoms[0]) for axis in (self.axis, self.end_axis))
        if end < start:
            return expression(f"{{0}}.unsqueeze({start})")
        return expression(
            f"{{0}}.flatten({self.axis})" if end == len(bottoms[0]) - 1 else f"{{0}}.flatten({start}, {end})"
        )

    def rows_independent(self) -> bool:
        return self.axis > 0

    def _flattened(self, shape: Shape) -> Shape:
        start = canonical_axis(self.axis, shape, "flatten_param.axis")
        end = canonical_axis(self.end_axis, shape, "flatten_param.end_axis")
        if end < start - 1:  # directly before `axis` it means no axes: their product is 1, as in Caffe
            raise GraphError(
                f"end_axis {self.end_axis} is before axis {self.axis} in a bottom of shape {shape}",
                field="flatten_param.end_axis",
            )
        return (*shape[:start], prod(shape[start : end + 1]), *shape[end + 1 :])


@layer("Reshape")
class Reshape(Layer):
    """Replaces the axes from `axis` on (`num_axes` of them, or all) by `shape`: 0 copies a size, -1 infers it.

    (*A, *B, *C) -> (*A, *shape, *C), with the same number of elements
    Caffe: reshape_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        refuse_in_place(message)
        settings = message.reshape_param
        self.dims = tuple(settings.shape.dim)
        self.axis = settings.axis
        self.num_axes = settings.num_axes
        if self.dims.count(-1) > 1:
            raise GraphError(
                f"shape {self.dims} holds -1 {self.dims.count(-1)} times: only one dimension can be inferred",
                field="reshape_param.shape",
            )
        if min(self.dims, default=0) < -1:
            raise GraphError(
                f"shape {self.dims} holds {min(self.dims)}: dimensions are positive, 0 (copy) or -1 (infer)",
                field="reshape_param.shape",
            )
        if self.num_axes < -1:
            raise GraphError(
                f"num_axes {self.num_axes} must be at least 0, or -1 for all", field="reshape_param.num_axes"
            )

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [self._reshaped(bottoms[0])]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [bottoms[0].reshape(self._reshaped(tuple(bottoms[0].shape)))]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        start = self.axis if self.axis >= 0 else len(bottoms[0]) + 1 + self.axis
        dims = [*bottoms[0][:start], *self.dims]
        dims += bottoms[0][start + self.num_axes :] if self.num_axes != -1 else ()
        sizes = [str(size or bottoms[0][index]) for index, size in enumerate(dims)]
        if start > 0 or self.dims[:1] == (0,):
            sizes[0] = "len({0})"  # of any batch
        return expression(f"{{0}}.reshape({', '.join(sizes)})")

    def rows_independent(self) -> bool:
        # With axis -1 all axes stay. With a leading 0 the batch is copied, so that each row stays the same row.
        return self.axis > 0 or self.axis == -1 or (self.axis == 0 and self.dims[:1] == (0,))

    def describe(self) -> str:
        return f"axis {self.axis} " * (self.axis != 0) + f"({', '.join(map(str, self.dims))})"

    def _reshaped(self, shape: Shape) -> Shape:
        """Return the shape of the top. Raises GraphError if the number of elements differs."""
        start = self.axis if self.axis >= 0 else len(shape) + 1 + self.axis
        if not 0 <= start <= len(shape):
            raise GraphError(
                f"axis {self.axis} does not exist in a bottom of shape {shape}", field="reshape_param.axis"
            )
        end = len(shape) if self.num_axes == -1 else start + self.num_axes
        if end > len(shape):
            raise GraphError(
                f"axis {self.axis} and num_axes {self.num_axes} exceed a bottom of shape {shape}",
                field="reshape_param.num_axes",
            )
        new = list(self.dims)
        for index, size in enumerate(new):
            if size == 0 and start + index >= len(shape):
                raise GraphError(
                    f"shape {self.dims} copies axis {start + index}, which a bottom of shape {shape} does not have",
                    field="reshape_param.shape",
                )
            new[index] = shape[start + index] if size == 0 else size
        if -1 in self.dims:
            others = -prod(new) * prod(shape[:start]) * prod(shape[end:])
            new[self.dims.index(-1)] = prod(shape) // others if others and prod(shape) % others == 0 else 0
        top = (*shape[:start], *new, *shape[end:])
        if prod(top) != prod(shape):
            raise GraphError(
                f"a bottom of shape {shape} with {prod(shape)} elements does not fill "
                f"({', '.join('?' if size == 0 and -1 in self.dims else str(size) for size in top)})",
                field="reshape_param.shape",
            )
        return top


STORED_NUMBER = 202  # of permute_param in the fork that defines it


@layer("Permute")
class Permute(Layer):
    """`y[i_order0, i_order1, ..] = x[i_0, i_1, ..]`: axis k of y is axis `order[k]` of x.

    (S_0, S_1, ..) -> (S_order0, S_order1, ..)
    Axes missing from `order` follow in their original order.
    Not in BVLC Caffe.
    """

    def read(self, message: schema.LayerParameter) -> None:
        stored = binary_settings(message, STORED_NUMBER)
        settings = message.permute_param
        if stored is not None and not message.HasField("permute_param"):
            settings = schema.PermuteParameter.FromString(stored)
        self.order = tuple(settings.order)
        for index, axis in enumerate(self.order):
            if axis in self.order[:index]:
                raise GraphError(f"order names axis {axis} twice", field=f"permute_param.order[{index}]")

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        for index, axis in enumerate(self.order):
            if axis >= len(bottoms[0]):
                raise GraphError(
                    f"axis {axis} does not exist in a bottom of shape {bottoms[0]}",
                    field=f"permute_param.order[{index}]",
                )
        return [tuple(bottoms[0][axis] for axis in self._axes(len(bottoms[0])))]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [bottoms[0].permute(self._axes(bottoms[0].dim())).contiguous()]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        axes = ", ".join(map(str, self._axes(len(bottoms[0]))))
        return expression(f"{{0}}.permute({axes}).contiguous()")

    def rows_independent(self) -> bool:
        return not self.order or self.order[0] == 0

    def describe(self) -> str:
        return " ".join(map(str, self.order))

    def _axes(self, count: int) -> tuple[int, ...]:
        return (*self.order, *(axis for axis in range(count) if axis not in self.order))
