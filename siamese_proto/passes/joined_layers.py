"""Layers over the joined batches of several towers.

Those that distinguish towers take, after the joined bottom, one blob of each tower, whose rows are that tower's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from siamese_proto.graph.ir import Arity, Shape
from siamese_proto.layers.activation import Dropout
from siamese_proto.layers.base import Layer, RunState
from siamese_proto.layers.inner_product import InnerProduct
from siamese_proto.layers.padding import ChannelDropout
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


class JoinBatches(Layer):
    """Concatenate the batches of several towers.

    (N_i, *K) each -> (sum of N_i, *K)
    """

    type = "JoinBatches"
    bottoms = Arity(2, None)

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [(sum(shape[0] for shape in bottoms), *bottoms[0][1:])]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        return [torch.cat(list(bottoms))]


class ByTower(Layer):
    """A layer that distinguishes towers: its bottoms after the first only give the number of rows of each."""

    bottoms = Arity(3, None)
    value_bottoms = 1


class PartBatches(ByTower):
    """Split a joined batch into those of the towers.

    (sum of N_i, *K), (N_i, ...) each -> (N_i, *K) each
    """

    type = "PartBatches"
    tops = Arity(2, None)

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [(shape[0], *bottoms[0][1:]) for shape in bottoms[1:]]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        return torch.split_with_sizes(bottoms[0], [tower.shape[0] for tower in bottoms[1:]])


class JoinedLayer(ByTower):
    """The same layer of several towers as one.

    (sum of N_i, *K), (N_i, ..) each -> as the tops of the layers
    """

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
    """Dropout, or ChannelDropout, in which each tower draws the mask that it draws by itself."""

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        from siamese_proto.layers.functional.draws import uniform

        x, first = bottoms[0], cast(Dropout | ChannelDropout, self.layers[0])
        by_channel = isinstance(first, ChannelDropout)
        shape = (*x.shape[1:2], *(1,) * (x.dim() - 2)) if by_channel else x.shape[1:]
        draws = [
            uniform(x, (tower.shape[0], *shape), run, layer.key)
            for layer, tower in zip(self.layers, bottoms[1:], strict=True)
        ]
        mask = torch.cat(draws) >= first.ratio
        return [x * mask.to(x.dtype).div_(1 - first.ratio)]


class JoinedInnerProduct(JoinedLayer):
    """InnerProduct whose bias gets the sum of the towers' gradients, each summed by itself as without joining.

    If two towers get gradients of opposite signs, for example under a contrastive loss, the sum is exactly 0. A single
    sum over all rows would leave its rounding error, which update rules that divide by the size of gradients enlarge.
    """

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        first = self.layers[0]
        if not params[1].requires_grad or not torch.is_grad_enabled():
            return first.forward(bottoms[:1], params, run)
        (product,) = first.forward(bottoms[:1], params[:1], run)
        rows = [tower.shape[0] for tower in bottoms[1:]]
        if len(set(rows)) == 1:  # then torch sums tower by tower, which takes less time
            by_tower = product.reshape(len(rows), rows[0], *product.shape[1:])
            bias = params[1].expand(len(rows), *(1,) * (product.dim() - 1), -1)
            return [(by_tower + bias).flatten(0, 1)]
        from siamese_proto.passes.per_tower_bias import add_bias

        return [add_bias(product, params[1], rows)]


# Custom subclasses may compute something else, so the type must match exactly.
_JOINED: dict[type[Layer], Callable[[Sequence[Layer]], Layer]] = {
    Dropout: JoinedDropout,
    ChannelDropout: JoinedDropout,
    InnerProduct: JoinedInnerProduct,
}


def joined_layer(layers: Sequence[Layer]) -> Layer | None:
    """Join equally set layers of different towers into one that distinguishes towers; None if there is no such layer.

    Needed for layers whose rows depend on the tower or on their position in it, such as random masks.
    """
    first = layers[0]
    if isinstance(first, InnerProduct) and (len(first.roles) < 2 or not first.rows_independent()):
        return None
    join = _JOINED.get(type(first))
    return join(layers) if join is not None else None
