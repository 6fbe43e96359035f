"""A parameter as a blob."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import ParamRole, Shape, exactly
from siamese_proto.layers.base import Layer, RunState, layer
from siamese_proto.layers.torch_source import Source
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("Parameter")
class Parameter(Layer):
    """A blob that is learned: the top is the parameter itself, which begins with zeros.

    () -> `shape`
    Gradients of several uses and passes add up, as for every parameter; in Caffe the last one replaces the others.
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
