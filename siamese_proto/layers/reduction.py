"""Layers that make few numbers of many."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Shape
from siamese_proto.layers.base import Layer, RunState, canonical_axis, layer
from siamese_proto.layers.torch_source import Source, call, expression, literal
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("Reduction")
class Reduction(Layer):
    """`y = coeff` times the SUM, the sum of magnitudes (ASUM), the sum of squares (SUMSQ) or the MEAN from `axis` on.

    (*A, *B) -> (*A), A the dimensions before `axis`
    Caffe: reduction_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.reduction_param
        self.operation = schema.ReductionParameter.ReductionOp.Name(settings.operation)
        self.axis = settings.axis
        self.coefficient = settings.coeff

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [bottoms[0][: canonical_axis(self.axis, bottoms[0], "reduction_param.axis")]]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        x = bottoms[0].flatten(self.axis)  # (*A, prod B)
        if self.operation == "ASUM":
            x = x.abs()
        elif self.operation == "SUMSQ":
            x = x.square()
        y = x.mean(-1) if self.operation == "MEAN" else x.sum(-1)
        return [y * self.coefficient if self.coefficient != 1 else y]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        x = "{0}" if canonical_axis(self.axis, bottoms[0]) == len(bottoms[0]) - 1 else f"{{0}}.flatten({self.axis})"
        x += {"ASUM": ".abs()", "SUMSQ": ".square()"}.get(self.operation, "")
        y = x + (".mean(-1)" if self.operation == "MEAN" else ".sum(-1)")
        return expression(y if self.coefficient == 1 else f"{y} * {literal(self.coefficient)}")

    def rows_independent(self) -> bool:
        return self.axis > 0

    def describe(self) -> str:
        coefficient = f"{self.coefficient:g} x " if self.coefficient != 1 else ""
        return f"{coefficient}{self.operation} from axis {self.axis}"


@layer("ArgMax")
class ArgMax(Layer):
    """The indices of the `top_k` highest values, the highest first; of equal values the later counts as higher.

    Without `axis`, of all values of a row: (N, *K) -> (N, 1, top_k), or with `out_max_val` (N, 2, top_k): indices, then
    values; axes of size 1 are appended up to the rank of the bottom.
    With `axis`: (.., C, ..) -> (.., top_k, ..), the indices, or with `out_max_val` the values.
    There is no gradient.
    Caffe: argmax_layer.cpp
    """

    differentiable = False

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.argmax_param
        self.with_values = settings.out_max_val
        self.top_k = settings.top_k
        self.axis = settings.axis if settings.HasField("axis") else None
        if self.top_k < 1:
            raise GraphError(f"top_k {self.top_k} must be at least 1", field="argmax_param.top_k")

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        shape = bottoms[0]
        axis = canonical_axis(self.axis or 0, shape, "argmax_param.axis" if self.axis is not None else "bottom[0]")
        values = prod(shape[1:]) if self.axis is None else shape[axis]
        if self.top_k > values:
            where = "a row" if self.axis is None else f"axis {axis}"
            raise GraphError(
                f"top_k {self.top_k} is more than the {values} values in {where} of bottom shape {shape}",
                field="argmax_param.top_k",
            )
        if self.axis is not None:
            return [(*shape[:axis], self.top_k, *shape[axis + 1 :])]
        return [(shape[0], 1 + self.with_values, self.top_k, *(1,) * (len(shape) - 3))]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from siamese_proto.layers.functional.element_wise import highest

        return [highest(bottoms[0], self.top_k, self.axis, with_values=self.with_values)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        settings = {"axis": (self.axis, None), "with_values": (self.with_values, False)}
        return expression(call("highest", "{0}", self.top_k, **settings), "functional.element_wise.highest")

    def rows_independent(self) -> bool:
        return self.axis is None or self.axis > 0

    def describe(self) -> str:
        words = [f"top {self.top_k}"] if self.top_k > 1 else []
        words += [f"axis {self.axis}"] if self.axis is not None else []
        return " ".join(words + ["values"] * self.with_values)
