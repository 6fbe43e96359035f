"""Distance: distances and similarities of the rows of two blobs, for example the two embeddings of a twin."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, cast

from siamese_proto.graph.ir import Shape, exactly
from siamese_proto.layers.base import Layer, RunState, layer
from siamese_proto.layers.checks import check_batches, check_equal_features
from siamese_proto.layers.torch_source import Source, expression
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_NORM = 1e-8  # lower bound of the lengths in a cosine


@layer("Distance")
class Distance(Layer):
    """One number for each pair of rows a and b, by `metric`.

    a (N, *K), b (N, *K) or another shape with as many values per row -> (N, 1)
    EUCLIDEAN: sqrt(sum of (a - b)^2), whose gradient at 0 is 0. SQUARED: sum of (a - b)^2. L1: sum of |a - b|.
    EXP_L1: exp(-sum of |a - b|), from 0 to 1. COSINE_SIMILARITY: a b / (|a| |b|), lengths are at least 1e-8.
    COSINE_DISTANCE: 1 - COSINE_SIMILARITY. DOT: a b.
    Not in BVLC Caffe.
    """

    bottoms = exactly(2)
    bottom_names = ("first features", "second features")

    def read(self, message: schema.LayerParameter) -> None:
        self.metric = schema.DistanceParameter.Metric.Name(message.distance_param.metric)

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        check_batches(bottoms, 1)
        check_equal_features(bottoms)
        return [(bottoms[0][0], 1)]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        a, b = (bottom.reshape(bottom.shape[0], -1) for bottom in bottoms)  # (N, K)
        return [measure(self.metric, a, b).unsqueeze(1)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        a, b = (f"{{{i}}}" + ".flatten(1)" * (len(shape) > 2) for i, shape in enumerate(bottoms))
        if self.metric.startswith("COSINE"):
            cosine = f"functional.cosine_similarity({a}, {b}, eps={SMALLEST_NORM})[:, None]"
            return expression(f"1 - {cosine}" if self.metric == "COSINE_DISTANCE" else cosine)
        forms = {
            "DOT": f"({a} * {b}).sum(1, keepdim=True)",
            "SQUARED": f"({a} - {b}).square().sum(1, keepdim=True)",
            "EUCLIDEAN": f"torch.linalg.vector_norm({a} - {b}, dim=1, keepdim=True)",
            "L1": f"({a} - {b}).abs().sum(1, keepdim=True)",
            "EXP_L1": f"torch.exp(-({a} - {b}).abs().sum(1, keepdim=True))",
        }
        return expression(forms[self.metric])

    def rows_independent(self) -> bool:
        return True

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return prod(bottoms[0])

    def describe(self) -> str:
        return self.metric.lower().replace("_", " ")


def measure(metric: str, a: Tensor, b: Tensor) -> Tensor:
    """Return the metric of each pair of rows, (N,), of a and b, both (N, K)."""
    import torch
    from torch import Tensor
    from torch.nn import functional

    if metric == "DOT":
        return (a * b).sum(1)
    if metric.startswith("COSINE"):
        similarity = functional.cosine_similarity(a, b, dim=1, eps=SMALLEST_NORM)
        return 1 - similarity if metric == "COSINE_DISTANCE" else similarity
    difference = a - b
    if metric == "SQUARED":
        return difference.square().sum(1)
    if metric == "EUCLIDEAN":
        return cast(Tensor, torch.linalg.vector_norm(difference, dim=1))
    distance = difference.abs().sum(1)
    return (-distance).exp() if metric == "EXP_L1" else distance
