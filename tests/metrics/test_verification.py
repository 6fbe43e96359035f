"""Thresholds and scores, worked out by hand and against a search over every threshold."""

from __future__ import annotations

import numpy as np
import pytest

from siamese_proto.metrics.verification import Distances, best_threshold, verify


def pairs(same: list[float], different: list[float]) -> Distances:
    return Distances(np.array([*same, *different], np.float32), np.array([True] * len(same) + [False] * len(different)))


def balanced(distances: Distances, threshold: float) -> float:
    verdict = distances.distance < threshold
    return float((verdict[distances.same].mean() + (~verdict)[~distances.same].mean()) / 2)


def test_pairs_that_can_be_told_apart_score_one() -> None:
    chosen, judged = pairs([0.1, 0.3], [0.9, 1.1, 2.0]), pairs([0.2], [1.0, 0.7])
    result = verify(chosen, judged)
    assert result.threshold == pytest.approx(0.6)
    assert (result.auc, result.balanced_accuracy) == (1.0, 1.0)
    assert (result.pairs, result.same) == (3, 1)


def test_the_threshold_is_not_chosen_on_the_pairs_it_is_judged_on() -> None:
    result = verify(pairs([0.1], [0.5]), pairs([0.4], [0.6, 0.2]))
    assert result.threshold == pytest.approx(0.3)
    assert result.balanced_accuracy == pytest.approx((0 + 0.5) / 2)
    assert result.auc == pytest.approx(0.5)


def test_always_different_scores_a_half_however_rare_same_pairs_are() -> None:
    rare = pairs([1.0], [1.0] * 99)
    assert verify(rare, rare).balanced_accuracy == 0.5


def test_no_threshold_does_better_than_the_one_chosen() -> None:
    draw = np.random.default_rng(5)
    for _ in range(50):
        drawn = pairs(list(draw.normal(1, 0.6, 13)), list(draw.normal(1.8, 0.7, 21)))
        candidates = [*drawn.distance, drawn.distance.max() + 1]
        best = max(balanced(drawn, float(candidate)) for candidate in candidates)
        assert balanced(drawn, best_threshold(drawn)) == pytest.approx(best)
