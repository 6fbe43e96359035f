"""The distances of pairs: those of the net's own data layers, or pairs of images from elsewhere."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b

import numpy
from numpy.typing import NDArray
from torch import Tensor

from siamese_proto.data.bad_records import not_finite
from siamese_proto.errors import DataError, GraphError, NetError, quoted
from siamese_proto.evaluation.pair_sources import DEFAULT_COUNT, PairImages
from siamese_proto.evaluation.preprocess import Picture, to_pictures
from siamese_proto.evaluation.twin import Floats, Twin, learned_distance
from siamese_proto.evaluation.verification import Distances, check_pairs
from siamese_proto.graph.comparison import Comparison
from siamese_proto.graph.ir import Blob, Graph, Node
from siamese_proto.graph.traversal import nodes_before
from siamese_proto.layers.base import DataLayer
from siamese_proto.layers.pair_labels import PairLabels, check_sources, mapping_for, nonzero, odd_labels
from siamese_proto.net.part import Part

HARDEST = 24  # hardest pairs of either kind to return
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HardPair:
    """A pair that the net gets wrong, or nearly."""

    distance: float
    same: bool
    names: tuple[str, str]
    pictures: tuple[Picture, Picture]


@dataclass(frozen=True)
class MeasuredPairs:
    """The distances of a set of pairs, a description of the set, and its hardest pairs of either kind."""

    distances: Distances
    description: str
    hardest: tuple[HardPair, ...]  # those of one class first, each kind with the hardest first


def measure_pairs(twin: Twin, pairs: PairImages) -> MeasuredPairs:
    """Compute the distances of pairs of images. Each image passes through its tower once.

    Raises DataError if there are no pairs, or an image cannot be read.
    """
    if not len(pairs):
        raise DataError(f"{quoted(pairs.images[0].source)} has no pairs")
    first, second = pairs.images
    if first is second and not twin.towers_differ:
        rows, place = numpy.unique(numpy.concatenate(pairs.rows), return_inverse=True)
        features = twin.embed_images(first, rows)
        one, other = features[place[: len(pairs)]], features[place[len(pairs) :]]
    else:
        one = twin.embed_images(first, pairs.rows[0], 0)
        other = twin.embed_images(second, pairs.rows[1], 1)
    distances = Distances(twin.metric.rows(one, other), pairs.same, pairs.numbers(ordered=twin.towers_differ))
    hard: dict[frozenset[str], HardPair] = {}  # each pair once, in whichever order its images are
    for row in _hardest_rows(distances, 2 * HARDEST):
        pictures = [
            to_pictures(images.image(int(rows[row]))[None])[0]
            for images, rows in zip(pairs.images, pairs.rows, strict=True)
        ]
        names = pairs.names(row)
        pair = HardPair(float(distances.distance[row]), bool(distances.same[row]), names, (pictures[0], pictures[1]))
        hard.setdefault(frozenset(names), pair)
    return MeasuredPairs(distances, pairs.description, tuple(_hardest(list(hard.values()))))


def _hardest_rows(pairs: Distances, count: int) -> list[int]:
    """The farthest pairs of one class, and then the closest pairs of two; `count` of each."""
    order = numpy.argsort(pairs.distance, kind="stable")
    far_same = order[::-1][pairs.same[order[::-1]]][:count]
    near_different = order[~pairs.same[order]][:count]
    return [*far_same.tolist(), *near_different.tolist()]


def _hardest(pairs: list[HardPair]) -> list[HardPair]:
    same = sorted((pair for pair in pairs if pair.same), key=lambda pair: -pair.distance)
    different = sorted((pair for pair in pairs if not pair.same), key=lambda pair: pair.distance)
    return same[:HARDEST] + different[:HARDEST]


# The pairs of the net's own data layers


def measure_data_layers(
    twin: Twin, count: int | None = None, *, pair_labels: PairLabels | None = None
) -> MeasuredPairs:
    """Compute the distances of the pairs that the net's own data layers load, from their first record on.

    Every record counts once; of a source without an end the pairs are a sample.

    Args:
        twin: The net.
        count: Number of pairs at most (of triplets, which are two pairs each). None: all, or 2000 in a sample.
        pair_labels: What labels mean. None: 0 and others, as in Caffe, with a warning for other labels than 1.

    Raises:
        GraphError: the net has no data layer, or no label of the pairs.
    """
    comparison, run = twin.comparison, twin.net.run_state
    sources = _data_layers(twin.net.graph, comparison)
    if not comparison.triplets and comparison.label is None:
        raise GraphError("which blob is the label of the pairs cannot be determined; name it with --label")
    if pair_labels is None:
        check_sources(twin.net.graph, run)
    loader = _PairLoader(twin, pair_labels)
    parts: list[Distances] = []
    hard: list[HardPair] = []
    done, total, coverage = 0, 1, ""
    twin.net.close()  # so that every source begins with its first record
    run.rand_skip = False
    try:
        while done < total:
            distances, images = loader.next()
            size = len(distances) // (2 if comparison.triplets else 1)
            records = numpy.arange(len(distances)) % size
            if not parts:
                total, coverage = _pairs_to_measure(sources, size, count)
            rows = numpy.flatnonzero(records < total - done)
            parts.append(distances.select(rows))
            for row in _hardest_rows(parts[-1], HARDEST):
                hard.append(_hard_pair(twin, parts[-1], row, images, records[rows[row]], done))
            hard = _hardest(hard)
            done = min(done + size, total)
    finally:
        run.rand_skip = True
        twin.net.close()
    joined = Distances(
        numpy.concatenate([part.distance for part in parts]),
        numpy.concatenate([part.same for part in parts]),
        numpy.concatenate([part.pair for part in parts if part.pair is not None]),
    )
    check_pairs(joined, 0)
    names = sorted({node.layer.describe() if node.layer is not None else node.name for node in sources})
    description = f"the net's own {' and '.join(names)}, {coverage}"
    if unreadable := sum(map(len, run.bad_records.values())):
        description += f"; {unreadable} of them could not be read, and others are counted twice instead"
    return MeasuredPairs(joined, description, tuple(hard))


def _hard_pair(twin: Twin, pairs: Distances, row: int, images: Sequence[Tensor], record: int, before: int) -> HardPair:
    """A pair of a batch with its pictures; `before` is the number of records before the batch."""
    triplets, same = twin.comparison.triplets, bool(pairs.same[row])
    pictures = [numpy.zeros((1, 1), numpy.uint8)] * 2
    if images:
        sides = ((0, images[0]), (2, images[2]) if triplets and not same else (1, images[1]))
        pictures = [twin.preprocessing(side).to_pictures(image[record][None].cpu().numpy())[0] for side, image in sides]
    name = f"{'triplet' if triplets else 'pair'} {before + record}"
    return HardPair(float(pairs.distance[row]), same, (name, name), (pictures[0], pictures[1]))


def _data_layers(graph: Graph, comparison: Comparison) -> list[Node]:
    """The data layers that features, scores and labels are computed from; DummyData only if there are no others."""
    blobs = [*comparison.features, *(blob for blob in (comparison.score, comparison.label) if blob is not None)]
    sources = [node for node in nodes_before(graph, blobs) if isinstance(node.layer, DataLayer)]
    if not sources:
        raise GraphError("the net has no data layer in phase TEST; give pairs with --pairs, or images with --labelled")
    return [node for node in sources if node.type != "DummyData"] or sources


def _pairs_to_measure(sources: Sequence[Node], in_batch: int, count: int | None) -> tuple[int, str]:
    """The number of pairs (or triplets) to measure, and a description.

    `in_batch` is the number of pairs in a batch. If both images of a pair are rows of a batch, so that it has fewer
    pairs than rows, only whole batches are measured. Raises DataError for sources with different numbers of batches,
    whose records would form other pairs in each epoch.
    """
    finite = []
    for node in sources:
        assert isinstance(node.layer, DataLayer)  # as `_data_layers` returns them
        try:
            coverage = node.layer.coverage()
        except DataError as problem:
            raise problem.at(location=node.location, layer=node.name) from None
        finite += [(node, coverage)] if coverage is not None else []
    if not finite:
        count = count or DEFAULT_COUNT
        return count, f"a sample of {count}, as the source has no end"
    node, covered = finite[0]
    for other, also in finite[1:]:
        if also.batches != covered.batches and count is None:
            raise DataError(
                f"layer {quoted(node.name)} has {covered.records} records in batches of {covered.batch_size} and layer "
                f"{quoted(other.name)} has {also.records} in batches of {also.batch_size}, so they form other "
                "pairs in each epoch; make them equally long, or give the number of pairs with --count"
            )
    shape = node.tops[0].shape
    if shape is not None and shape[0] == in_batch:
        available, left_over = int(covered.batches * in_batch), 0
    else:
        available, left_over = int(covered.batches) * in_batch, covered.records % covered.batch_size
    if not available:
        raise DataError(
            f"layer {quoted(node.name)} has {covered.records} records, but a batch takes {covered.batch_size}; write a "
            "smaller batch_size"
        )
    if count is not None and count < available:
        return count, f"the first {count} of {available}"
    return available, "each record once" + (f" except the last {left_over}, which fill no batch" if left_over else "")


class _PairLoader:
    """Loads batches of a net's data layers and computes their distances."""

    def __init__(self, twin: Twin, pair_labels: PairLabels | None) -> None:
        self._twin = twin
        self._pair_labels = pair_labels
        self._warned = False
        self._part: Part | None = None
        self._inputs: list[Blob] = []
        self._numbers: dict[tuple[bytes, ...], int] = {}  # of the pairs so far, by hashes of their images
        comparison = twin.comparison
        score = comparison.score if twin.metric.kind == "LEARNED" else None
        self._outputs = list(comparison.features) if score is None else [score]
        self._outputs += [comparison.label] if comparison.label is not None else []
        self._image_blobs: list[Blob] = []
        with suppress(NetError):  # images are optional: they are for pictures, and to recognize copies of a pair
            blobs = twin.image_blobs
            for side in (0, 1):
                twin.preprocessing(side)
            self._image_blobs = list(blobs[0]) if len(blobs[0]) > 1 else [side_blobs[0] for side_blobs in blobs]
        self._ordered = bool(self._image_blobs) and twin.towers_differ

    def next(self) -> tuple[Distances, Sequence[Tensor]]:
        """Load the next batch: distances, and the images of each side if they can be determined.

        Of triplets, the pairs of one class come first, and then the others.
        """
        net, comparison, metric = self._twin.net, self._twin.comparison, self._twin.metric
        tops = net.pull()
        for name, tensor in tops.items():
            bad = not_finite(tensor.cpu().numpy())
            if bad is not None:
                raise DataError(f"{quoted(name)} in a batch of the net's data has {bad}; correct the data")
        if self._part is None:
            blobs = (top for node in net.graph.nodes for top in node.tops)
            self._inputs = [blob for blob in blobs if blob.name in tops and not blob.version]
            self._part = Part(net, self._inputs, [*self._outputs, *self._image_blobs])
        results = self._part(*(tops[blob.name] for blob in self._inputs))
        values, images = list(results[: len(self._outputs)]), results[len(self._outputs) :]
        to_hash = images or [tops[blob.name] for blob in self._inputs if blob != comparison.label]
        if comparison.triplets:
            anchor, positive, negative = (value.flatten(1).cpu().numpy() for value in values)
            count = len(anchor)
            distance = numpy.concatenate([metric.rows(anchor, positive), metric.rows(anchor, negative)])
            hashes = _hash_rows(to_hash, count)
            positives = [hashes[0], hashes[1]] if images else [*hashes, [b"positive"] * count]
            negatives = [hashes[0], hashes[2]] if images else [*hashes, [b"negative"] * count]
            numbers = numpy.concatenate([self._number(sides, count) for sides in (positives, negatives)])
            return Distances(distance, numpy.repeat([True, False], count), numbers), images
        same = self._same(values.pop().flatten().cpu().numpy())
        if len(values) == 1:
            distance = learned_distance(values[0], comparison)
        else:
            first, second = (value.flatten(1).cpu().numpy() for value in values)
            distance = metric.rows(first, second)
        return Distances(distance, same, self._number(_hash_rows(to_hash, len(same)), len(same))), images

    def _same(self, labels: Floats) -> NDArray[numpy.bool_]:
        """Which pairs are of one class according to their labels."""
        one_is_same = self._twin.comparison.one_is_same
        if self._pair_labels is not None:
            return self._pair_labels.are_same(labels, "the net's data")
        warning = "" if self._warned else odd_labels(labels, one_is_same=one_is_same)
        if warning:
            self._warned = True
            _log.warning("%s; specify their meaning with --pair-labels, for example %s", warning, mapping_for(labels))
        same: NDArray[numpy.bool_] = nonzero(labels) == one_is_same
        return same

    def _number(self, hashes: Sequence[Sequence[bytes]], count: int) -> NDArray[numpy.int64]:
        """Number the pairs: equal pairs have the same number, whichever of the images comes first."""
        unknown = [str(len(self._numbers) + row).encode() for row in range(count)]
        pairs = zip(*hashes or [unknown], strict=True)
        keys = [pair if self._ordered else tuple(sorted(pair)) for pair in pairs]
        return numpy.array([self._numbers.setdefault(key, len(self._numbers)) for key in keys], numpy.int64)


def _hash_rows(blobs: Sequence[Tensor], count: int) -> list[list[bytes]]:
    """A hash of each row of each blob that has this number of rows."""
    arrays = [numpy.ascontiguousarray(blob.cpu().numpy()) for blob in blobs if len(blob) == count]
    return [[blake2b(row.tobytes(), digest_size=8).digest() for row in array] for array in arrays]
