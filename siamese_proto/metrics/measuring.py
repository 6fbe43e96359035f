"""The distances of pairs: those that a net's own data layers deliver, or those of images from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy
from torch import Tensor

from siamese_proto.data.coverage import coverage
from siamese_proto.data.pair_layer import PairData
from siamese_proto.errors import DataError, GraphError, NetError, quoted
from siamese_proto.graph.comparison import image_blobs
from siamese_proto.graph.ir import Blob, Node
from siamese_proto.layers.base import DataLayer
from siamese_proto.metrics.distances import learned_distance
from siamese_proto.metrics.parts import Part
from siamese_proto.metrics.preparing import as_pictures, pictures_of
from siamese_proto.metrics.sources import PairImages
from siamese_proto.metrics.twin import Twin
from siamese_proto.metrics.verification import Distances, check_pairs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.floating]
    Pictures = Sequence[NDArray[numpy.uint8]]

COUNT = 2000  # pairs, where there is no end of them
HARDEST = 24  # pairs of either kind that are kept to be looked at


@dataclass(frozen=True)
class HardPair:
    """A pair that the net gets wrong, or nearly."""

    distance: float
    same: bool
    names: tuple[str, str]
    pictures: tuple[NDArray[numpy.uint8], NDArray[numpy.uint8]]  # (H, W) or (H, W, 3) each


@dataclass(frozen=True)
class Measured:
    """The distances of a set of pairs, what set that is, and the hardest of either kind, the hardest first."""

    distances: Distances
    told: str
    hardest: tuple[HardPair, ...]


def measure_pairs(
    twin: Twin,
    pairs: PairImages,
    *,
    hardest: int = HARDEST,
    progress: Callable[[int], None] = lambda done: None,
) -> Measured:
    """The distances of pairs of images. Each image goes through its tower once; `progress` is told how many have."""
    if not len(pairs):
        raise DataError(f"{quoted(pairs.images[0].source)} has no pairs to judge")
    first, second = pairs.images
    if first is second and not twin.towers_differ:
        rows, place = numpy.unique(numpy.concatenate(pairs.rows), return_inverse=True)
        features = twin.embed_images(first, rows, progress=progress)
        one, other = features[place[: len(pairs)]], features[place[len(pairs) :]]
    else:
        one = twin.embed_images(first, pairs.rows[0], 0, progress)
        other = twin.embed_images(second, pairs.rows[1], 1, lambda done: progress(len(pairs) + done))
    found = Distances(twin.metric.rows(one, other), pairs.same)
    hard: dict[frozenset[str], HardPair] = {}  # a pair that was drawn twice, or the other way round too, is shown once
    for row in hardest_rows(found, 2 * hardest):
        hard.setdefault(frozenset(pairs.names(row)), _hard(pairs, found, row))
    return Measured(found, pairs.told, tuple(_sorted(list(hard.values()), hardest)))


def _hard(pairs: PairImages, found: Distances, row: int) -> HardPair:
    pictures = [
        pictures_of(images.image(int(rows[row]))[None])[0]
        for images, rows in zip(pairs.images, pairs.rows, strict=True)
    ]
    return HardPair(float(found.distance[row]), bool(found.same[row]), pairs.names(row), (pictures[0], pictures[1]))


def hardest_rows(pairs: Distances, count: int) -> list[int]:
    """The pairs of one class that lie farthest apart, and then those of two that lie closest; `count` of each."""
    order = numpy.argsort(pairs.distance, kind="stable")
    far_same = order[::-1][pairs.same[order[::-1]]][:count]
    near_different = order[~pairs.same[order]][:count]
    return [*far_same.tolist(), *near_different.tolist()]


def measure_own(
    twin: Twin,
    count: int | None = None,
    *,
    hardest: int = HARDEST,
    progress: Callable[[int], None] = lambda done: None,
) -> Measured:
    """The distances of the pairs that the net's own data layers deliver.

    `count`: pairs (of triplets: twice as many pairs); left out: as many as there are, or 2000 where there is no end of
    them. Raises GraphError where the net has no data layer or no label for the pairs.
    """
    sources = [node for node in twin.net.graph.nodes if isinstance(node.layer, DataLayer) and node.type != "DummyData"]
    if not sources:
        raise GraphError("the net has no data layer in phase TEST; give pairs with --pairs, or images with --labelled")
    if not twin.comparison.triplets and twin.comparison.label is None:
        raise GraphError("which blob tells of each pair whether it is alike cannot be told; name it with --label")
    count = count or _count(sources)
    batches = _OwnBatches(twin)
    pairs: list[Distances] = []
    kept: list[HardPair] = []
    done = 0
    try:
        while done < count:
            measured, pictures = batches.next(count - done)
            kept += [batches.hard(measured, pictures, row, done) for row in hardest_rows(measured, hardest)]
            kept = _sorted(kept, hardest)
            pairs.append(measured)
            done += batches.records(measured)
            progress(min(done, count))
    finally:
        twin.net.close()
    joined = Distances(*(numpy.concatenate([getattr(part, name) for part in pairs]) for name in ("distance", "same")))
    check_pairs(joined, 0)
    return Measured(joined, f"the net's own {' and '.join(sorted({_told(node) for node in sources}))}", tuple(kept))


def _told(node: Node) -> str:
    return node.layer.describe() if node.layer is not None else node.name


def _sorted(kept: list[HardPair], count: int) -> list[HardPair]:
    same = sorted((pair for pair in kept if pair.same), key=lambda pair: -pair.distance)[:count]
    return same + sorted((pair for pair in kept if not pair.same), key=lambda pair: pair.distance)[:count]


def _count(sources: Sequence[Node]) -> int:
    """How many records the first data layer has."""
    for node in sources:
        if isinstance(node.layer, PairData):
            return node.layer.settings.tuples or _listed(node.layer) or COUNT
        found = coverage(node.layer) if node.layer is not None else None
        if found is not None:
            return found.records
    return COUNT


def _listed(layer: PairData) -> int:
    if not layer.source.is_csv:
        return 0
    images, pairs = layer.source.open()
    images.close()
    return len(pairs.labels) if pairs is not None else 0


class _OwnBatches:
    """Batches of a net's data layers as distances."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin
        self._part: Part | None = None
        self._given: list[Blob] = []
        comparison = twin.comparison
        learned = twin.metric.kind == "LEARNED" and comparison.score is not None
        self._wanted = [comparison.score] if learned and comparison.score else list(comparison.features)
        self._wanted += [comparison.label] if comparison.label is not None else []
        self._image_blobs = self._images()

    def _images(self) -> list[Blob]:
        """The blobs of the images, where these can be told: they are for looking at alone."""
        try:
            sides = image_blobs(self._twin.net.graph, self._twin.comparison.features, self._twin.choice.inputs)
            for side in (0, 1):
                self._twin.preparation(side)
        except NetError:
            return []
        joined = len(sides[0]) > 1
        return list(sides[0]) if joined else [side[0] for side in sides]

    def next(self, most: int) -> tuple[Distances, list[Tensor]]:
        """The distances of the next batch, of at most so many records, and its images, side by side."""
        net, comparison = self._twin.net, self._twin.comparison
        batch = net.pull()
        if self._part is None:
            self._given = [
                top for node in net.graph.nodes for top in node.tops if top.name in batch and not top.version
            ]
            self._part = Part(net, self._given, [*self._wanted, *self._image_blobs])
        found = [tensor[:most] for tensor in self._part(*(batch[blob.name] for blob in self._given))]
        values, images = found[: len(self._wanted)], found[len(self._wanted) :]
        if comparison.triplets:
            anchor, positive, negative = (value.flatten(1).cpu().numpy() for value in values)
            near, far = self._twin.metric.rows(anchor, positive), self._twin.metric.rows(anchor, negative)
            same = numpy.repeat([True, False], len(anchor))
            return Distances(numpy.concatenate([near, far]), same), images
        label = values.pop().flatten().cpu().abs() >= 1
        same = label.numpy() == comparison.one_is_same
        if len(values) == 1:
            one_is_same = comparison.one_is_same
            distance = learned_distance(values[0], comparison.score_kind, one_is_same=one_is_same)
        else:
            first, second = (value.flatten(1).cpu().numpy() for value in values)
            distance = self._twin.metric.rows(first, second)
        return Distances(distance, same), images

    def records(self, measured: Distances) -> int:
        """How many records a batch took."""
        return len(measured) // 2 if self._twin.comparison.triplets else len(measured)

    def hard(self, measured: Distances, images: list[Tensor], row: int, before: int) -> HardPair:
        """A pair of the batch with its pictures; `before`: how many records came before the batch."""
        triplets = self._twin.comparison.triplets
        record = row % self.records(measured)
        second = 2 if triplets and row >= self.records(measured) else 1
        pictures = []
        for side in (0, second):
            if not images:
                pictures.append(numpy.zeros((1, 1), numpy.uint8))
                continue
            image = images[side][record][None].cpu().numpy()
            pictures.append(as_pictures(image, self._twin.preparation(side))[0])
        name = f"{'triplet' if triplets else 'pair'} {before + record}"
        return HardPair(
            float(measured.distance[row]), bool(measured.same[row]), (name, name), (pictures[0], pictures[1])
        )
