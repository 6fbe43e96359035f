"""Are two pictures of one class? How well the distance of their features answers that.

Formulas are scikit-learn's and scipy's where they have them. The intervals take pairs for independent of each other;
where many pairs have images in common they are wider than said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siamese_proto.errors import DataError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Floats = NDArray[numpy.floating]

FALSE_ACCEPTS = (0.01, 0.001)  # the shares at which true accepts are told
_CONFIDENCE = 0.95
_NORMAL = 1.959963984540054  # its quantile at 0.975
_BINS = 40


@dataclass(frozen=True)
class Distances:
    """How far the two images of each pair lie apart, and whether they are of one class; (N,) each.

    `pair` numbers the pairs, the same number for those that are copies of each other; None: all are different.
    """

    distance: Floats
    same: NDArray[numpy.bool_]
    pair: NDArray[numpy.int64] | None = None

    def __len__(self) -> int:
        return len(self.same)

    def part(self, rows: NDArray[numpy.intp]) -> Distances:
        """Some of the pairs."""
        return Distances(self.distance[rows], self.same[rows], None if self.pair is None else self.pair[rows])

    @property
    def distinct(self) -> int:
        """The number of different pairs."""
        return len(self) if self.pair is None else len(set(self.pair.tolist()))


@dataclass(frozen=True)
class Share:
    """A share and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


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
    accuracy: Share  # the share of right verdicts; Wilson's interval
    true_accepts: float  # of the pairs of one class, those taken for such
    false_accepts: float  # of the others, those taken for pairs of one class

    def __str__(self) -> str:
        return (
            f"AUC {self.auc:.4f}, balanced accuracy {self.balanced_accuracy:.4f} at threshold {self.threshold:.4f} "
            f"({self.pairs} pairs, {self.same} of them same)"
        )


@dataclass(frozen=True)
class Roc:
    """False and true accepts at every distance worth taking as a threshold, (M,) each, from none accepted to all."""

    false_accepts: Floats
    true_accepts: Floats
    thresholds: Floats  # pairs at this distance and closer are accepted; the first, where none is, is -inf


@dataclass(frozen=True)
class TrueAccepts:
    """Of the pairs of one class, the share accepted when at most so many of the others are."""

    at_most: float
    share: Share | None  # None: there are too few pairs of two classes to tell so small a share of them
    threshold: float | None


@dataclass(frozen=True)
class Calibration:
    """The chance that two images are of one class, `1 / (1 + exp(-(slope * distance + intercept)))`.

    Fitted by logistic regression as if as many pairs were of one class as of two.
    """

    slope: float
    intercept: float

    def __call__(self, distance: float) -> float:
        exponent = self.slope * distance + self.intercept
        return 1 / (1 + math.exp(-exponent)) if exponent >= 0 else math.exp(exponent) / (1 + math.exp(exponent))


@dataclass(frozen=True)
class Judgement:
    """All there is to say of the distances of a set of pairs.

    The threshold and the calibration come from one half of the pairs, `verdicts` from the other half; copies of a pair
    are in the same half. What needs no threshold is measured on all pairs.
    """

    pairs: int
    same: int
    chosen_on: int  # pairs that the threshold was chosen on; 0: it was given
    verdicts: Verification
    auc: Share  # the interval after DeLong, DeLong and Clarke-Pearson 1988
    equal_error: float  # where as large a share of pairs of two classes is accepted as is rejected of the others
    accepts: tuple[TrueAccepts, ...]
    roc: Roc
    calibration: Calibration
    edges: Floats  # of the histogram, (B + 1,)
    same_counts: NDArray[numpy.int64]  # (B,)
    different_counts: NDArray[numpy.int64]  # (B,)
    distinct: int = 0  # pairs that are different; 0: unknown


def check_pairs(pairs: Distances, least: int = 1) -> None:
    """DataError where pairs cannot be judged: none, of one kind only, or with distances that are no numbers."""
    import numpy

    if not len(pairs):
        raise DataError("there are no pairs to judge")
    broken = numpy.flatnonzero(~numpy.isfinite(pairs.distance))
    if len(broken):
        raise DataError(
            f"{len(broken)} of {len(pairs)} distances are not finite, that of pair {broken[0]} first; are these the "
            "weights of a training that diverged?"
        )
    for kind, count in (("same", int(pairs.same.sum())), ("different", int((~pairs.same).sum()))):
        if count < least:
            other = "of one class" if kind == "same" else "of two classes"
            raise DataError(
                f"{count} of {len(pairs)} pairs are {other}, and judging takes at least {least}; give pairs of both "
                "kinds"
            )


