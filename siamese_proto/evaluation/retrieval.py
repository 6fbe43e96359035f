"""How well features tell classes that nobody trained on: few examples a class, and the nearest of many images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from siamese_proto.errors import DataError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Floats = NDArray[numpy.floating]
    Labels = NDArray[numpy.integer]

AT = (1, 5, 10)  # the numbers of neighbours that recall is told for
_EPISODES_AT_ONCE = 256
_QUERIES_AT_ONCE = 64


class Metric(Protocol):
    """How far features lie apart."""

    def rows(self, first: Floats, second: Floats) -> Floats:
        """(N, K), (N, K) -> (N,), row by row."""

    def matrix(self, first: Floats, second: Floats) -> Floats:
        """(N, K), (M, K) -> (N, M), each with each."""


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.error:.4f}"


@dataclass(frozen=True)
class FewShot:
    """One query against `shot` examples of each of `way` classes: how often its own class is the nearest."""

    way: int
    shot: int
    episodes: int
    classes: int  # that have images enough
    accuracy: Mean


@dataclass(frozen=True)
class Retrieval:
    """Each query against all other images, nearest first."""

    queries: int
    images: int
    classes: int
    recall: dict[int, Mean]  # by number of neighbours: the share of queries with one of their class among them
    mean_average_precision: Mean


def few_shot(
    queries: Floats,
    examples: Floats,
    labels: Labels,
    metric: Metric,
    *,
    way: int = 5,
    shot: int = 1,
    episodes: int = 1000,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> FewShot:
    """N-way K-shot accuracy over drawn episodes.

    `queries` and `examples` are the features of the same images, (N, K), the same array unless the towers of a net
    differ. An episode draws `way` classes, `shot` examples of each and another image of the first class; the class with
    the smallest mean distance wins, and a tie of m classes counts 1 / m. Raises DataError where too few classes have
    more than `shot` images.
    """
    import numpy

    drawn = _episodes(labels, way, shot, episodes, seed)
    scores = []
    for begin in range(0, episodes, _EPISODES_AT_ONCE):
        chosen = drawn[begin : begin + _EPISODES_AT_ONCE]  # (e, 1 + way * shot)
        first = queries[chosen[:, 0]].repeat(way * shot, axis=0)
        distances = metric.rows(first, examples[chosen[:, 1:].reshape(-1)])
        means = distances.reshape(len(chosen), way, shot).mean(2)  # (e, way)
        nearest = means == means.min(1, keepdims=True)
        scores.append(nearest[:, 0] / nearest.sum(1))
        progress(begin + len(chosen))
    classes = int((numpy.unique(labels, return_counts=True)[1] > shot).sum())
    return FewShot(way, shot, episodes, classes, mean(numpy.concatenate(scores)))


def _episodes(labels: Labels, way: int, shot: int, episodes: int, seed: int) -> NDArray[numpy.intp]:
    """For each episode the query and then the examples, class by class, the query's class first."""
    import numpy

    if min(way - 1, shot, episodes) < 1:
        raise DataError(f"{way}-way {shot}-shot over {episodes} episodes cannot be drawn; give 2, 1 and 1 or more")
    names, counts = numpy.unique(labels, return_counts=True)
    members = [numpy.flatnonzero(labels == name) for name, count in zip(names, counts, strict=True) if count > shot]
    if len(members) < way:
        raise DataError(
            f"{way}-way {shot}-shot needs {way} classes of at least {shot + 1} images; {len(members)} of the "
            f"{len(names)} classes are as large; give a smaller --way or --shot"
        )
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
    metric: Metric,
    *,
    at: Sequence[int] = AT,
    most: int = 1000,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Retrieval:
    """Recall among the nearest, and mean average precision, each image against all others.

    `queries` and `images` are the features of the same images, (N, K). Of more than `most` images that have another of
    their class, so many are drawn as queries. Images at one distance are ranked by chance. Raises DataError where no
    class has two images.
    """
    import numpy
    from sklearn.metrics import average_precision_score

    names, of_class, counts = numpy.unique(labels, return_inverse=True, return_counts=True)
    candidates = numpy.flatnonzero(counts[of_class] > 1)
    if not len(candidates):
        raise DataError("no class has two images, so nothing can be found; give more images of each class")
    generator = numpy.random.default_rng(seed)
    chosen = numpy.sort(generator.choice(candidates, min(most, len(candidates)), replace=False))
    hits = numpy.zeros((len(chosen), max(at)), numpy.bool_)
    precisions = numpy.empty(len(chosen))
    for begin in range(0, len(chosen), _QUERIES_AT_ONCE):
        rows = chosen[begin : begin + _QUERIES_AT_ONCE]
        for place, (row, distances) in enumerate(zip(rows, metric.matrix(queries[rows], images), strict=True), begin):
            others = generator.permutation(numpy.delete(numpy.arange(len(labels)), row))
            alike = labels[others] == labels[row]
            precisions[place] = average_precision_score(alike, -distances[others])
            nearest = numpy.argsort(distances[others], kind="stable")[: max(at)]
            hits[place, : len(nearest)] = alike[nearest]
        progress(begin + len(rows))
    recall = {count: mean(hits[:, :count].any(1).astype(float)) for count in at}
    return Retrieval(len(chosen), len(labels), len(names), recall, mean(precisions))


def mean(values: Floats) -> Mean:
    """The mean of independent values, (N,), with its standard error (0 for a single one)."""
    count = len(values)
    return Mean(float(values.mean()), float(values.std(ddof=1)) / count**0.5 if count > 1 else 0.0)
