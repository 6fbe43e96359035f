"""Element-wise combination of several blobs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import mul
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Arity, Shape
from siamese_proto.layers.base import Layer, RunState, layer
from siamese_proto.layers.checks import check_same_shapes
from siamese_proto.layers.torch_source import Source, call, expression, literal
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("Eltwise")
class Eltwise(Layer):
    """SUM: `y = sum of coeff_i x_i`. PROD: `y = product of x_i`. MAX: `y = max of x_i`.

    several (*S) -> (*S)
    The gradient of MAX goes to a single bottom. Of equal bottoms that is bottom 1, then bottom 0, then 2, 3, ..
    With `stable_prod_grad: false` the gradient of PROD is `y / x_i`, which is NaN where x_i is 0.
    Caffe: eltwise_layer.cpp
    """

    bottoms = Arity(2, None)
    bottom_names = ("first input", "second input")

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.eltwise_param
        self.operation = schema.EltwiseParameter.EltwiseOp.Name(settings.operation)
        self.coefficients = tuple(settings.coeff)
        self.stable = settings.stable_prod_grad
        if self.coefficients and len(self.coefficients) != self.bottom_count:
            raise GraphError(
                f"coeff is set {len(self.coefficients)} times for {self.bottom_count} bottoms: set it once per bottom",
                field="eltwise_param.coeff[0]",
            )
        if self.coefficients and self.operation == "PROD":
            raise GraphError(
                "coeff is set for operation PROD: only SUM supports coefficients", field="eltwise_param.coeff[0]"
            )

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        check_same_shapes(bottoms)
        return [bottoms[0]]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        if self.operation == "SUM":
            return [_weighted_sum(bottoms, self.coefficients or (1.0,) * len(bottoms))]
        if self.operation == "PROD" and self.stable:
            return [reduce(mul, bottoms)]
        from siamese_proto.layers.functional.element_wise import largest, quotient_product

        return [largest(*bottoms) if self.operation == "MAX" else quotient_product(bottoms)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        names = [f"{{{index}}}" for index in range(len(bottoms))]
        if self.operation == "MAX":
            return expression(call("largest", *names), "functional.element_wise.largest")
        if self.operation == "PROD":
            if self.stable:
                return expression(" * ".join(names))
            return expression(f"quotient_product(({', '.join(names)}))", "functional.element_wise.quotient_product")
        factors = self.coefficients or (1.0,) * len(bottoms)
        signs = {1.0: "", -1.0: "-"}
        terms = [signs.get(c, f"{literal(c)} * ") + name for name, c in zip(names, factors, strict=True)]
        return expression(" + ".join(terms).replace("+ -", "- "))

    def rows_independent(self) -> bool:
        return True

    def unused_fields(self) -> Sequence[str]:
        unused = ["eltwise_param.coeff[0]"] if self.coefficients and self.operation == "MAX" else []
        return unused + ["eltwise_param.stable_prod_grad"] * (not self.stable and self.operation != "PROD")

    def describe(self) -> str:
        return " ".join([self.operation, *(f"{coefficient:g}" for coefficient in self.coefficients)])


def _weighted_sum(bottoms: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    total = bottoms[0] if coefficients[0] == 1 else bottoms[0] * coefficients[0]
    for bottom, coefficient in zip(bottoms[1:], coefficients[1:], strict=True):
        total = total.add(bottom, alpha=coefficient)
    return total