def roc(pairs: Distances) -> Roc:
    """The receiver operating characteristic of `closer than`."""
    from sklearn.metrics import roc_curve

    check_pairs(pairs)
    false_accepts, true_accepts, thresholds = roc_curve(pairs.same, -pairs.distance, drop_intermediate=False)
    return Roc(false_accepts, true_accepts, -thresholds)


def best_threshold(pairs: Distances) -> float:
    """The threshold with the best balanced accuracy on these pairs, halfway between two distances."""
    import numpy

    curve = roc(pairs)
    best = int(numpy.argmax(curve.true_accepts - curve.false_accepts))
    closer = float(curve.thresholds[best]) if best else float(pairs.distance.min())
    farther = pairs.distance[pairs.distance > closer]
    return (closer + float(farther.min())) / 2 if len(farther) else closer + 1.0


def verify(chosen_on: Distances, judged_on: Distances) -> Verification:
    """Choose the threshold on one set of pairs and judge it on another; both need pairs of either kind."""
    return verify_at(best_threshold(chosen_on), judged_on)


def verify_at(threshold: float, pairs: Distances) -> Verification:
    """Judge a threshold; DataError where the pairs are not of both kinds."""
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    check_pairs(pairs)
    verdict = pairs.distance < threshold
    return Verification(
        pairs=len(pairs),
        same=int(pairs.same.sum()),
        auc=float(roc_auc_score(pairs.same, -pairs.distance)),
        threshold=threshold,
        balanced_accuracy=float(balanced_accuracy_score(pairs.same, verdict)),
        accuracy=share(int((verdict == pairs.same).sum()), len(pairs)),
        true_accepts=float(verdict[pairs.same].mean()),
        false_accepts=float(verdict[~pairs.same].mean()),
    )


def share(hits: int, count: int) -> Share:
    """`hits` of `count`, with Wilson's interval."""
    from scipy.stats import binomtest

    interval = binomtest(hits, count).proportion_ci(_CONFIDENCE, method="wilson")
    return Share(hits / count, float(interval.low), float(interval.high))


def auc(pairs: Distances) -> Share:
    """The area below the ROC, with its interval after DeLong.

    That would be of width 0 where all pairs are told apart; there it is Wilson's for as many as are of the rarer kind.
    """
    from scipy.stats import rankdata
    from sklearn.metrics import roc_auc_score

    check_pairs(pairs)
    value = float(roc_auc_score(pairs.same, -pairs.distance))
    same, different = -pairs.distance[pairs.same], -pairs.distance[~pairs.same]
    if min(len(same), len(different)) < 2:
        return Share(value, 0.0, 1.0)
    ranks = rankdata(_joined(same, different))
    of_same = (ranks[: len(same)] - rankdata(same)) / len(different)  # (n_same,), the share that lies farther
    of_different = 1 - (ranks[len(same) :] - rankdata(different)) / len(same)
    variance = of_same.var(ddof=1) / len(same) + of_different.var(ddof=1) / len(different)
    if value in (0, 1):
        rarer = min(len(same), len(different))
        return share(round(value * rarer), rarer)
    half = _NORMAL * math.sqrt(variance)
    return Share(value, max(0.0, value - half), min(1.0, value + half))


def _joined(first: Floats, second: Floats) -> Floats:
    import numpy

    joined: Floats = numpy.concatenate([first, second])
    return joined


def equal_error(curve: Roc) -> float:
    """The share of wrong verdicts at the point of the ROC, a line through its points, where both kinds are as many."""
    import numpy

    missed = 1 - curve.true_accepts
    after = int(numpy.argmax(curve.false_accepts >= missed))  # above 0: at the first point none is accepted
    gap_before = missed[after - 1] - curve.false_accepts[after - 1]  # above 0
    gap_after = missed[after] - curve.false_accepts[after]  # 0 or below
    way = gap_before / (gap_before - gap_after)
    return float(curve.false_accepts[after - 1] + way * (curve.false_accepts[after] - curve.false_accepts[after - 1]))


