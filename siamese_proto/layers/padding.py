"""Layers of other frameworks that Caffe lacks: Padding and ChannelDropout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Shape
from siamese_proto.layers.base import Layer, RunState, layer
from siamese_proto.layers.torch_source import Source, by_module, call, expression
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("Padding")
class Padding(Layer):
    """Add a border to images: mirrored at the edge (REFLECT), the edge repeated (REPLICATE), or `value` (CONSTANT).

    (N, C, H, W) -> (N, C, H + 2 pad_h, W + 2 pad_w);  `pad` is the default of both
    REFLECT does not repeat the edge: 1 2 3 with a border of 2 is 3 2 1 2 3 2 1, so the border is less than the side.
    Not in BVLC Caffe.
    """

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.padding_param
        self.mode = schema.PaddingParameter.Mode.Name(settings.mode)
        self.height = settings.pad_h if settings.HasField("pad_h") else settings.pad
        self.width = settings.pad_w if settings.HasField("pad_w") else settings.pad
        self.value = settings.value
        self.unused = ["padding_param.value"] if self.mode != "CONSTANT" and settings.HasField("value") else []

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms[0]) != 4:
            raise GraphError(
                f"a bottom of shape {bottoms[0]} has {len(bottoms[0])} axes: Padding takes 4, (N, C, H, W)",
                field="bottom[0]",
            )
        rows, channels, height, width = bottoms[0]
        for border, side, name in ((self.height, height, "height"), (self.width, width, "width")):
            if self.mode == "REFLECT" and border >= side:
                raise GraphError(
                    f"a reflected border of {border} must be less than the {name} {side} of a bottom of shape "
                    f"{bottoms[0]}",
                    field="padding_param",
                )
        return [(rows, channels, height + 2 * self.height, width + 2 * self.width)]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from torch.nn import functional

        border = [self.width, self.width, self.height, self.height]
        if self.mode == "CONSTANT":
            return [functional.pad(bottoms[0], border, value=self.value)]
        return [functional.pad(bottoms[0], border, mode=self.mode.lower())]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        border = f"({self.width}, {self.width}, {self.height}, {self.height})"
        if self.mode == "CONSTANT":
            return expression(call("functional.pad", "{0}", border, value=(self.value, 0.0)))
        return expression(call("functional.pad", "{0}", border, mode=(self.mode.lower(), None)))

    def rows_independent(self) -> bool:
        return True

    def unused_fields(self) -> Sequence[str]:
        return self.unused

    def describe(self) -> str:
        return f"{self.height}x{self.width} {self.mode.lower()}"


@layer("ChannelDropout")
class ChannelDropout(Layer):
    """TRAIN: each channel of each row is 0 with probability p, and multiplied by 1 / (1 - p) otherwise. TEST: `y = x`.

    (N, C, *S) -> (N, C, *S)
    Not in BVLC Caffe. Tompson et al.: Efficient Object Localization Using Convolutional Networks
    """

    reads = ("dropout_param",)

    def read(self, message: schema.LayerParameter) -> None:
        self.ratio = message.dropout_param.dropout_ratio
        if not 0 <= self.ratio < 1:
            raise GraphError(
                f"dropout_ratio {self.ratio:g} must be at least 0 and less than 1", field="dropout_param.dropout_ratio"
            )

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if len(bottoms[0]) < 2:
            raise GraphError(
                f"a bottom of shape {bottoms[0]} has no channels: ChannelDropout takes at least 2 axes, (N, C, ..)",
                field="bottom[0]",
            )
        return [bottoms[0]]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        x = bottoms[0]
        if self.phase == "TEST" or self.ratio == 0:
            return [x]
        from siamese_proto.layers.functional.draws import uniform

        shape = (*x.shape[:2], *(1,) * (x.dim() - 2))  # (N, C, 1, ..)
        mask = uniform(x, shape, run, self.key) >= self.ratio
        return [x * mask.to(x.dtype).div_(1 - self.ratio)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        kinds = {2: "Dropout", 4: "Dropout2d", 5: "Dropout3d"}  # torch reads three axes as an image without a batch
        if not self.has_own_phase and len(bottoms[0]) in kinds:  # the module follows train() and eval() of the net
            return by_module(call(f"nn.{kinds[len(bottoms[0])]}", self.ratio))
        if self.has_own_phase and self.phase == "TEST":
            return expression("{0}")
        channels = f"torch.ones_like({{0}}[:, :{', :1' * (len(bottoms[0]) - 2)}])"
        training = "True" if self.has_own_phase else "self.training"
        return expression(f"{{0}} * functional.dropout({channels}, {self.ratio!r}, training={training})")

    def rows_independent(self) -> bool:
        # The mask of a row depends on its index in the batch and on the layer's name.
        return self.phase == "TEST" or self.ratio == 0

    def describe(self) -> str:
        return f"{self.ratio:g}"
