"""Verification: how well the distance of two features tells whether two images are of one class.

Formulas are scikit-learn's and scipy's where they have them. The confidence intervals assume independent pairs; where
many pairs have images in common, the true intervals are wider.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray

from siamese_proto.errors import DataError

Floats = NDArray[numpy.floating]

FALSE_ACCEPTS = (0.01, 0.001)  # the false accept rates at which true accepts are reported
_CONFIDENCE = 0.95
_NORMAL = 1.959963984540054  # quantile of the normal distribution at 0.975
_BINS = 40
_POINTS = 400


@dataclass(frozen=True)
class Distances:
    """The distance of the two images of each pair, and whether they are of one class; (N,) each.

    `pair` numbers the pairs, with the same number for copies of a pair; None: all pairs are different.
    """

    distance: Floats
    same: NDArray[numpy.bool_]
    pair: NDArray[numpy.int64] | None = None

    def __len__(self) -> int:
        return len(self.same)

    def select(self, rows: NDArray[numpy.intp]) -> Distances:
        """Return the pairs in these rows."""
        return Distances(self.distance[rows], self.same[rows], None if self.pair is None else self.pair[rows])

    @property
    def distinct(self) -> int:
        """The number of different pairs."""
        return len(self) if self.pair is None else len(numpy.unique(self.pair))


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ThresholdScores:
    """Scores of the decision `same if distance < threshold`.

    `auc` is the probability that a pair of one class is closer than a pair of two; 0.5 is guessing. `balanced_accuracy`
    is the mean of the accuracy on the pairs of one class and the accuracy on the others, so that "always different"
    scores 0.5 however rare the pairs of one class are.
    """

    pairs: int
    same: int
    auc: float
    threshold: float
    balanced_accuracy: float
    accuracy: Estimate  # with Wilson's interval
    true_accepts: float  # share of the pairs of one class that are accepted as such
    false_accepts: float  # share of the other pairs that are accepted

    def __str__(self) -> str:
        return (
            f"AUC {self.auc:.4f}, balanced accuracy {self.balanced_accuracy:.4f} at threshold {self.threshold:.4f} "
            f"({self.pairs} pairs, {self.same} of them same)"
        )


@dataclass(frozen=True)
class Roc:
    """The ROC curve: false and true accepts at each useful threshold, (M,) each, from none accepted to all."""

    false_accepts: Floats
    true_accepts: Floats
    thresholds: Floats  # pairs up to this distance are accepted; the first, where none is, is -inf

    def thinned(self) -> Roc:
        """Return the curve with at most 800 points: half of them spread evenly, half at low false accept rates."""
        count = len(self.thresholds)
        if count <= 2 * _POINTS:
            return self
        spread = [numpy.linspace(0, count - 1, _POINTS), numpy.geomspace(1, count - 1, _POINTS)]
        rows = numpy.unique(numpy.concatenate(spread).round().astype(int))
        return Roc(self.false_accepts[rows], self.true_accepts[rows], self.thresholds[rows])


@dataclass(frozen=True)
class TrueAccepts:
    """The true accept rate at a limited false accept rate."""

    at_most: float  # the limit
    share: Estimate | None  # None: there are too few pairs of two classes for this limit
    threshold: float | None


@dataclass(frozen=True)
class Calibration:
    """The probability that two images are of one class, `1 / (1 + exp(-(slope * distance + intercept)))`.

    Fitted by logistic regression with equal weight for the pairs of one class and the pairs of two.
    """

    slope: float
    intercept: float

    def __call__(self, distance: float) -> float:
        """Return the probability at a distance."""
        from scipy.special import expit

        return float(expit(self.slope * distance + self.intercept))


@dataclass(frozen=True)
class VerificationResults:
    """All verification scores of a set of pairs.

    The threshold and the calibration come from one half of the pairs, `at_threshold` from the other half; copies of a
    pair are in the same half. Scores that need no threshold come from all pairs.
    """

    pairs: int
    same: int
    chosen_on: int  # number of pairs that the threshold was chosen on; 0: the caller specified it
    at_threshold: ThresholdScores
    auc: Estimate  # with the interval of DeLong, DeLong and Clarke-Pearson 1988
    equal_error: float  # where the rates of false accepts and of false rejects are equal
    accepts: tuple[TrueAccepts, ...]
    roc: Roc
    calibration: Calibration
    edges: Floats  # of the histogram, (B + 1,)
    same_counts: NDArray[numpy.int64]  # (B,)
    different_counts: NDArray[numpy.int64]  # (B,)
    distinct: int = 0  # number of different pairs; 0: unknown


def check_pairs(pairs: Distances, least: int = 1) -> None:
    """Check that pairs can be evaluated.

    Raises:
        DataError: there are no pairs, fewer than `least` of either kind, or distances that are not finite.
    """
    if not len(pairs):
        raise DataError("there are no pairs to evaluate")
    invalid = numpy.flatnonzero(~numpy.isfinite(pairs.distance))
    if len(invalid):
        raise DataError(
            f"{len(invalid)} of {len(pairs)} distances are not finite, the first is that of pair {invalid[0]}; the "
            "training of these weights may have diverged"
        )
    same = int(pairs.same.sum())
    for kind, count in (("of one class", same), ("of two classes", len(pairs) - same)):
        if count < least:
            raise DataError(
                f"{count} of {len(pairs)} pairs are {kind}: expected at least {least}; give pairs of both kinds"
            )


def roc(pairs: Distances) -> Roc:
    """Compute the ROC curve of `closer than`."""
    from sklearn.metrics import roc_curve

    check_pairs(pairs)
    false_accepts, true_accepts, thresholds = roc_curve(pairs.same, -pairs.distance, drop_intermediate=False)
    return Roc(false_accepts, true_accepts, -thresholds)


def best_threshold(pairs: Distances) -> float:
    """Return the threshold with the best balanced accuracy on these pairs, halfway between two distances."""
    curve = roc(pairs)
    best = int(numpy.argmax(curve.true_accepts - curve.false_accepts))
    closer = float(curve.thresholds[best]) if best else float(pairs.distance.min())
    farther = pairs.distance[pairs.distance > closer]
    return (closer + float(farther.min())) / 2 if len(farther) else closer + 1.0


def score_threshold(threshold: float, pairs: Distances) -> ThresholdScores:
    """Score the decision `same if distance < threshold`. Raises DataError unless there are pairs of both kinds."""
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    check_pairs(pairs)
    accepted = pairs.distance < threshold
    return ThresholdScores(
        pairs=len(pairs),
        same=int(pairs.same.sum()),
        auc=float(roc_auc_score(pairs.same, -pairs.distance)),
        threshold=threshold,
        balanced_accuracy=float(balanced_accuracy_score(pairs.same, accepted)),
        accuracy=proportion(int((accepted == pairs.same).sum()), len(pairs)),
        true_accepts=float(accepted[pairs.same].mean()),
        false_accepts=float(accepted[~pairs.same].mean()),
    )


def proportion(hits: int, count: int) -> Estimate:
    """Return `hits / count` with Wilson's interval."""
    from scipy.stats import binomtest

    interval = binomtest(hits, count).proportion_ci(_CONFIDENCE, method="wilson")
    return Estimate(hits / count, float(interval.low), float(interval.high))


