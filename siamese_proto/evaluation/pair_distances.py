"""The distances of pairs: those that a net's own data layers deliver, or those of images from elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy
from torch import Tensor

from siamese_proto.data.not_finite import not_finite
from siamese_proto.errors import DataError, GraphError, NetError, quoted
from siamese_proto.evaluation.distance import learned_distance
from siamese_proto.evaluation.pair_counts import extent_of, own_sources
from siamese_proto.evaluation.pair_sources import PairImages
from siamese_proto.evaluation.preprocess import as_pictures, pictures_of
from siamese_proto.evaluation.twin import Twin
from siamese_proto.evaluation.verification import Distances, check_pairs
from siamese_proto.graph.comparison import image_blobs
from siamese_proto.graph.ir import Blob, Node
from siamese_proto.layers.pair_labels import PairLabels, check_sources, mapping_for, nonzero, odd_labels
from siamese_proto.net.part import Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[numpy.floating]
    Pictures = Sequence[NDArray[numpy.uint8]]

HARDEST = 24  # pairs of either kind that are kept to be looked at
_log = logging.getLogger(__name__)
_KINDS = ((1, b"near"), (2, b"far"))  # what an anchor makes a pair with


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
    found = Distances(twin.metric.rows(one, other), pairs.same, pairs.numbers(ordered=twin.towers_differ))
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
    pair_labels: PairLabels | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Measured:
    """Measure the distances of the pairs that the net's own data layers deliver, from their first record on.

    `count`: pairs at most (of triplets: twice as many pairs). Every record counts once; where there is no end of them,
    `count` (2000 unless given) are a sample. `Measured.told` says which. `pair_labels` says what labels
    mean; without it 0 and another number, as in Caffe, with a warning where there are others than 1. Raises GraphError
    where the net has no data layer or no label for the pairs.
    """
    sources = own_sources(twin.net.graph, twin.comparison)
    if not twin.comparison.triplets and twin.comparison.label is None:
        raise GraphError("which blob tells of each pair whether it is alike cannot be told; name it with --label")
    if pair_labels is None:
        check_sources(twin.net.graph, twin.net.run)
    batches = _OwnBatches(twin, pair_labels)
    pairs: list[Distances] = []
    kept: list[HardPair] = []
    done = 0
    twin.net.close()  # so that every source begins with its first record
    twin.net.run.rand_skip = False
    try:
        batch = batches.next()
        extent = extent_of(sources, len(batch), count)
        while True:
            batch = batch.part(extent.pairs - done)
            kept += [batches.hard(batch, row, done) for row in hardest_rows(batch.distances, hardest)]
            kept = _sorted(kept, hardest)
            pairs.append(batch.distances)
            done += len(batch)
            progress(done)
            if done >= extent.pairs:
                break
            batch = batches.next()
    finally:
        twin.net.run.rand_skip = True
        twin.net.close()
    joined = _joined(pairs)
    check_pairs(joined, 0)
    left_out = sum(map(len, twin.net.run.bad_records.values()))
    told = f"the net's own {' and '.join(sorted({_told(node) for node in sources}))}, {extent.told}"
    told += f"; {left_out} of them could not be read, and others are counted twice instead" if left_out else ""
    return Measured(joined, told, tuple(kept))


def _joined(parts: Sequence[Distances]) -> Distances:
    same = numpy.concatenate([part.same for part in parts])
    numbers = [part.pair for part in parts if part.pair is not None]
    return Distances(numpy.concatenate([part.distance for part in parts]), same, numpy.concatenate(numbers))


def _told(node: Node) -> str:
    return node.layer.describe() if node.layer is not None else node.name


def _sorted(kept: list[HardPair], count: int) -> list[HardPair]:
    same = sorted((pair for pair in kept if pair.same), key=lambda pair: -pair.distance)[:count]
    return same + sorted((pair for pair in kept if not pair.same), key=lambda pair: pair.distance)[:count]


@dataclass(frozen=True)
class _Batch:
    """Pairs of a batch, or triplets: of these first the pairs of one class, and then the others."""

    distances: Distances
    images: Sequence[Tensor]  # side by side; empty where these cannot be determined
    triplets: bool

    def __len__(self) -> int:
        return len(self.distances) // 2 if self.triplets else len(self.distances)

    def part(self, most: int) -> _Batch:
        """The first ones."""
        if most >= len(self):
            return self
        rows = numpy.arange(most)
        if self.triplets:
            rows = numpy.concatenate([rows, len(self) + rows])
        return _Batch(self.distances.part(rows), [image[:most] for image in self.images], self.triplets)


class _OwnBatches:
    """Batches of a net's data layers as distances."""

    def __init__(self, twin: Twin, pair_labels: PairLabels | None) -> None:
        self._twin = twin
        self._pair_labels = pair_labels
        self._warned = False
        self._part: Part | None = None
        self._given: list[Blob] = []
        self._numbers: dict[tuple[bytes, ...], int] = {}  # of the pairs met so far, by what their images look like
        comparison = twin.comparison
        learned = twin.metric.kind == "LEARNED" and comparison.score is not None
        self._wanted = [comparison.score] if learned and comparison.score else list(comparison.features)
        self._wanted += [comparison.label] if comparison.label is not None else []
        self._image_blobs = self._images()
        self._ordered = bool(self._image_blobs) and twin.towers_differ

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

    def next(self) -> _Batch:
        """The next batch."""
        net, comparison = self._twin.net, self._twin.comparison
        batch = net.pull()
        for name, tensor in batch.items():
            bad = not_finite(tensor.cpu().numpy())
            if bad is not None:
                raise DataError(f"a batch of the net's data has in {quoted(name)} {bad}; correct the data")
        if self._part is None:
            self._given = [
                top for node in net.graph.nodes for top in node.tops if top.name in batch and not top.version
            ]
            self._part = Part(net, self._given, [*self._wanted, *self._image_blobs])
        found = self._part(*(batch[blob.name] for blob in self._given))
        values, images = list(found[: len(self._wanted)]), found[len(self._wanted) :]
        seen = images or [batch[blob.name] for blob in self._given if blob != comparison.label]
        if comparison.triplets:
            anchor, positive, negative = (value.flatten(1).cpu().numpy() for value in values)
            near, far = self._twin.metric.rows(anchor, positive), self._twin.metric.rows(anchor, negative)
            same = numpy.repeat([True, False], len(anchor))
            looks = _looks(seen, len(anchor))
            kinds = [(looks[0], looks[side]) if images else (*looks, [kind] * len(anchor)) for side, kind in _KINDS]
            numbers = [self._numbered(kind, len(anchor)) for kind in kinds]
            return _Batch(Distances(numpy.concatenate([near, far]), same, numpy.concatenate(numbers)), images, True)
        same = self._same(values.pop().flatten().cpu().numpy())
        if len(values) == 1:
            one_is_same = comparison.one_is_same
            distance = learned_distance(values[0], comparison.score_kind, one_is_same=one_is_same)
        else:
            first, second = (value.flatten(1).cpu().numpy() for value in values)
            distance = self._twin.metric.rows(first, second)
        return _Batch(Distances(distance, same, self._numbered(_looks(seen, len(same)), len(same))), images, False)

    def _same(self, labels: Floats) -> NDArray[numpy.bool_]:
        """Which pairs are of one class, judged by their labels."""
        one_is_same = self._twin.comparison.one_is_same
        if self._pair_labels is not None:
            return self._pair_labels.are_same(labels, "the net's data")
        text = "" if self._warned else odd_labels(labels, one_is_same=one_is_same)
        if text:
            self._warned = True
            _log.warning("%s; say what they mean with --pair-labels, for example %s", text, mapping_for(labels))
        same: NDArray[numpy.bool_] = nonzero(labels) == one_is_same
        return same

    def _numbered(self, looks: Sequence[Sequence[bytes]], rows: int) -> NDArray[numpy.int64]:
        """A number for each pair, the same for those that look the same, whichever of the images comes first."""
        unknown = [str(len(self._numbers) + row).encode() for row in range(rows)]
        pairs = zip(*looks or [unknown], strict=True)
        keys = [pair if self._ordered else tuple(sorted(pair)) for pair in pairs]
        return numpy.array([self._numbers.setdefault(key, len(self._numbers)) for key in keys], numpy.int64)

    def hard(self, batch: _Batch, row: int, before: int) -> HardPair:
        """A pair of the batch with its pictures; `before`: how many records came before the batch."""
        record = row % len(batch)
        second = 2 if batch.triplets and row >= len(batch) else 1
        pictures = []
        for side in (0, second):
            if not batch.images:
                pictures.append(numpy.zeros((1, 1), numpy.uint8))
                continue
            image = batch.images[side][record][None].cpu().numpy()
            pictures.append(as_pictures(image, self._twin.preparation(side))[0])
        name = f"{'triplet' if batch.triplets else 'pair'} {before + record}"
        return HardPair(
            float(batch.distances.distance[row]),
            bool(batch.distances.same[row]),
            (name, name),
            (pictures[0], pictures[1]),
        )


def _looks(blobs: Sequence[Tensor], rows: int) -> list[list[bytes]]:
    """For each blob a short text for each row, the same for equal rows; rows of other numbers are not looked at."""
    arrays = [numpy.ascontiguousarray(blob.cpu().numpy()) for blob in blobs if len(blob) == rows]
    return [[blake2b(row.tobytes(), digest_size=8).digest() for row in array] for array in arrays]
