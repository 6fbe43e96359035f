"""Are two pictures of one class? How well the distance of their features answers that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError, quoted

if TYPE_CHECKING:
    import numpy
    import torch
    from numpy.typing import NDArray

    from siamese_proto.net import Net


@dataclass(frozen=True)
class Verification:
    """The verdicts `distance < threshold` on pairs that the threshold was not chosen on.

    `auc` is the chance that a pair of one class lies closer than a pair of two; 0.5 is guessing. `balanced_accuracy`
    is the mean of the shares of right verdicts among the pairs of one class and among the others, so that "always
    different" scores 0.5 however rare the pairs of one class are.
    """

    pairs: int
    same: int
    auc: float
    threshold: float
    balanced_accuracy: float

    def __str__(self) -> str:
        return (
            f"AUC {self.auc:.4f}, balanced accuracy {self.balanced_accuracy:.4f} at threshold {self.threshold:.4f} "
            f"({self.pairs} pairs, {self.same} of them same)"
        )


@dataclass(frozen=True)
class Distances:
    """The Euclidean distance of the two features of each pair, and whether the pair is of one class; (N,) each."""

    distance: NDArray[numpy.float32]
    same: NDArray[numpy.bool_]


def measure(net: Net, batches: int, features: tuple[str, str] = ("feat", "feat_p"), label: str = "sim") -> Distances:
    """The distances of the pairs in the next `batches` batches of a net's data layers.

    `features` names the blobs of the two towers, (N, K) each, and `label` the blob that is 1 for pairs of one class.
    Raises GraphError where the net has no such blobs.
    """
    import numpy
    import torch

    distances, labels = [], []
    with torch.no_grad():
        for blobs in _blobs(net, batches, (*features, label)):
            first, second = (blobs[name].flatten(1) for name in features)  # (N, K)
            distances.append((first - second).square().sum(1).sqrt().cpu().numpy())
            labels.append(blobs[label].cpu().numpy() != 0)
    return Distances(numpy.concatenate(distances), numpy.concatenate(labels))


def _blobs(net: Net, batches: int, wanted: tuple[str, ...]) -> Iterator[dict[str, torch.Tensor]]:
    for name in wanted:
        if name not in net.graph.blobs():
            raise GraphError(f"the net has no blob {quoted(name)} to measure distances with")
    for _ in range(batches):
        yield net.blobs(**net.pull())


def best_threshold(pairs: Distances) -> float:
    """The threshold with the best balanced accuracy on these pairs, halfway between two distances."""
    import numpy
    from sklearn.metrics import roc_curve

    false_alarms, hits, thresholds = roc_curve(pairs.same, -pairs.distance, drop_intermediate=False)
    best = int(numpy.argmax(hits - false_alarms))
    closer = -float(thresholds[best]) if best else float(pairs.distance.min())
    farther = pairs.distance[pairs.distance > closer]
    return (closer + float(farther.min())) / 2 if len(farther) else closer + 1.0


def verify(chosen_on: Distances, judged_on: Distances) -> Verification:
    """Choose the threshold on one set of pairs and judge it on another; both need pairs of either kind."""
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    threshold = best_threshold(chosen_on)
    return Verification(
        pairs=len(judged_on.same),
        same=int(judged_on.same.sum()),
        auc=float(roc_auc_score(judged_on.same, -judged_on.distance)),
        threshold=threshold,
        balanced_accuracy=float(balanced_accuracy_score(judged_on.same, judged_on.distance < threshold)),
    )
