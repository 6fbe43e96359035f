"""What layers become when the towers they stand in run as one: parts of a joined batch that are still told apart.

Each takes, behind the joined bottom, a blob of every tower, which tells how many rows are that tower's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.graph.ir import Arity, Shape
from siamese_proto.layers.base import Layer, RunState
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


class JoinedLayer(Layer):
    """The layers of a row of towers as one.

    (sum of N_i, *K), (N_i, ..) each -> as the layers' own tops
    """

    bottoms = Arity(3, None)

    def __init__(self, layers: Sequence[Layer]) -> None:
        first = layers[0]
        super().__init__(schema.LayerParameter(name=first.name, type=first.type), first.context)
        self.layers = layers

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return self.layers[0].top_shapes(bottoms[:1])

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return self.layers[0].multiply_adds(bottoms[:1], tops)

    def describe(self) -> str:
        return self.layers[0].describe()


class JoinedDropout(JoinedLayer):
    """Dropout whose every tower draws what it would draw by itself. Of whole channels with `by_channel`."""

    def __init__(self, layers: Sequence[Layer], ratio: float, *, by_channel: bool = False) -> None:
        super().__init__(layers)
        self.ratio = ratio
        self.by_channel = by_channel

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        from siamese_proto.layers.functional.draws import uniform

        x = bottoms[0]
        shape = (*x.shape[1:2], *(1,) * (x.dim() - 2)) if self.by_channel else x.shape[1:]
        drawn = [
            uniform(x, (part.shape[0], *shape), run, layer.key)
            for layer, part in zip(self.layers, bottoms[1:], strict=True)
        ]
        kept = torch.cat(drawn) >= self.ratio
        return [x * kept.to(x.dtype).div_(1 - self.ratio)]


class JoinedProduct(JoinedLayer):
    """InnerProduct whose bias gets the sum of the towers' gradients, each summed by itself as without joining.

    Where two towers get gradients of opposite signs, under a contrastive loss say, the sum is 0 to the last bit. One
    sum over all rows would leave its rounding, which rules that divide by the size of gradients make large. Under other
    rules one sum will do: it takes less time, which small nets notice.
    """

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        first = self.layers[0]
        if not run.sums_apart or not params[1].requires_grad or not torch.is_grad_enabled():
            return first.forward(bottoms[:1], params, run)
        (product,) = first.forward(bottoms[:1], params[:1], run)
        rows = [part.shape[0] for part in bottoms[1:]]
        if len(set(rows)) == 1:  # then torch sums tower by tower by itself, which small nets notice
            parted = product.reshape(len(rows), rows[0], *product.shape[1:])
            bias = params[1].expand(len(rows), *(1,) * (product.dim() - 1), -1)
            return [(parted + bias).flatten(0, 1)]
        from siamese_proto.layers.functional.bias import add_bias

        return [add_bias(product, params[1], rows)]
