"""Evaluate both sides of networks.py on classes that were not in the training data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import siamese_proto as sp
from siamese_proto.data.images.class_choice import choose_classes
from siamese_proto.data.layers.pair_data import PairData
from siamese_proto.evaluation.retrieval import few_shot
from siamese_proto.evaluation.twin import Twin
from siamese_proto.evaluation.verification import Distances, verify
from siamese_proto.graph.ir import Node

Floats = NDArray[np.floating]
Batch = dict[str, Tensor]
ROWS = 100  # batch size of a hand-written tower
EPISODES = 2000  # number of one-shot trials


@dataclass(frozen=True)
class HeldOut:
    """Pairs for the test: `images` (first and second side, the same array if shared) and row numbers."""

    images: tuple[Floats, Floats]  # (N, C, H, W) each
    rows: tuple[NDArray[np.intp], NDArray[np.intp]]  # (P,) each
    same: NDArray[np.bool_]  # (P,)
    labels: NDArray[np.int64] | None  # (N,), the classes of the images if all images are included


class Side(Protocol):
    """A trained net: images to features, features to distances."""

    def embed(self, images: Floats, side: int) -> Floats:
        """Compute features (N, C, H, W) -> (N, K) by the first or second tower."""

    def rows(self, first: Floats, second: Floats) -> Floats:
        """Compute distances (N, K), (N, K) -> (N,), small within a class."""

    def matrix(self, first: Floats, second: Floats) -> Floats:
        """Compute all distances (N, K), (M, K) -> (N, M)."""


@dataclass(frozen=True)
class Here:
    """A net of siamese_proto."""

    twin: Twin

    def embed(self, images: Floats, side: int) -> Floats:
        """See Side."""
        return self.twin.embed(images, side)

    def rows(self, first: Floats, second: Floats) -> Floats:
        """See Side."""
        return self.twin.metric.rows(first, second)

    def matrix(self, first: Floats, second: Floats) -> Floats:
        """See Side."""
        return self.twin.metric.matrix(first, second)


@dataclass(frozen=True)
class ByHand:
    """A network of references/, in eval mode."""

    network: nn.Module

    def embed(self, images: Floats, side: int) -> Floats:
        """See Side."""
        parts = torch.split(torch.from_numpy(np.ascontiguousarray(images)), ROWS)
        return self._answer("features", *((part, side) for part in parts))

    def rows(self, first: Floats, second: Floats) -> Floats:
        """See Side."""
        parts = (torch.split(torch.from_numpy(side), 10 * ROWS) for side in (first, second))
        return self._answer("apart", *zip(*parts, strict=True))

    def matrix(self, first: Floats, second: Floats) -> Floats:
        """See Side."""
        return np.stack([self.rows(np.broadcast_to(row, second.shape).copy(), second) for row in first])

    def _answer(self, method: str, *calls: tuple[Any, ...]) -> Floats:
        with torch.no_grad():
            distances: Floats = torch.cat([getattr(self.network, method)(*call) for call in calls]).numpy()
        return distances


def scores(side: Side, held_out: HeldOut, threshold: float | None, ways: tuple[int, ...]) -> dict[str, float]:
    """Return AUC, EER, balanced accuracy (at a threshold, or one chosen on half of the pairs), one-shot accuracies."""
    first = side.embed(held_out.images[0], 0)
    second = first if held_out.images[1] is held_out.images[0] else side.embed(held_out.images[1], 1)
    distance = side.rows(first[held_out.rows[0]], second[held_out.rows[1]])
    results = verify(Distances(distance, held_out.same), threshold=threshold)
    scores = {
        "AUC": results.auc.value,
        "EER": results.equal_error,
        "balanced accuracy": results.at_threshold.balanced_accuracy,
    }
    for way in ways:
        assert held_out.labels is not None  # one-shot accuracies need classes
        accuracy = few_shot(first, second, held_out.labels, side, way=way, episodes=EPISODES).accuracy
        scores[f"{way}-way one-shot"] = accuracy.value
    return scores


def held_out(net: Path, twin: Twin, pairs: int, *, every: bool) -> HeldOut:
    """Return the test pairs of a net: those of its CSV, all test images with `every`, or `pairs` drawn ones."""
    layer = data_layer(twin.net).layer
    if isinstance(layer, PairData) and layer.images.is_csv:
        images, tuples = layer.open_images()
        assert tuples is not None  # that is what a CSV names
        pixels = twin.preprocessing()(images.images(np.arange(len(images))))
        rows = tuples.tuples[:, 0], tuples.tuples[:, 1]
        return HeldOut((pixels, pixels), rows, tuples.labels == 1, None)
    if isinstance(layer, PairData) and every:
        images, _ = layer.open_images()
        images = choose_classes(images, layer.settings.classes)
        pixels = twin.preprocessing()(images.images(np.arange(len(images))))
        one, other = np.triu_indices(len(images), 1)
        return HeldOut((pixels, pixels), (one, other), images.labels[one] == images.labels[other], images.labels)
    batches = list(test_batches(net, pairs))
    first, second, same = (np.concatenate(parts) for parts in zip(*map(as_pairs, batches), strict=True))
    rows = np.arange(len(same))
    return HeldOut((first, second), (rows, rows), same, None)


def data_layer(net: sp.Net) -> Node:
    """Return the layer that reads pairs or triplets."""
    return next(node for node in net.graph.nodes if node.type in ("Data", "PairData"))


def test_batches(net: Path, pairs: int) -> Iterator[Batch]:
    """Return batches of the net's test data, with at least this many pairs."""
    data = sp.Net(net, phase="TEST")
    tops = [top.name for top in data_layer(data).tops]
    count = 0
    while count < pairs:
        batch = data.pull()
        yield {top: batch[top] for top in tops}
        count += len(as_pairs(batch)[2])
    data.close()


def as_pairs(batch: Batch) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return first and second images, and whether they are of one class; a triplet gives two pairs."""
    if "anchor" in batch:
        rows = len(batch["anchor"])
        first, second = torch.cat([batch["anchor"]] * 2), torch.cat([batch["positive"], batch["negative"]])
        same = np.repeat([True, False], rows)
        return first.numpy(), second.numpy(), same
    first, second = batch["pair_data"].chunk(2, dim=1) if "pair_data" in batch else (batch["data"], batch["data_p"])
    label = batch["sim"] if "sim" in batch else batch["same"]
    return first.numpy(), second.numpy(), label.numpy() != 0


def test_losses(net: Path, weights: Path, reference: nn.Module, pairs: int) -> tuple[float, float]:
    """Return the mean loss over test batches, ours and hand-written."""
    here = sp.Net(net, phase="TEST", weights=weights)
    losses: list[tuple[float, float]] = []
    with torch.no_grad():
        for batch in test_batches(net, pairs):
            losses.append((here.loss(here(**batch)).item(), reference(batch).item()))
    here.close()
    mean = np.mean(losses, axis=0)
    return float(mean[0]), float(mean[1])
