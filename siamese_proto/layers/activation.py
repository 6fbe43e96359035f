"""Functions of one number, applied to each element, and Dropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Shape
from siamese_proto.layers.base import Layer, RunState, layer
from siamese_proto.layers.checks import refuse_in_place
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


class ElementWise(Layer):
    """A layer whose top has the shape of its bottom, each element computed from the one at its place."""

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [bottoms[0]]

    def rows_independent(self) -> bool:
        return True


@layer("ReLU")
class ReLU(ElementWise):
    """`y = max(x, 0) + negative_slope min(x, 0)`; the gradient at 0 is that of the negative side.

    (*S) -> (*S)
    Caffe: relu_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        self.negative_slope = message.relu_param.negative_slope

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from torch.nn import functional

        if self.negative_slope:
            return [functional.leaky_relu(bottoms[0], self.negative_slope)]
        return [bottoms[0].relu()]

    def describe(self) -> str:
        return f"slope {self.negative_slope:g}" if self.negative_slope else ""


@layer("Sigmoid")
class Sigmoid(ElementWise):
    """`y = 1 / (1 + exp(-x))`.

    (*S) -> (*S)
    Caffe: sigmoid_layer.cpp
    """

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [bottoms[0].sigmoid()]


@layer("TanH")
class TanH(ElementWise):
    """`y = (exp(2 x) - 1) / (exp(2 x) + 1)`.

    (*S) -> (*S)
    Caffe: tanh_layer.cpp
    """

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [bottoms[0].tanh()]


@layer("AbsVal")
class AbsVal(ElementWise):
    """`y = |x|`; the gradient at 0 is 0.

    (*S) -> (*S)
    Caffe: absval_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        refuse_in_place(message)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [bottoms[0].abs()]


@layer("Power")
class Power(ElementWise):
    """`y = (shift + scale x) ^ power`; a constant, 1 or shift ^ power, where power or scale is 0.

    (*S) -> (*S)
    Where shift is 0 Caffe's gradient is `power y / x`, which is no number at x = 0; here it is the derivative.
    Caffe: power_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.power_param
        self.power, self.scale, self.shift = settings.power, settings.scale, settings.shift

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        if self.power == 0 or self.scale == 0:
            constant = bottoms[0].pow(0.0)  # 1 everywhere, with gradient 0
            return [constant * bottoms[0].new_full((), self.shift).pow(self.power) if self.power else constant]
        y = bottoms[0]
        if self.scale != 1:
            y = y * self.scale
        if self.shift != 0:
            y = y + self.shift
        return [y.pow(self.power) if self.power != 1 else y]

    def describe(self) -> str:
        shift = f"{self.shift:g} + " if self.shift else ""
        inner = f"{shift}{self.scale:g} x"
        return inner if self.power == 1 else f"({inner}) ^ {self.power:g}"


@layer("Dropout")
class Dropout(ElementWise):
    """TRAIN: each element is 0 with probability p, and multiplied by 1 / (1 - p) otherwise. TEST: `y = x`.

    (*S) -> (*S)
    Caffe: dropout_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        self.ratio = message.dropout_param.dropout_ratio
        if not 0 <= self.ratio < 1:
            raise GraphError(
                f"dropout_ratio {self.ratio:g} must be at least 0 and less than 1", field="dropout_param.dropout_ratio"
            )

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        x = bottoms[0]
        if self.phase == "TEST" or self.ratio == 0:
            return [x]
        # Filled in the order of rows, whatever layout x has in memory: a layout must not change what is drawn.
        mask = x.new_empty(x.shape).bernoulli_(1 - self.ratio, generator=run.generator(self.name, x.device))
        return [x * mask.div_(1 - self.ratio)]

    def rows_independent(self) -> bool:
        # The mask of a row depends on its place in the batch and on the layer's name.
        return self.phase == "TEST" or self.ratio == 0

    def describe(self) -> str:
        return f"{self.ratio:g}"