def true_accepts(curve: Roc, pairs: Distances, at_most: float) -> TrueAccepts:
    """The true accepts at the widest threshold that accepts at most this share of pairs of two classes."""
    import numpy

    same = int(pairs.same.sum())
    if (len(pairs) - same) * at_most < 1:
        return TrueAccepts(at_most, None, None)
    place = int(numpy.flatnonzero(curve.false_accepts <= at_most)[-1])
    threshold = float(curve.thresholds[place])
    return TrueAccepts(
        at_most, share(round(curve.true_accepts[place] * same), same), threshold if math.isfinite(threshold) else None
    )


def calibrate(pairs: Distances) -> Calibration:
    """Fit the chance of "same" to the distances."""
    from sklearn.linear_model import LogisticRegression

    check_pairs(pairs)
    distance = pairs.distance.astype(float)
    spread = float(distance.std()) or 1.0  # so that the regression's slight pull to 0 is the same in any unit
    fitted = LogisticRegression(class_weight="balanced").fit((distance / spread)[:, None], pairs.same)
    return Calibration(float(fitted.coef_[0, 0]) / spread, float(fitted.intercept_[0]))


def halves(pairs: Distances, seed: int = 0) -> tuple[Distances, Distances]:
    """Two halves, drawn at random, with as many pairs of either kind; DataError below two pairs a kind.

    Copies of a pair are in the same half, so that what is chosen on one half is not measured on a pair of it.
    """
    import numpy
    from sklearn.model_selection import train_test_split

    check_pairs(pairs, least=2)
    if pairs.pair is not None and pairs.distinct < len(pairs):
        return _halves_of_repeated(pairs, pairs.pair, seed)
    one, other = train_test_split(
        numpy.arange(len(pairs)), test_size=0.5, random_state=seed % 2**32, stratify=pairs.same
    )
    return pairs.part(one), pairs.part(other)


def _halves_of_repeated(pairs: Distances, numbers: NDArray[numpy.int64], seed: int) -> tuple[Distances, Distances]:
    """Pairs with the most copies first, each goes with all its copies to the half that has fewer of its kind."""
    import numpy

    _, first, group, copies = numpy.unique(numbers, return_index=True, return_inverse=True, return_counts=True)
    check_pairs(pairs.part(first), least=2)
    order = numpy.random.default_rng(seed % 2**32).permutation(len(first))
    in_other = numpy.zeros(len(first), numpy.bool_)
    counts = {True: [0, 0], False: [0, 0]}
    for place in order[numpy.argsort(-copies[order], kind="stable")].tolist():
        of_kind = counts[bool(pairs.same[first[place]])]
        half = int(of_kind[1] < of_kind[0])
        of_kind[half] += int(copies[place])
        in_other[place] = half == 1
    return pairs.part(numpy.flatnonzero(~in_other[group])), pairs.part(numpy.flatnonzero(in_other[group]))


def judge(
    pairs: Distances,
    *,
    threshold: float | None = None,
    seed: int = 0,
    false_accepts: Sequence[float] = FALSE_ACCEPTS,
) -> Judgement:
    """Judge distances; a `threshold` that is given is judged on all pairs, else one half of them chooses it."""
    import numpy

    check_pairs(pairs, least=1 if threshold is not None else 2)
    chosen_on, judged_on = halves(pairs, seed) if threshold is None else (pairs, pairs)
    curve = roc(pairs)
    nearest, farthest = float(pairs.distance.min()), float(pairs.distance.max())
    edges = numpy.histogram_bin_edges(pairs.distance, _BINS, (min(0.0, nearest), max(farthest, 1e-12)))
    return Judgement(
        pairs=len(pairs),
        same=int(pairs.same.sum()),
        chosen_on=len(chosen_on) if threshold is None else 0,
        verdicts=verify(chosen_on, judged_on) if threshold is None else verify_at(threshold, pairs),
        auc=auc(pairs),
        equal_error=equal_error(curve),
        accepts=tuple(true_accepts(curve, pairs, at_most) for at_most in false_accepts),
        roc=curve,
        calibration=calibrate(chosen_on),
        edges=edges,
        same_counts=numpy.histogram(pairs.distance[pairs.same], edges)[0],
        different_counts=numpy.histogram(pairs.distance[~pairs.same], edges)[0],
        distinct=pairs.distinct,
    )
