"""How far two features lie apart: by a formula, or by what a net has learned of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy
import torch

from siamese_proto.graph.comparison import Comparison, Metric, ScoreKind
from siamese_proto.layers.distance import measure
from siamese_proto.net.net import Net
from siamese_proto.net.part import Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.floating]

_LAYER_METRIC = {"EUCLIDEAN": "EUCLIDEAN", "SQUARED": "SQUARED", "L1": "L1", "COSINE": "COSINE_DISTANCE", "DOT": "DOT"}
_SKLEARN = {"EUCLIDEAN": "euclidean", "SQUARED": "sqeuclidean", "L1": "manhattan", "COSINE": "cosine"}
TITLES: dict[Metric, str] = {
    "EUCLIDEAN": "Euclidean distance",
    "SQUARED": "squared Euclidean distance",
    "L1": "L1 distance",
    "COSINE": "cosine distance",
    "DOT": "negative dot product",
    "LEARNED": "learned distance, 1 - P(same)",
}


@dataclass(frozen=True)
class PlainMetric:
    """A distance by formula; the smaller, the more alike. Computed in double precision."""

    kind: Metric

    def rows(self, first: Floats, second: Floats) -> Floats:
        """(N, K), (N, K) -> (N,), row by row."""
        one, other = (torch.from_numpy(numpy.asarray(side, numpy.float64)) for side in (first, second))
        found: Floats = measure(_LAYER_METRIC[self.kind], one, other).numpy()
        return -found if self.kind == "DOT" else found

    def matrix(self, first: Floats, second: Floats) -> Floats:
        """(N, K), (M, K) -> (N, M), each with each."""
        from sklearn.metrics import pairwise_distances

        one, other = (numpy.asarray(side, numpy.float64) for side in (first, second))
        found: Floats = -(one @ other.T) if self.kind == "DOT" else self._pairwise(pairwise_distances, one, other)
        return found

    def _pairwise(self, pairwise: Any, one: Floats, other: Floats) -> Floats:
        found: Floats = pairwise(one, other, metric=_SKLEARN[self.kind])
        return found


class LearnedMetric:
    """1 - P(same), where the net says how probable it is that two features are of one class."""

    kind: Metric = "LEARNED"

    def __init__(self, net: Net, comparison: Comparison) -> None:
        assert comparison.score is not None  # there is one wherever the metric is learned
        self._part = Part(net, comparison.features, [comparison.score])
        self._kind = comparison.score_kind
        self._shapes = [blob.shape[1:] if blob.shape else () for blob in comparison.features]
        self._one_is_same = comparison.one_is_same

    def rows(self, first: Floats, second: Floats) -> Floats:
        """(N, K), (N, K) -> (N,), row by row."""
        found = []
        for begin in range(0, len(first), self._part.batch):
            sides = [
                torch.from_numpy(numpy.ascontiguousarray(side[begin : begin + self._part.batch], numpy.float32))
                for side in (first, second)
            ]
            shaped = [side.reshape(-1, *shape) for side, shape in zip(sides, self._shapes, strict=True)]
            found.append(learned_distance(self._part(*shaped)[0], self._kind, one_is_same=self._one_is_same))
        return numpy.concatenate(found) if found else numpy.empty(0)

    def matrix(self, first: Floats, second: Floats) -> Floats:
        """(N, K), (M, K) -> (N, M), each with each."""
        return numpy.stack([self.rows(numpy.broadcast_to(row, second.shape), second) for row in first])


def learned_distance(score: torch.Tensor, kind: ScoreKind, *, one_is_same: bool = True) -> Floats:
    """The chance that a pair is not of one class, (N,), of scores (N, 1) or (N, 2); in double precision."""
    values = score.detach().double().cpu().reshape(len(score), -1)
    if kind == "PROBABILITY":
        different = 1 - values[:, -1]
        return (different if one_is_same else 1 - different).numpy()
    logit = values[:, 1] - values[:, 0] if kind == "SOFTMAX" else values[:, 0]
    found: Floats = (-logit if one_is_same else logit).sigmoid().numpy()
    return found
