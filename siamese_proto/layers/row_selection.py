"""Layers that select rows of a batch. The number of rows of a Filter is known only when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from siamese_proto.errors import DataError, GraphError, quoted
from siamese_proto.graph.ir import Arity, Shape, exactly
from siamese_proto.layers.base import Layer, RunState, layer
from siamese_proto.layers.torch_source import Source, expression
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("Filter")
class Filter(Layer):
    """Keep the rows whose selector (the last bottom) is not 0; the gradient of other rows is 0.

    several (N, *K_i), selector (N) -> (M, *K_i) for each, M the number of rows kept; printed shapes have M = N
    Caffe: filter_layer.cpp
    """

    bottoms = Arity(2, None)
    bottom_names = ("input", "selector")
    tops = Arity(1, None)

    def read(self, message: schema.LayerParameter) -> None:
        self.tops = exactly(self.bottom_count - 1)
        self.labels = (self.bottom_count - 1,)
        self.selector = message.bottom[-1] if message.bottom else ""

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        *blobs, selector = bottoms
        if not selector or prod(selector[1:]) != 1:
            raise GraphError(
                f"the selector has shape {selector}, expected one number per row: (N) or (N, 1, 1, 1)",
                field=f"bottom[{len(blobs)}]",
            )
        for index, blob in enumerate(blobs):
            if not blob or blob[0] != selector[0]:
                raise GraphError(
                    f"bottom {index} has shape {blob} and the selector {selector}: "
                    "their first dimensions, the batch, must be equal",
                    field=f"bottom[{index}]",
                )
        return blobs

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        *blobs, selector = bottoms
        rows = selector.detach().flatten().nonzero().squeeze(1)  # (M,)
        return [blob.index_select(0, rows) for blob in blobs]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        *blobs, selector = (f"{{{index}}}" for index in range(len(bottoms)))
        return Source(tuple(f"{blob}[{selector}.flatten() != 0]" for blob in blobs))

    def describe(self) -> str:
        return f"by {quoted(self.selector)}"


@layer("BatchReindex")
class BatchReindex(Layer):
    """Select rows of bottom 0 by index, in any order and any number of times; their gradients add up.

    x (N, *K), indices (M) from 0 to N - 1 -> (M, *K)
    Fractions are cut off. On the CPU, raises DataError for an index outside the batch.
    Caffe: batch_reindex_layer.cpp
    """

    bottoms = exactly(2)
    bottom_names = ("input", "index")
    labels = (1,)

    def read(self, message: schema.LayerParameter) -> None:
        self.numbers = message.bottom[-1] if message.bottom else ""

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if not bottoms[0]:
            raise GraphError("bottom 0 has shape (), expected (N, ...): it has no rows", field="bottom[0]")
        if len(bottoms[1]) != 1:
            raise GraphError(f"bottom 1 has shape {bottoms[1]}, expected (M): one axis", field="bottom[1]")
        return [(bottoms[1][0], *bottoms[0][1:])]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        x, numbers = bottoms[0], bottoms[1].detach().long()
        try:
            return [x.index_select(0, numbers)]
        except (IndexError, RuntimeError):
            bad = numbers[(numbers < 0) | (numbers >= len(x))] if numbers.device.type == "cpu" else numbers[:0]
            if len(bad):
                raise DataError(
                    f"row number {int(bad[0])} is outside the batch of {len(x)}, 0 to {len(x) - 1}", layer=self.name
                ) from None
            raise

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        return expression("{0}.index_select(0, {1}.long())")

    def describe(self) -> str:
        return f"by {quoted(self.numbers)}"
