"""Normalize: rows or pixels brought to length 1, with or without a scale that is learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError, quoted
from siamese_proto.graph.ir import Arity, Filler, ParamRole, Shape
from siamese_proto.layers.base import Layer, RunState, layer, read_filler
from siamese_proto.layers.settings.user_settings import binary_settings
from siamese_proto.layers.torch_source import Source, lengthened, literal
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor

# Settings of a fork's layer, which divides as this one does and has rules of its own for the gradient.
OTHER_MEANINGS = ("fix_gradient", "bp_norm")
SCALED_NUMBER = 206  # of norm_param in the fork that it comes from
CHOICES = (
    "Normalize has meant several layers; here normalize_param { normalize_type: L2 or L1 across_spatial eps } divides "
    "by the length, and norm_param { across_spatial scale_filler channel_shared eps } learns a scale too"
)


@layer("Normalize")
class Normalize(Layer):
    """`y = x / sqrt(sum of x^2 + eps)`, the sum over the channels at each place.

    (N, C, *S) -> (N, C, *S) and, as a second top, the lengths that were divided by, (N, 1, *S)
    `across_spatial` takes the sum over all values of a row; the lengths are (N, 1, ..., 1) then. `normalize_type` L1
    divides by sum of |x| + eps.
    With `norm_param` in place of `normalize_param`: `y_c = s_c x_c / sqrt(sum of x^2 + eps)` with a scale s that is
    learned, (C,), or one for all channels, (), at first 1; there `across_spatial` is true unless it is given.
    Not in BVLC Caffe. Liu, Rabinovich, Berg: ParseNet (norm_param)
    """

    tops = Arity(1, 2)
    reads = ("normalize_param", "norm_param")

    def read(self, message: schema.LayerParameter) -> None:
        for path, raw in self.context.unknown:
            if path in self.reads and raw.name in OTHER_MEANINGS:
                text = f"{quoted(raw.name)} belongs to another Normalize. {CHOICES}"
                raise GraphError(text, field=f"{path}.{raw.name}")
        scaled = message.norm_param
        stored = binary_settings(message, SCALED_NUMBER)
        if stored is not None and not message.HasField("norm_param"):
            scaled = schema.NormParameter.FromString(stored)
        self.has_scale = stored is not None or message.HasField("norm_param")
        if self.has_scale and message.HasField("normalize_param"):
            raise GraphError("both normalize_param and norm_param are given; keep one", field="norm_param")
        settings = scaled if self.has_scale else message.normalize_param
        self.eps, self.across_spatial = settings.eps, settings.across_spatial
        self.kind = (
            "L2" if self.has_scale else schema.NormalizeParameter.Type.Name(message.normalize_param.normalize_type)
        )
        self.is_shared = scaled.channel_shared
        self.filler = read_filler(scaled.scale_filler) if scaled.HasField("scale_filler") else Filler(value=1.0)

    def params(self) -> Sequence[ParamRole]:
        return [ParamRole("scale", self.filler)] if self.has_scale else []

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if not self.has_scale:
            return []
        return [() if self.is_shared else (bottoms[0][1],)]

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms[0]) < 2:
            raise GraphError(
                f"a bottom of shape {bottoms[0]} has no channels: Normalize takes at least 2 axes, (N, C, ..)",
                field="bottom[0]",
            )
        rows, _, *places = bottoms[0]
        lengths = (rows, 1, *(1 if self.across_spatial else size for size in places))
        return [bottoms[0], lengths][: self.top_count]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        x = bottoms[0]
        axes = tuple(range(1, x.dim())) if self.across_spatial else (1,)
        if self.kind == "L1":
            length = x.abs().sum(axes, keepdim=True) + self.eps
        else:
            length = (x.square().sum(axes, keepdim=True) + self.eps).sqrt()
        y = x / length
        if params:
            y = y * params[0].reshape(-1, *(1,) * (x.dim() - 2))  # (C, 1, ..) or (1, 1, ..)
        return [y, length][: self.top_count]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        axes = str(tuple(range(1, len(bottoms[0])))) if self.across_spatial and len(bottoms[0]) > 2 else "1"
        size = f"{{0}}.abs().sum({axes}, keepdim=True) + {literal(self.eps)}"
        if self.kind == "L2":
            size = f"({{0}}.square().sum({axes}, keepdim=True) + {literal(self.eps)}).sqrt()"
        y = f"{{0}} / {size}" if self.kind == "L2" else f"{{0}} / ({size})"
        if not self.has_scale:
            return Source((y, size)[: self.top_count])
        scale = "{p0}" if self.is_shared else lengthened("{p0}", len(bottoms[0]) - 2)
        return Source(apart=(f"{y} * {scale}", size)[: self.top_count])

    def rows_independent(self) -> bool:
        return True

    def describe(self) -> str:
        return self.kind + " of rows" * self.across_spatial + " scaled" * self.has_scale
