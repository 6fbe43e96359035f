"""How well features separate classes that were not trained on: few-shot classification and retrieval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy
from numpy.typing import NDArray

from siamese_proto.errors import DataError

Floats = NDArray[numpy.floating]
Labels = NDArray[numpy.integer]

NEIGHBORS = (1, 5, 10)  # the numbers of neighbors that recall is reported for
_EPISODES_AT_ONCE = 256
_QUERIES_AT_ONCE = 64


class FeatureMetric(Protocol):
    """A distance of features."""

    def rows(self, first: Floats, second: Floats) -> Floats:
        """(N, K), (N, K) -> (N,), row by row."""

    def matrix(self, first: Floats, second: Floats) -> Floats:
        """(N, K), (M, K) -> (N, M), each with each."""


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error."""

    value: float
    error: float


@dataclass(frozen=True)
class FewShot:
    """N-way K-shot accuracy: how often, of `shot` examples of each of `way` classes, the query's own are nearest."""

    way: int
    shot: int
    episodes: int
    classes: int  # that have enough images
    accuracy: Mean


@dataclass(frozen=True)
class Retrieval:
    """Scores of the neighbors of each query among all other images."""

    queries: int
    images: int
    classes: int
    recall: dict[int, Mean]  # by number of neighbors: share of queries with an image of their class among them
    mean_average_precision: Mean


def few_shot(
    queries: Floats,
    examples: Floats,
    labels: Labels,
    metric: FeatureMetric,
    *,
    way: int = 5,
    shot: int = 1,
    episodes: int = 1000,
    seed: int = 0,
) -> FewShot:
    """Compute N-way K-shot accuracy over random episodes.

    `queries` and `examples` are the features of the same images, (N, K), the same array unless the towers of a net
    differ. An episode draws `way` classes, `shot` examples of each and another image of the first class; the class with
    the smallest mean distance wins, and a tie of m classes counts 1 / m. Raises DataError if too few classes have
    more than `shot` images.
    """
    if min(way - 1, shot, episodes) < 1:
        raise DataError(f"{way}-way {shot}-shot over {episodes} episodes cannot be drawn: expected at least 2, 1 and 1")
    names, counts = numpy.unique(labels, return_counts=True)
    members = [numpy.flatnonzero(labels == name) for name in names[counts > shot]]
    if len(members) < way:
        raise DataError(
            f"{way}-way {shot}-shot needs {way} classes of at least {shot + 1} images, but only {len(members)} of the "
            f"{len(names)} classes have that many; give a smaller --way or --shot"
        )
    drawn = _draw_episodes(members, way, shot, episodes, seed)
    scores = []
    for begin in range(0, episodes, _EPISODES_AT_ONCE):
        chosen = drawn[begin : begin + _EPISODES_AT_ONCE]  # (e, 1 + way * shot)
        first = queries[chosen[:, 0]].repeat(way * shot, axis=0)
        distances = metric.rows(first, examples[chosen[:, 1:].reshape(-1)])
        means = distances.reshape(len(chosen), way, shot).mean(2)  # (e, way)
        nearest = means == means.min(1, keepdims=True)
        scores.append(nearest[:, 0] / nearest.sum(1))
    return FewShot(way, shot, episodes, len(members), mean(numpy.concatenate(scores)))


def _draw_episodes(
    members: Sequence[NDArray[numpy.intp]], way: int, shot: int, episodes: int, seed: int
) -> NDArray[numpy.intp]:
    """Draw for each episode a query and then the examples, class by class, the query's class first."""
    generator = numpy.random.default_rng(seed)
    drawn = numpy.empty((episodes, 1 + way * shot), numpy.intp)
    for row in drawn:
        own, *others = generator.choice(len(members), way, replace=False)
        row[: shot + 1] = generator.choice(members[own], shot + 1, replace=False)
        row[shot + 1 :] = numpy.concatenate([generator.choice(members[other], shot, replace=False) for other in others])
    return drawn


def retrieve(
    queries: Floats,
    images: Floats,
    labels: Labels,
    metric: FeatureMetric,
    *,
    at: Sequence[int] = NEIGHBORS,
    most: int = 1000,
    seed: int = 0,
) -> Retrieval:
    """Compute recall among the nearest neighbors and mean average precision, each image against all others.

    `queries` and `images` are the features of the same images, (N, K). At most `most` of the images that have another
    one of their class are queries; recall is computed for `at` neighbors. Images at the same distance are ranked at
    random. Raises DataError if no class has two images.
    """
    from sklearn.metrics import average_precision_score

    names, of_class, counts = numpy.unique(labels, return_inverse=True, return_counts=True)
    candidates = numpy.flatnonzero(counts[of_class] > 1)
    if not len(candidates):
        raise DataError("no class has two images, so nothing can be retrieved; give more images of each class")
    generator = numpy.random.default_rng(seed)
    chosen = numpy.sort(generator.choice(candidates, min(most, len(candidates)), replace=False))
    hits = numpy.zeros((len(chosen), max(at)), numpy.bool_)
    precisions = numpy.empty(len(chosen))
    for begin in range(0, len(chosen), _QUERIES_AT_ONCE):
        rows = chosen[begin : begin + _QUERIES_AT_ONCE]
        for place, (row, distances) in enumerate(zip(rows, metric.matrix(queries[rows], images), strict=True), begin):
            others = generator.permutation(numpy.delete(numpy.arange(len(labels)), row))
            of_same_class = labels[others] == labels[row]
            precisions[place] = average_precision_score(of_same_class, -distances[others])
            nearest = numpy.argsort(distances[others], kind="stable")[: max(at)]
            hits[place, : len(nearest)] = of_same_class[nearest]
    recall = {count: mean(hits[:, :count].any(1).astype(float)) for count in at}
    return Retrieval(len(chosen), len(labels), len(names), recall, mean(precisions))


def mean(values: Floats) -> Mean:
    """Return the mean of independent values, (N,), with its standard error (0 for a single value)."""
    from scipy.stats import sem

    return Mean(float(values.mean()), float(sem(values)) if len(values) > 1 else 0.0)
