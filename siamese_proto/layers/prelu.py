"""ReLU whose negative side has a learned slope (He, Zhang, Ren and Sun 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Filler, ParamRole, Shape
from siamese_proto.layers.base import RunState, layer, read_filler
from siamese_proto.layers.element_wise import ElementWise
from siamese_proto.layers.torch_source import Source, by_module
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("PReLU")
class PReLU(ElementWise):
    """`y = max(x, 0) + a_c min(x, 0)`, c the channel; the gradient at 0 is that of the negative side.

    (N, C, *S) -> (N, C, *S);  slope (C,), with `channel_shared` (), 0.25 by default
    Caffe: prelu_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.prelu_param
        self.is_shared = settings.channel_shared
        filler = read_filler(settings.filler) if settings.HasField("filler") else Filler("constant", 0.25)
        self.roles = [ParamRole("slope", filler)]

    def params(self) -> Sequence[ParamRole]:
        return self.roles

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [() if self.is_shared else (bottoms[0][1],)]

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms[0]) < 2:
            raise GraphError(
                f"a bottom of shape {bottoms[0]} has no channels: PReLU takes at least 2 axes, (N, C, ..)",
                field="bottom[0]",
            )
        return [bottoms[0]]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from torch.nn import functional

        return [functional.prelu(bottoms[0], params[0].reshape(-1))]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        apart = "functional.prelu({0}, {p0}.reshape(-1))"
        return by_module("" if self.is_shared else f"nn.PReLU({bottoms[0][1]})", ["weight"], apart)

    def describe(self) -> str:
        return "one slope for all channels" if self.is_shared else ""
