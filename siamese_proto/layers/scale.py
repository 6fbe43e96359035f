"""Scale and Bias: a blob multiplied by, or added to, a smaller one along some of its axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Arity, Filler, ParamRole, Shape
from siamese_proto.layers.base import Layer, RunState, canonical_axis, layer, read_filler
from siamese_proto.layers.torch_source import Source, by_module, call, lengthened
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


class Spread(Layer):
    """Base class of Scale and Bias: a factor or term, learned or bottom 1, broadcast over bottom 0 from `axis` on."""

    bottoms = Arity(1, 2)

    def read(self, message: schema.LayerParameter) -> None:
        settings: schema.ScaleParameter | schema.BiasParameter = getattr(message, self.reads[0])
        self.axis, self.axis_count = settings.axis, settings.num_axes
        self.is_learned = self.bottom_count == 1
        self.written = [f"{self.reads[0]}.{name}" for name in ("filler", "num_axes") if settings.HasField(name)]
        if self.is_learned and self.axis_count < -1:
            raise GraphError(
                f"num_axes {self.axis_count} must be at least 0, or -1 for all axes that follow",
                field=f"{self.reads[0]}.num_axes",
            )

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        x = bottoms[0]
        if not self.is_learned and not bottoms[1] and not self.params():
            return [x]  # one number for all: the axis has no effect
        axis = canonical_axis(self.axis, x, f"{self.reads[0]}.axis")
        if self.is_learned and axis + self.axis_count > len(x):
            raise GraphError(
                f"axis {self.axis} and num_axes {self.axis_count} exceed a bottom of shape {x}",
                field=f"{self.reads[0]}.num_axes",
            )
        if not self.is_learned and x[axis : axis + len(bottoms[1])] != bottoms[1]:
            raise GraphError(
                f"bottom 1 of shape {bottoms[1]} does not match bottom 0 of shape {x} from axis {self.axis} on",
                field="bottom[1]",
            )
        return [x]

    def unused_fields(self) -> Sequence[str]:
        return () if self.is_learned else self.written

    def rows_independent(self) -> bool:
        # Whether a second bottom has rows depends on its shape.
        return self.is_learned and (self.axis > 0 or self.axis_count == 0)

    def spread_shape(self, bottoms: Sequence[Shape]) -> Shape:
        """Return the shape of the factor or term."""
        if not self.is_learned:
            return bottoms[1]
        axis = canonical_axis(self.axis, bottoms[0])
        return bottoms[0][axis:] if self.axis_count == -1 else bottoms[0][axis : axis + self.axis_count]

    def aligned(self, spread: Tensor, x: Tensor) -> Tensor:
        """Append axes of size 1 to the factor or term, so that it broadcasts from `axis` of x on."""
        if not spread.dim():
            return spread
        appended = x.dim() - canonical_axis(self.axis, x.shape) - spread.dim()
        return spread.reshape(*spread.shape, *(1,) * appended)

    def describe(self) -> str:
        if self.is_learned and self.axis_count == 0:
            return "one for all"
        return f"from axis {self.axis}" if not self.is_learned or self.axis_count != 1 else f"axis {self.axis}"


@layer("Scale")
class Scale(Spread):
    """`y = s x`, with `bias_term` `y = s x + b`; s and b have the axes of x from `axis` on, `num_axes` of them.

    x (*A, *B, *C) and s (*B), learned or the second bottom -> (*A, *B, *C)
    with one bottom, scale (*B), 1 by default; bias (*B).  num_axes 0: one number for all; -1: all axes that follow
    Caffe: scale_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        super().read(message)
        settings = message.scale_param
        self.has_bias = settings.bias_term
        self.roles = []
        if self.is_learned:
            one = Filler("constant", 1.0)
            self.roles.append(ParamRole("scale", read_filler(settings.filler) if settings.HasField("filler") else one))
        if self.has_bias:
            self.roles.append(ParamRole("bias", read_filler(settings.bias_filler)))

    def params(self) -> Sequence[ParamRole]:
        return self.roles

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [self.spread_shape(bottoms)] * len(self.roles)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        x = bottoms[0]
        factor = self.aligned(params[0] if self.is_learned else bottoms[1], x)
        if not self.has_bias:
            return [x * factor]
        return [self.aligned(params[-1], x).addcmul(x, factor)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        spread = self.spread_shape(bottoms)
        axis = canonical_axis(self.axis, bottoms[0]) if spread else 0
        appended = len(bottoms[0]) - axis - len(spread) if spread else 0
        factor = lengthened("{p0}" if self.is_learned else "{1}", appended)
        bias = lengthened(f"{{p{len(self.roles) - 1}}}", appended)
        apart = f"torch.addcmul({bias}, {{0}}, {factor})" if self.has_bias else f"{{0}} * {factor}"
        if not self.is_learned:
            return Source((apart,), apart=(apart,))
        settings = {"axis": (axis, 1), "bias": (self.has_bias, False)}
        module, names = call("Scale", *spread, **settings), ("scale", "bias")[: len(self.roles)]
        return by_module(module if spread else "", names, apart, ["functional.normalization.Scale"] if spread else [])

    def describe(self) -> str:
        return super().describe() + (" + bias" if self.has_bias else "")


@layer("Bias")
class Bias(Spread):
    """`y = x + b`; b has the axes of x from `axis` on, `num_axes` of them.

    x (*A, *B, *C) and b (*B), learned or the second bottom -> (*A, *B, *C)
    with one bottom, bias (*B).  num_axes 0: one number for all; -1: all axes that follow
    Caffe: bias_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        super().read(message)
        self.roles = [ParamRole("bias", read_filler(message.bias_param.filler))] if self.is_learned else []

    def params(self) -> Sequence[ParamRole]:
        return self.roles

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [self.spread_shape(bottoms)] * len(self.roles)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [bottoms[0] + self.aligned(params[0] if self.is_learned else bottoms[1], bottoms[0])]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        spread = self.spread_shape(bottoms)
        appended = len(bottoms[0]) - canonical_axis(self.axis, bottoms[0]) - len(spread) if spread else 0
        sum_of_both = "{0} + " + lengthened("{p0}" if self.is_learned else "{1}", appended)
        return Source((sum_of_both,), apart=(sum_of_both,))
