"""Input and Parameter: blobs from the caller, and learned blobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Arity, ParamRole, Shape, SourceMissingError, exactly
from siamese_proto.layers.base import Layer, RunState, layer
from siamese_proto.layers.torch_source import Source
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("Input")
class Input(Layer):
    """The caller passes the tops: `net(data=x)`.

    () -> one blob per top, of its shape in input_param (a single shape holds for all tops)
    Caffe: input_layer.cpp
    """

    is_source = True
    bottoms = exactly(0)
    tops = Arity(1, None)

    def read(self, message: schema.LayerParameter) -> None:
        shapes = message.input_param.shape
        self.shapes: tuple[Shape, ...] = tuple(tuple(shape.dim) for shape in shapes)
        if len(shapes) not in (0, 1, self.top_count):
            raise GraphError(
                f"{len(shapes)} shapes are set for {self.top_count} tops: set one shape, or one per top",
                field=f"input_param.shape[{min(len(shapes) - 1, self.top_count)}]",
            )
        for index, shape in enumerate(self.shapes):
            if any(size < 0 for size in shape):
                raise GraphError(f"shape {shape} has a negative dimension", field=f"input_param.shape[{index}]")

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if not self.shapes:
            raise SourceMissingError(
                "the shape is missing: write input_param { shape { dim: ... } }", field="input_param"
            )
        return self.shapes * self.top_count if len(self.shapes) == 1 else self.shapes


@layer("Parameter")
class Parameter(Layer):
    """A learned blob: the top is the parameter itself, initially zeros.

    () -> `shape`
    Gradients of several uses and passes add up, as for all parameters; in Caffe the last one replaces the others.
    Caffe: parameter_layer.hpp
    """

    bottoms = exactly(0)

    def read(self, message: schema.LayerParameter) -> None:
        self.shape: Shape = tuple(message.parameter_param.shape.dim)
        if min(self.shape, default=0) < 0:
            raise GraphError(f"shape {self.shape} has a negative dimension", field="parameter_param.shape")

    def params(self) -> Sequence[ParamRole]:
        return [ParamRole("parameter")]

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [self.shape]

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [self.shape]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [params[0]]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        return Source(apart=("{p0}",))

    def describe(self) -> str:
        return str(self.shape)
