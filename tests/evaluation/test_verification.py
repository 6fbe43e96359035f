"""Thresholds, curves and scores against values computed by hand, naive loops and searches, on data with ties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.stats import bootstrap

from siamese_proto.errors import DataError
from siamese_proto.evaluation.pair_distances import HardPair
from siamese_proto.evaluation.plots.sheets import draw_pairs
from siamese_proto.evaluation.verification import (
    Calibration,
    Distances,
    Estimate,
    ThresholdScores,
    auc,
    best_threshold,
    calibrate,
    equal_error_rate,
    proportion,
    roc,
    score_threshold,
    split_in_halves,
    true_accepts,
    verify,
)

# Few values, for many ties within a kind and across kinds.
KIND = st.lists(st.integers(0, 9).map(lambda value: value / 4), min_size=1, max_size=30)


def pairs(same: list[float], different: list[float]) -> Distances:
    return Distances(np.array([*same, *different], np.float32), np.array([True] * len(same) + [False] * len(different)))


def drawn(seed: int, same: int = 130, different: int = 210) -> Distances:
    draw = np.random.default_rng(seed)
    return pairs(list(draw.normal(1, 0.6, same).round(1)), list(draw.normal(1.8, 0.7, different).round(1)))


def score_pairs(chosen_on: Distances, scored_on: Distances) -> ThresholdScores:
    return score_threshold(best_threshold(chosen_on), scored_on)


def balanced(distances: Distances, threshold: float) -> float:
    verdict = distances.distance < threshold
    return float((verdict[distances.same].mean() + (~verdict)[~distances.same].mean()) / 2)


def test_separable_pairs_score_one() -> None:
    chosen, judged = pairs([0.1, 0.3], [0.9, 1.1, 2.0]), pairs([0.2], [1.0, 0.7])
    result = score_pairs(chosen, judged)
    assert result.threshold == pytest.approx(0.6)
    assert (result.auc, result.balanced_accuracy, result.accuracy.value) == (1.0, 1.0, 1.0)
    assert (result.pairs, result.same) == (3, 1)
    assert (result.true_accepts, result.false_accepts) == (1.0, 0.0)


def test_the_threshold_is_not_chosen_on_the_pairs_it_is_scored_on() -> None:
    result = score_pairs(pairs([0.1], [0.5]), pairs([0.4], [0.6, 0.2]))
    assert result.threshold == pytest.approx(0.3)
    assert result.balanced_accuracy == pytest.approx((0 + 0.5) / 2)
    assert result.accuracy.value == pytest.approx(1 / 3)
    assert result.auc == pytest.approx(0.5)


def test_always_different_has_a_balanced_accuracy_of_one_half() -> None:
    rare = pairs([1.0], [1.0] * 99)
    assert score_pairs(rare, rare).balanced_accuracy == 0.5


def test_no_threshold_does_better_than_the_one_chosen() -> None:
    for seed in range(50):
        sample = drawn(seed, 13, 21)
        candidates = [*sample.distance, sample.distance.max() + 1]
        best = max(balanced(sample, float(candidate)) for candidate in candidates)
        assert balanced(sample, best_threshold(sample)) == pytest.approx(best)


@pytest.mark.slow
@given(KIND, KIND)
@settings(deadline=None)
def test_auc_counts_the_pairs_of_pairs_in_the_right_order_and_ties_half(
    same: list[float], different: list[float]
) -> None:
    wins = sum((near < far) + (near == far) / 2 for near in same for far in different)
    assert auc(pairs(same, different)).value == pytest.approx(wins / (len(same) * len(different)))


def test_the_interval_of_the_auc_is_that_of_a_bootstrap() -> None:
    sample = drawn(3)
    same, different = sample.distance[sample.same], sample.distance[~sample.same]

    def statistic(near: np.ndarray, far: np.ndarray) -> float:
        return float((near[:, None] < far).mean() + (near[:, None] == far).mean() / 2)

    how = {"vectorized": False, "n_resamples": 400, "method": "percentile", "rng": 7}
    interval = bootstrap((same, different), statistic, **how).confidence_interval
    assert auc(sample).low == pytest.approx(interval.low, abs=0.01)
    assert auc(sample).high == pytest.approx(interval.high, abs=0.01)


def test_the_interval_has_a_width_for_separable_pairs() -> None:
    results = auc(pairs([0.1, 0.2, 0.3], [1.0] * 5 + [2.0]))
    assert (results.value, results.low, results.high) == (1.0, proportion(3, 3).low, 1.0)
    assert auc(pairs([3.0, 4.0], [1.0, 2.0, 0.5])).high == proportion(0, 2).high


@pytest.mark.slow
@given(KIND, KIND)
@settings(deadline=None)
def test_every_point_of_the_roc_is_what_its_threshold_accepts(same: list[float], different: list[float]) -> None:
    curve = roc(pairs(same, different))
    assert curve.thresholds[0] == -math.inf
    for false, true, threshold in zip(curve.false_accepts, curve.true_accepts, curve.thresholds, strict=True):
        assert true == pytest.approx(sum(value <= threshold for value in same) / len(same))
        assert false == pytest.approx(sum(value <= threshold for value in different) / len(different))
    assert (curve.false_accepts[-1], curve.true_accepts[-1]) == (1, 1)


@pytest.mark.slow
@given(KIND, KIND)
@settings(deadline=None)
def test_both_errors_are_equal_at_the_equal_error_rate(same: list[float], different: list[float]) -> None:
    curve = roc(pairs(same, different))
    rate = equal_error_rate(curve)
    # By bisection along the line through all points, whose length is false + true accepts.
    length = curve.false_accepts + curve.true_accepts
    low, high = 0.0, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        false, true = (np.interp(middle, length, values) for values in (curve.false_accepts, curve.true_accepts))
        low, high = (middle, high) if false < 1 - true else (low, middle)
    assert rate == pytest.approx(np.interp(low, length, curve.false_accepts), abs=1e-6)


@pytest.mark.parametrize("at_most", [0.01, 0.05, 0.3])
def test_true_accepts_are_the_maximum_over_all_allowed_thresholds(at_most: float) -> None:
    for seed in range(20):
        sample = drawn(seed)
        results = true_accepts(roc(sample), sample, at_most)
        accepted = [sample.distance <= threshold for threshold in [-1.0, *sample.distance]]
        allowed = [verdict[sample.same].mean() for verdict in accepted if verdict[~sample.same].mean() <= at_most]
        assert results.share is not None
        assert results.share.value == pytest.approx(max(allowed))
        if results.threshold is not None:
            assert (sample.distance <= results.threshold)[~sample.same].mean() <= at_most


def test_too_few_different_pairs_for_a_false_accept_rate_have_no_true_accepts() -> None:
    sample = drawn(1)
    assert true_accepts(roc(sample), sample, 0.001).share is None


def test_wilsons_interval_is_that_of_newcombe() -> None:
    results = proportion(81, 263)  # Newcombe 1998, table I
    assert (results.low, results.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))


def test_the_two_halves_share_no_pair_and_keep_the_kinds() -> None:
    sample = Distances(np.arange(60.0), np.arange(60) % 3 == 0)
    one, other = split_in_halves(sample, seed=4)
    assert sorted([*one.distance, *other.distance]) == list(range(60))
    assert (one.same.sum(), other.same.sum()) == (10, 10)
    assert all(same == (distance % 3 == 0) for distance, same in zip(one.distance, one.same, strict=True))


def test_the_calibrated_probability_ignores_how_rare_a_kind_is() -> None:
    draw = np.random.default_rng(0)
    sample = pairs(list(draw.normal(1, 0.3, 400)), list(draw.normal(2, 0.3, 4000)))
    probability = calibrate(sample)
    assert probability(1.5) == pytest.approx(0.5, abs=0.05)
    assert probability(0.5) > 0.95 > 0.05 > probability(2.5)
    assert (probability(-1e6), probability(1e6)) == (1.0, 0.0)


def test_the_unit_of_distances_does_not_change_probabilities() -> None:
    sample = drawn(2)
    scaled = Distances(sample.distance * 1000, sample.same)
    assert calibrate(scaled)(1400) == pytest.approx(calibrate(sample)(1.4), abs=1e-4)


def test_every_pair_is_in_the_histogram_and_one_half_is_scored() -> None:
    sample = drawn(6)
    results = verify(sample, seed=2)
    assert (results.same_counts.sum(), results.different_counts.sum()) == (130, 210)
    assert results.chosen_on + results.at_threshold.pairs == results.pairs == 340
    one, other = split_in_halves(sample, seed=2)
    assert results.at_threshold == score_pairs(one, other)


def test_a_specified_threshold_is_scored_on_all_pairs() -> None:
    sample = drawn(6)
    results = verify(sample, threshold=1.25)
    assert results.chosen_on == 0
    assert results.at_threshold == score_threshold(1.25, sample)
    assert results.at_threshold.balanced_accuracy == pytest.approx(balanced(sample, 1.25))


@pytest.mark.parametrize(
    ("same", "different", "message"),
    [
        ([], [], "there are no pairs to evaluate"),
        ([], [1.0, 2.0], "0 of 2 pairs are of one class: expected at least 2; give pairs of both kinds"),
        ([1.0, 2.0], [], "0 of 2 pairs are of two classes: expected at least 2; give pairs of both kinds"),
        ([1.0], [1.0, 2.0], "1 of 3 pairs are of one class: expected at least 2; give pairs of both kinds"),
        (
            [1.0, math.nan],
            [1.0, 2.0],
            "1 of 4 distances are not finite, the first is that of pair 1; the training of",
        ),
        (
            [1.0, 2.0],
            [1.0, math.inf],
            "1 of 4 distances are not finite, the first is that of pair 3; the training of",
        ),
    ],
)
def test_pairs_that_cannot_be_evaluated_are_refused(same: list[float], different: list[float], message: str) -> None:
    with pytest.raises(DataError) as caught:
        verify(pairs(same, different))
    assert str(caught.value).startswith(message)


def test_constant_distances_are_guessing() -> None:
    results = verify(pairs([1.0] * 4, [1.0] * 6))
    assert (results.auc.value, results.equal_error, results.at_threshold.balanced_accuracy) == (0.5, 0.5, 0.5)


def test_any_seed_splits_the_pairs() -> None:
    one, other = split_in_halves(drawn(1), seed=2**70 + 5)
    again, _ = split_in_halves(drawn(1), seed=2**70 + 5)
    assert (len(one), len(other)) == (170, 170)
    assert np.array_equal(one.distance, again.distance)


def test_a_pair_exactly_at_the_threshold_is_different() -> None:
    pairs = Distances(np.array([0.5, 1.0, 2.0]), np.array([True, True, False]))
    assert score_threshold(1.0, pairs).balanced_accuracy == 0.75  # half of the same pairs, and the other
    assert score_threshold(np.nextafter(1.0, 2), pairs).balanced_accuracy == 1.0


def test_the_picture_of_the_hardest_pairs_marks_errors_at_exactly_the_threshold() -> None:
    picture = np.zeros((4, 5), np.uint8)
    for same, expected in ((True, ["normal", "bold", "bold"]), (False, ["bold", "normal", "normal"])):
        figure = Figure()
        shown = [HardPair(distance, same, ("a", "b"), (picture, picture)) for distance in (0.75, 1.0, 1.25)]
        draw_pairs(figure, shown, 1.0, same=same, columns=3)
        assert [axes.title.get_fontweight() for axes in figure.axes] == expected


def test_probabilities_of_very_far_pairs_are_finite() -> None:
    probability = Calibration(slope=-2.0, intercept=1.0)
    assert [probability(1e6), probability(-1e6), probability(0.5)] == [0.0, 1.0, 0.5]


def test_the_interval_of_the_auc_needs_two_pairs_of_each_kind() -> None:
    assert auc(pairs([1.0], [0.5, 1.5, 2.5, 3.5])) == Estimate(0.75, 0.0, 1.0)
    of_two = auc(pairs([1.0, 2.0], [1.5, 2.5]))
    assert of_two.value == 0.75
    # Variances of [1, 0.5] and [0.5, 1] are 1/8 each: 2 * (1/8) / 2 = 1/8.
    assert of_two.low == pytest.approx(0.75 - 1.959963984540054 * math.sqrt(1 / 8))


def test_one_false_accept_of_a_hundred_pairs_is_one_in_a_hundred() -> None:
    sample = pairs([0.5, 1.5], [1.0, *np.arange(2.0, 101.0)])
    results = true_accepts(roc(sample), sample, 0.01)
    assert (results.threshold, results.share and results.share.value) == (1.5, 1.0)
    fewer = pairs([0.5, 1.5], [1.0, *np.arange(2.0, 100.0)])
    assert true_accepts(roc(fewer), fewer, 0.01).share is None


def test_zero_true_accepts_have_no_threshold() -> None:
    sample = pairs([1.0] * 5, [0.5] * 100)
    results = true_accepts(roc(sample), sample, 0.01)
    assert (results.threshold, results.share and results.share.value) == (None, 0.0)


def test_distinct_numbers_split_pairs_as_no_numbers_do() -> None:
    sample = drawn(3)
    numbered = Distances(sample.distance, sample.same, np.arange(len(sample)))
    for plain, part in zip(split_in_halves(sample, 4), split_in_halves(numbered, 4), strict=True):
        assert np.array_equal(plain.distance, part.distance)
        assert part.pair is not None
    assert (sample.distinct, numbered.distinct) == (len(sample), len(sample))