def auc(pairs: Distances) -> Estimate:
    """Compute the area under the ROC curve, with DeLong's interval.

    That interval has width 0 where the distance separates all pairs; there it is Wilson's, for as many trials as there
    are pairs of the rarer kind.
    """
    from scipy.stats import rankdata
    from sklearn.metrics import roc_auc_score

    check_pairs(pairs)
    value = float(roc_auc_score(pairs.same, -pairs.distance))
    same, different = -pairs.distance[pairs.same], -pairs.distance[~pairs.same]
    rarer = min(len(same), len(different))
    if rarer < 2:
        return Estimate(value, 0.0, 1.0)
    if value in (0, 1):
        return proportion(round(value * rarer), rarer)
    ranks = rankdata(numpy.concatenate([same, different]))
    of_same = (ranks[: len(same)] - rankdata(same)) / len(different)  # (n_same,), share of the others that is farther
    of_different = 1 - (ranks[len(same) :] - rankdata(different)) / len(same)
    half = _NORMAL * math.sqrt(of_same.var(ddof=1) / len(same) + of_different.var(ddof=1) / len(different))
    return Estimate(value, max(0.0, value - half), min(1.0, value + half))


def equal_error_rate(curve: Roc) -> float:
    """Return the error rate where the ROC curve, as a line through its points, has equal rates of both errors."""
    missed = 1 - curve.true_accepts
    after = int(numpy.argmax(curve.false_accepts >= missed))  # above 0: no pair is accepted at the first point
    gap_before = missed[after - 1] - curve.false_accepts[after - 1]  # above 0
    gap_after = missed[after] - curve.false_accepts[after]  # 0 or below
    fraction = gap_before / (gap_before - gap_after)
    step = curve.false_accepts[after] - curve.false_accepts[after - 1]
    return float(curve.false_accepts[after - 1] + fraction * step)


