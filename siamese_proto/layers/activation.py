"""Functions of one number, applied to each element, and Dropout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Shape
from siamese_proto.layers.base import RunState, layer
from siamese_proto.layers.checks import refuse_in_place
from siamese_proto.layers.element_wise import ElementWise, ReadsBottomBack
from siamese_proto.layers.torch_source import Source, by_module, call, expression, literal
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("ReLU")
class ReLU(ElementWise):
    """`y = max(x, 0) + negative_slope min(x, 0)`; the gradient at 0 is that of the negative side.

    (*S) -> (*S)
    Caffe: relu_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        self.negative_slope = message.relu_param.negative_slope

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        x = bottoms[0]
        if not self.negative_slope:
            return [x.relu_() if self.overwrites else x.relu()]
        from torch.nn import functional

        # With a negative slope, the top does not show the sign of the bottom, which torch needs in the backward pass.
        return [functional.leaky_relu(x, self.negative_slope, inplace=self.overwrites and self.negative_slope > 0)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        if self.negative_slope:
            return by_module(call("nn.LeakyReLU", self.negative_slope))
        return by_module("nn.ReLU()")

    def describe(self) -> str:
        return f"slope {self.negative_slope:g}" if self.negative_slope else ""


@layer("Sigmoid")
class Sigmoid(ElementWise):
    """`y = 1 / (1 + exp(-x))`.

    (*S) -> (*S)
    Caffe: sigmoid_layer.cpp
    """

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [bottoms[0].sigmoid_() if self.overwrites else bottoms[0].sigmoid()]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        return by_module("nn.Sigmoid()")


@layer("TanH")
class TanH(ElementWise):
    """`y = (exp(2 x) - 1) / (exp(2 x) + 1)`.

    (*S) -> (*S)
    Caffe: tanh_layer.cpp
    """

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [bottoms[0].tanh_() if self.overwrites else bottoms[0].tanh()]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        return by_module("nn.Tanh()")


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

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        return expression("{0}.abs()")


@layer("Power")
class Power(ElementWise):
    """`y = (shift + scale x) ^ power`; if power or scale is 0, the constant 1 or shift ^ power.

    (*S) -> (*S)
    Caffe's gradient for shift 0 is `power y / x`, which is NaN at x = 0; here it is the derivative.
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

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        if self.power == 0 or self.scale == 0:
            constant = self.shift**self.power if self.power else 1.0
            return expression(f"{{0}}.pow(0.0) * {literal(constant)}" if constant != 1 else "{0}.pow(0.0)")
        y = "{0}" if self.scale == 1 else f"{{0}} * {literal(self.scale)}"
        y += f" + {literal(self.shift)}" if self.shift else ""
        return expression(y if self.power == 1 else f"({y}).pow({literal(self.power)})".replace("({0})", "{0}"))

    def describe(self) -> str:
        inner = linear(self.scale, self.shift)
        return inner if self.power == 1 else f"({inner}) ^ {self.power:g}"


@layer("ELU")
class ELU(ElementWise):
    """`y = x` where x > 0, `alpha (exp(x) - 1)` elsewhere; the gradient at 0 is alpha.

    (*S) -> (*S)
    Caffe: elu_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        self.alpha = message.elu_param.alpha

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from torch.nn import functional

        return [functional.elu(bottoms[0], self.alpha)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        return by_module(call("nn.ELU", alpha=(self.alpha, 1.0)))

    def describe(self) -> str:
        return f"alpha {self.alpha:g}"


@layer("Swish")
class Swish(ElementWise):
    """`y = x / (1 + exp(-beta x))`.

    (*S) -> (*S)
    Caffe: swish_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        self.beta = message.swish_param.beta

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from torch.nn import functional

        x = bottoms[0]
        return [functional.silu(x) if self.beta == 1 else x * (x * self.beta).sigmoid()]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        if self.beta == 1:
            return by_module("nn.SiLU()")
        return expression(f"{{0}} * ({{0}} * {literal(self.beta)}).sigmoid()")

    def describe(self) -> str:
        return f"beta {self.beta:g}" if self.beta != 1 else ""


@layer("Clip")
class Clip(ReadsBottomBack):
    """`y = max(min, min(max, x))`, both of which are required; the gradient at min and max is that of `y = x`.

    (*S) -> (*S)
    If min is greater than max, y is min. In place the gradient passes everywhere, because Caffe then reads y for x.
    Caffe: clip_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.clip_param
        for name in ("min", "max"):
            if not settings.HasField(name):
                raise GraphError(f"{name} is missing: Clip needs both min and max", field="clip_param")
        self.low, self.high = settings.min, settings.max

    def value(self, x: Tensor) -> Tensor:
        if self.low > self.high:  # torch's clamp would give the maximum
            return x.clamp(max=self.high).clamp(min=self.low)
        return x.clamp(self.low, self.high)

    def slope(self, y: Tensor) -> Tensor:
        return ((y >= self.low) & (y <= self.high)).to(y.dtype)

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        low, high = literal(self.low), literal(self.high)
        if self.is_in_place:
            return expression(f"clip_in_place({{0}}, {low}, {high})", "functional.element_wise.clip_in_place")
        if self.low > self.high:
            return expression(f"{{0}}.clamp(max={high}).clamp(min={low})")
        return expression(f"{{0}}.clamp({low}, {high})")

    def describe(self) -> str:
        return f"{self.low:g} to {self.high:g}"


@layer("Threshold")
class Threshold(ElementWise):
    """`y = 1` where x > threshold, 0 elsewhere; no gradient.

    (*S) -> (*S)
    Caffe: threshold_layer.cpp
    """

    differentiable = False

    def read(self, message: schema.LayerParameter) -> None:
        self.threshold = message.threshold_param.threshold

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [(bottoms[0] > self.threshold).to(bottoms[0].dtype)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        return expression(f"({{0}} > {literal(self.threshold)}).to({{0}}.dtype)")

    def describe(self) -> str:
        return f"> {self.threshold:g}"


@layer("BNLL")
class BNLL(ReadsBottomBack):
    """`y = log(1 + exp(x))`, the binomial normal log likelihood.

    (*S) -> (*S)
    In place the gradient is the one at y, because Caffe then reads y for x.
    Caffe: bnll_layer.cpp
    """

    def value(self, x: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.softplus(x, threshold=50)  # as in Caffe; torch's own 20 is coarse for float64

    def slope(self, y: Tensor) -> Tensor:
        return y.sigmoid()

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        if self.is_in_place:
            return expression("softplus_in_place({0})", "functional.element_wise.softplus_in_place")
        return by_module("nn.Softplus(threshold=50)")


@layer("Exp")
class Exp(ElementWise):
    """`y = base ^ (shift + scale x)`; base -1 means e.

    (*S) -> (*S)
    Caffe: exp_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.exp_param
        self.base, self.scale, self.shift = settings.base, settings.scale, settings.shift
        self.log_base = read_log_base(self.base, "exp_param.base")

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        inner = self.log_base * self.scale
        y = (bottoms[0] if inner == 1 else bottoms[0] * inner).exp()
        return [y * math.exp(self.log_base * self.shift) if self.shift else y]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        inner = self.log_base * self.scale
        y = "{0}.exp()" if inner == 1 else f"({{0}} * {literal(inner)}).exp()"
        return expression(y + (f" * {literal(math.exp(self.log_base * self.shift))}" if self.shift else ""))

    def describe(self) -> str:
        base = "e" if self.base == -1 else f"{self.base:g}"
        return f"{base} ^ ({linear(self.scale, self.shift)})"


@layer("Log")
class Log(ElementWise):
    """`y = log(shift + scale x) / log(base)`; base -1 means e.

    (*S) -> (*S)
    Caffe: log_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.log_param
        self.base, self.scale, self.shift = settings.base, settings.scale, settings.shift
        self.log_base = read_log_base(self.base, "log_param.base")
        if self.log_base == 0:
            raise GraphError("base 1 has no logarithm: use another base, or -1 for e", field="log_param.base")

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        y = bottoms[0] * self.scale if self.scale != 1 else bottoms[0]
        y = (y + self.shift if self.shift else y).log()
        return [y / self.log_base if self.log_base != 1 else y]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        y = "{0}" if self.scale == 1 else f"{{0}} * {literal(self.scale)}"
        y += f" + {literal(self.shift)}" if self.shift else ""
        y = f"({y}).log()".replace("({0})", "{0}")
        return expression(y if self.log_base == 1 else f"{y} / {literal(self.log_base)}")

    def describe(self) -> str:
        return ("log" if self.base == -1 else f"log base {self.base:g}") + f" ({linear(self.scale, self.shift)})"


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
        from siamese_proto.layers.functional.draws import uniform

        mask = uniform(x, x.shape, run, self.key) >= self.ratio
        factors = mask.to(x.dtype).div_(1 - self.ratio)
        return [x.mul_(factors) if self.overwrites else x * factors]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        if not self.has_own_phase:  # the module follows train() and eval() of the net
            return by_module(call("nn.Dropout", self.ratio))
        if self.phase == "TEST":
            return expression("{0}")
        return expression(call("functional.dropout", "{0}", self.ratio, training=(True, None)))

    def rows_independent(self) -> bool:
        # The mask of a row depends on its index in the batch and on the layer's name.
        return self.phase == "TEST" or self.ratio == 0

    def describe(self) -> str:
        return f"{self.ratio:g}"


def linear(scale: float, shift: float) -> str:
    """Return the text of `shift + scale x`: `1 + 2 x`."""
    return (f"{shift:g} + " if shift else "") + f"{scale:g} x"


def read_log_base(base: float, field: str) -> float:
    """Return the logarithm of a base, 1 for base -1. Raises GraphError for other bases that are not above 0."""
    if base == -1:
        return 1.0
    if not 0 < base < math.inf:
        raise GraphError(f"base {base:g} must be greater than 0, or -1 for e", field=field)
    return math.log(base)
