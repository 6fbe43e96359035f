"""A trained net in use: features of images, and distances of features."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy
import torch
from numpy.typing import NDArray

from siamese_proto.data.bad_records import not_finite
from siamese_proto.data.images.labeled import LabeledImages
from siamese_proto.errors import DataError, GraphError, WeightsError, quoted
from siamese_proto.evaluation.preprocess import Preprocessing, Resolution, find_preprocessing
from siamese_proto.graph.comparison import Comparison, Metric, find_comparison, image_blobs
from siamese_proto.graph.ir import Blob
from siamese_proto.graph.traversal import nodes_before
from siamese_proto.layers.distance import measure
from siamese_proto.net.net import Net
from siamese_proto.net.part import Part

Floats = NDArray[numpy.floating]

_LAYER_METRIC = {"EUCLIDEAN": "EUCLIDEAN", "SQUARED": "SQUARED", "L1": "L1", "COSINE": "COSINE_DISTANCE", "DOT": "DOT"}
_SKLEARN_METRIC = {"EUCLIDEAN": "euclidean", "SQUARED": "sqeuclidean", "L1": "manhattan", "COSINE": "cosine"}
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class FormulaMetric:
    """A distance by a formula, in double precision; the smaller, the more similar."""

    kind: Metric

    def rows(self, first: Floats, second: Floats) -> Floats:
        """(N, K), (N, K) -> (N,), row by row."""
        one, other = (torch.from_numpy(numpy.asarray(side, numpy.float64)) for side in (first, second))
        values: Floats = measure(_LAYER_METRIC[self.kind], one, other).numpy()
        return -values if self.kind == "DOT" else values

    def matrix(self, first: Floats, second: Floats) -> Floats:
        """(N, K), (M, K) -> (N, M), each with each."""
        from sklearn.metrics import pairwise_distances

        one, other = (numpy.asarray(side, numpy.float64) for side in (first, second))
        if self.kind == "DOT":
            return -(one @ other.T)
        distances: Floats = pairwise_distances(one, other, metric=_SKLEARN_METRIC[self.kind])
        return distances


class LearnedMetric:
    """`1 - P(same)`, where the net computes the probability that two features are of one class."""

    kind: Metric = "LEARNED"

    def __init__(self, net: Net, comparison: Comparison) -> None:
        assert comparison.score is not None  # as the metric is learned
        self._comparison = comparison
        self._part = Part(net, comparison.features, [comparison.score])

    def rows(self, first: Floats, second: Floats) -> Floats:
        """(N, K), (N, K) -> (N,), row by row."""
        if not len(first):
            return numpy.empty(0)
        shapes = ((blob.shape or ())[1:] for blob in self._comparison.features)
        sides = [side.reshape(-1, *shape) for side, shape in zip((first, second), shapes, strict=True)]
        return learned_distance(torch.cat(list(_in_batches(self._part, sides))), self._comparison)

    def matrix(self, first: Floats, second: Floats) -> Floats:
        """(N, K), (M, K) -> (N, M), each with each."""
        return numpy.stack([self.rows(numpy.broadcast_to(row, second.shape), second) for row in first])


def learned_distance(score: torch.Tensor, comparison: Comparison) -> Floats:
    """Convert scores (N, 1) or (N, 2) to the probability that a pair is not of one class, (N,), in double precision."""
    values = score.detach().double().cpu().reshape(len(score), -1)
    if comparison.score_kind == "PROBABILITY":
        same = values[:, -1]
        return (1 - same if comparison.one_is_same else same).numpy()
    logit = values[:, 1] - values[:, 0] if comparison.score_kind == "SOFTMAX" else values[:, 0]
    distance: Floats = (-logit if comparison.one_is_same else logit).sigmoid().numpy()
    return distance


def _in_batches(part: Part, inputs: Sequence[Floats]) -> Iterator[torch.Tensor]:
    """Run a part of a net with one output on any number of rows."""
    for begin in range(0, len(inputs[0]), part.batch):
        rows = (numpy.ascontiguousarray(values[begin : begin + part.batch], numpy.float32) for values in inputs)
        yield part(*map(torch.from_numpy, rows))[0]


@dataclass(frozen=True)
class TwinSettings:
    """Settings that replace those of the net; empty: as the net has it."""

    features: Sequence[str] = ()  # blobs, one for each tower
    inputs: Sequence[str] = ()  # blobs that take the images, one for each feature
    label: str = ""
    distance: Metric | None = None
    one_is_same: bool | None = None
    scale: float | None = None
    mean_values: Sequence[float] = ()
    resize: Resolution | None = None


@dataclass(frozen=True)
class Subject:
    """The model that was evaluated or used."""

    model: str
    weights: tuple[str, ...]
    digest: str  # of the weights files, to recognize them
    distance: Metric
    features: tuple[str, ...]
    images: str  # the preprocessing


class Twin:
    """A net that compares images: a twin, a triplet net, or a single tower.

    Args:
        net: A net of phase TEST.
        settings: Replace what the net specifies.
        weights: The weights files that were loaded into the net.

    Raises:
        GraphError: the features of the net cannot be determined. Its image inputs are determined at the first use.
    """

    def __init__(self, net: Net, settings: TwinSettings | None = None, weights: Sequence[str] = ()) -> None:
        settings = settings or TwinSettings()
        comparison = find_comparison(net.graph, settings.features, settings.label)
        if settings.distance is not None:
            if settings.distance == "LEARNED" and comparison.score is None:
                raise GraphError("the net has no learned score of two features; choose another --distance")
            comparison = replace(comparison, metric=settings.distance)
        if settings.one_is_same is not None:
            comparison = replace(comparison, one_is_same=settings.one_is_same)
        self.net = net
        self.weights = tuple(weights)
        self.settings = settings
        self.comparison = comparison
        self.metric: FormulaMetric | LearnedMetric = (
            LearnedMetric(net, comparison) if comparison.metric == "LEARNED" else FormulaMetric(comparison.metric)
        )
        self._parts: dict[int, Part] = {}
        self._preprocessing: dict[int, Preprocessing] = {}

    @cached_property
    def image_blobs(self) -> tuple[tuple[Blob, ...], ...]:
        """For each tower the blobs that take the image; see `graph.comparison.image_blobs`."""
        return image_blobs(self.net.graph, self.comparison.features, self.settings.inputs)

    def subject(self, images: str = "") -> Subject:
        """Describe the model for results and files."""
        digest = hashlib.sha256()
        for path in self.weights:
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        features = tuple(blob.name for blob in self.comparison.features)
        return Subject(self.net.graph.file, self.weights, digest.hexdigest()[:16], self.metric.kind, features, images)

    def preprocessing(self, side: int = 0) -> Preprocessing:
        """Return how images become the input of a tower. Raises GraphError if it cannot be determined."""
        side = self._tower(side)
        if side not in self._preprocessing:
            self._preprocessing[side] = find_preprocessing(
                self.net.graph,
                self.image_blobs[side][0],
                os.path.dirname(self.net.graph.file) or None,
                scale=self.settings.scale,
                mean_values=self.settings.mean_values,
                resize=self.settings.resize,
            )
        return self._preprocessing[side]

    @property
    def towers_differ(self) -> bool:
        """Whether the towers compute different features of an image: they have different parameters, for example."""
        if len(self.comparison.features) == 1:
            return False
        layers = [
            [(node.type, [use.param.id for use in node.params]) for node in nodes_before(self.net.graph, [feature])]
            for feature in self.comparison.features[:2]
        ]
        return layers[0] != layers[1] or self.preprocessing(0).mean is not None

    def embed(self, images: Floats, side: int = 0) -> Floats:
        """Compute the features, (N, K), of inputs (N, C, H, W) for any N; `side` 1 is the second tower."""
        side = self._tower(side)
        blobs = self.image_blobs[side]
        if side not in self._parts:
            self._parts[side] = Part(self.net, blobs, [self.comparison.features[side]])
        features = _in_batches(self._parts[side], [images] * len(blobs))
        return numpy.concatenate([batch.flatten(1).cpu().numpy() for batch in features])

    def embed_images(self, images: LabeledImages, rows: NDArray[numpy.intp] | None = None, side: int = 0) -> Floats:
        """Compute the features, (N, K), of images in files, or of some `rows` of them.

        Raises DataError, with the name of the image, if one cannot be read or has a feature that is not finite.
        """
        rows = numpy.arange(len(images)) if rows is None else rows
        preprocess = self.preprocessing(side)
        features = []
        for begin in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[begin : begin + _ROWS_AT_ONCE]
            inputs = preprocess(images.images(part))
            bad = not_finite(inputs)
            if bad is not None:
                name = images.names[int(part[bad.row])]
                raise DataError(f"image {quoted(name)} has values that are NaN or infinite; correct it")
            features.append(self.embed(inputs, side))
            invalid = numpy.flatnonzero(~numpy.isfinite(features[-1]).all(1))
            if len(invalid):
                name = images.names[int(part[invalid[0]])]
                raise DataError(
                    f"the feature of {quoted(name)} is not finite; the training of these weights may have diverged"
                )
        return numpy.concatenate(features)

    def _tower(self, side: int) -> int:
        return min(side, len(self.comparison.features) - 1)


def load_twin(
    net: Net, weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], settings: TwinSettings | None = None
) -> Twin:
    """Load weights into a net of phase TEST, and determine what it compares.

    Raises:
        NetError: a file cannot be used, a layer has no weights, or what the net compares cannot be determined.
    """
    paths = [os.fspath(path) for path in ([weights] if isinstance(weights, str | os.PathLike) else weights)]
    twin = Twin(net, settings, paths)
    loaded = {name for path in paths for name in net.load_weights(path).loaded}
    filled = {use.param.id for node in net.graph.nodes if node.name in loaded for use in node.params}
    missing = [node.name for node in net.graph.nodes if any(use.param.id not in filled for use in node.params)]
    if missing:
        raise WeightsError(
            f"{', '.join(paths)}: no weights for {len(missing)} layers of the net, the first is {quoted(missing[0])}; "
            "give the weights that were trained with it"
        )
    return twin