def true_accepts(curve: Roc, pairs: Distances, at_most: float) -> TrueAccepts:
    """Return the true accept rate at the largest threshold with a false accept rate of at most `at_most`."""
    same = int(pairs.same.sum())
    if (len(pairs) - same) * at_most < 1:
        return TrueAccepts(at_most, None, None)
    row = int(numpy.flatnonzero(curve.false_accepts <= at_most)[-1])
    threshold = float(curve.thresholds[row])
    share = proportion(round(curve.true_accepts[row] * same), same)
    return TrueAccepts(at_most, share, threshold if math.isfinite(threshold) else None)


def calibrate(pairs: Distances) -> Calibration:
    """Fit the probability of "same" to the distances."""
    from sklearn.linear_model import LogisticRegression

    check_pairs(pairs)
    distance = pairs.distance.astype(float)
    spread = float(distance.std()) or 1.0  # so that the regularization has the same effect in any unit
    model = LogisticRegression(class_weight="balanced").fit((distance / spread)[:, None], pairs.same)
    return Calibration(float(model.coef_[0, 0]) / spread, float(model.intercept_[0]))


def split_in_halves(pairs: Distances, seed: int = 0) -> tuple[Distances, Distances]:
    """Split pairs at random into two halves with equal numbers of either kind.

    Copies of a pair are in the same half, so that no pair is in both. Raises DataError for fewer than two pairs of
    either kind.
    """
    from sklearn.model_selection import train_test_split

    check_pairs(pairs, least=2)
    seed %= 2**32
    if pairs.pair is not None and pairs.distinct < len(pairs):
        in_second = _in_second_half(pairs, pairs.pair, seed)
        one, other = numpy.flatnonzero(~in_second), numpy.flatnonzero(in_second)
    else:
        rows = numpy.arange(len(pairs))
        one, other = train_test_split(rows, test_size=0.5, random_state=seed, stratify=pairs.same)
    return pairs.select(one), pairs.select(other)


def _in_second_half(pairs: Distances, numbers: NDArray[numpy.int64], seed: int) -> NDArray[numpy.bool_]:
    """Put each pair, those with the most copies first, with all its copies in the half that has fewer of its kind."""
    _, first, group, copies = numpy.unique(numbers, return_index=True, return_inverse=True, return_counts=True)
    check_pairs(pairs.select(first), least=2)
    order = numpy.random.default_rng(seed).permutation(len(first))
    in_second = numpy.zeros(len(first), numpy.bool_)
    counts = {True: [0, 0], False: [0, 0]}
    for place in order[numpy.argsort(-copies[order], kind="stable")].tolist():
        of_kind = counts[bool(pairs.same[first[place]])]
        half = int(of_kind[1] < of_kind[0])
        of_kind[half] += int(copies[place])
        in_second[place] = half == 1
    return in_second[group]


def verify(pairs: Distances, *, threshold: float | None = None, seed: int = 0) -> VerificationResults:
    """Compute all verification scores of pairs.

    Args:
        pairs: Distances of pairs of both kinds.
        threshold: Scored on all pairs. None: chosen on one half of the pairs and scored on the other.
        seed: Of the halves.

    Raises:
        DataError: there are too few pairs of either kind, or distances that are not finite.
    """
    check_pairs(pairs, least=1 if threshold is not None else 2)
    chosen_on, scored_on = split_in_halves(pairs, seed) if threshold is None else (pairs, pairs)
    curve = roc(pairs)
    nearest, farthest = float(pairs.distance.min()), float(pairs.distance.max())
    edges = numpy.histogram_bin_edges(pairs.distance, _BINS, (min(0.0, nearest), max(farthest, 1e-12)))
    return VerificationResults(
        pairs=len(pairs),
        same=int(pairs.same.sum()),
        chosen_on=len(chosen_on) if threshold is None else 0,
        at_threshold=score_threshold(best_threshold(chosen_on) if threshold is None else threshold, scored_on),
        auc=auc(pairs),
        equal_error=equal_error_rate(curve),
        accepts=tuple(true_accepts(curve, pairs, at_most) for at_most in FALSE_ACCEPTS),
        roc=curve,
        calibration=calibrate(chosen_on),
        edges=edges,
        same_counts=numpy.histogram(pairs.distance[pairs.same], edges)[0],
        different_counts=numpy.histogram(pairs.distance[~pairs.same], edges)[0],
        distinct=pairs.distinct,
    )
