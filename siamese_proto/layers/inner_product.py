"""Fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from siamese_proto.graph.ir import ParamRole, Shape
from siamese_proto.layers.base import Layer, RunState, canonical_axis, layer, read_filler
from siamese_proto.layers.checks import check_positive
from siamese_proto.layers.torch_source import Source, call
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("InnerProduct")
class InnerProduct(Layer):
    """`y = x W^T + b`, with `x` flattened from `axis` on.

    (*M, *K) -> (*M, num_output), M the dimensions before `axis`
    weight (num_output, prod K), with `transpose` (prod K, num_output); bias (num_output,)
    Caffe: inner_product_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.inner_product_param
        self.num_output = settings.num_output
        self.axis = settings.axis
        self.transpose = settings.transpose
        self.roles = [ParamRole("weight", read_filler(settings.weight_filler))]
        if settings.bias_term:
            self.roles.append(ParamRole("bias", read_filler(settings.bias_filler)))
        check_positive(settings, "num_output", "inner_product_param")

    def params(self) -> Sequence[ParamRole]:
        return self.roles

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        inputs = prod(bottoms[0][canonical_axis(self.axis, bottoms[0]) :])
        weight = (inputs, self.num_output) if self.transpose else (self.num_output, inputs)
        shapes: list[Shape] = [weight, (self.num_output,)]
        return shapes[: len(self.roles)]

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        axis = canonical_axis(self.axis, bottoms[0], "inner_product_param.axis")
        return [(*bottoms[0][:axis], self.num_output)]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        weight = params[0].t() if self.transpose else params[0]
        bias = params[1] if len(params) > 1 else None
        return [torch.nn.functional.linear(bottoms[0].flatten(self.axis), weight, bias)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        axis = canonical_axis(self.axis, bottoms[0])
        x = "{0}" if axis == len(bottoms[0]) - 1 else f"{{0}}.flatten({axis})"
        has_bias = len(self.roles) > 1
        weight, bias = "{p0}.t()" if self.transpose else "{p0}", ", {p1}" if has_bias else ""
        module = call("nn.Linear", prod(bottoms[0][axis:]), self.num_output, bias=(has_bias, True))
        return Source(
            (f"{{module}}({x})",),
            "" if self.transpose else module,
            ("weight", "bias")[: len(self.roles)],
            (f"functional.linear({x}, {weight}{bias})",),
        )

    def rows_independent(self) -> bool:
        return self.axis > 0

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return prod(bottoms[0]) * self.num_output

    def describe(self) -> str:
        return str(self.num_output)
