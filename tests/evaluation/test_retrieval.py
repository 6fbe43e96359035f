"""Few-shot accuracy and retrieval against naive loops, with ties, and on perfect and constant features."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from siamese_proto.errors import DataError
from siamese_proto.evaluation.retrieval import few_shot, mean, retrieve


class L1:
    def rows(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.abs(first - second).sum(1)

    def matrix(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.abs(first[:, None] - second).sum(2)


def drawn(seed: int, images: int = 60, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=images) * 3 - 4
    return draw.integers(5, size=(images, 2)) + labels[:, None] * 0.2, labels


def test_few_shot_accuracy_is_the_share_that_a_loop_over_all_episodes_finds() -> None:
    features = np.array([[0.0], [0.3], [1.0], [0.4], [2.0], [1.6]])
    labels = np.array([5, 5, 8, 8, 9, 9])
    result = few_shot(features, features, labels, L1(), way=3, shot=1, episodes=4000, seed=1)
    wins = []
    for query in range(6):
        own = query ^ 1
        for others in itertools.product(
            *[[row for row in range(6) if labels[row] == name] for name in {5, 8, 9} - {labels[query]}]
        ):
            distances = [abs(features[query, 0] - features[row, 0]) for row in (own, *others)]
            nearest = [distance == min(distances) for distance in distances]
            wins.append(nearest[0] / sum(nearest))
    assert result.accuracy.value == pytest.approx(np.mean(wins), abs=4 * result.accuracy.error)
    assert result.accuracy.error < 0.01


def test_several_examples_of_a_class_are_averaged_over() -> None:
    # Alone the far example of class 1 would lose to class 2; the mean of both does not.
    features = np.array([[0.0], [0.0], [3.0], [2.0], [2.0], [2.0]])
    labels = np.array([1, 1, 1, 2, 2, 2])
    result = few_shot(features[:], features, labels, L1(), way=2, shot=2, episodes=3000, seed=2)
    # Queries 0.0: own mean 1.5 < 2 wins. Query 3.0: own mean 3, other 1 loses. Queries 2.0: own 0 wins.
    assert result.accuracy.value == pytest.approx((2 / 3 + 1) / 2, abs=4 * result.accuracy.error)


def test_constant_features_are_as_good_as_guessing() -> None:
    features, labels = np.ones((40, 3)), np.arange(40) % 8
    result = few_shot(features, features, labels, L1(), way=5, shot=2, episodes=50)
    assert result.accuracy.value == pytest.approx(1 / 5)
    recall = retrieve(features, features, labels, L1(), seed=1)
    assert recall.recall[1].value < 0.4
    assert recall.mean_average_precision.value == pytest.approx(4 / 39)


def test_features_that_equal_the_class_are_perfect() -> None:
    labels = np.arange(40) % 8
    features = labels[:, None].astype(float)
    assert few_shot(features, features, labels, L1(), way=8, episodes=20).accuracy.value == 1
    result = retrieve(features, features, labels, L1(), at=(1, 3))
    assert (result.recall[1].value, result.recall[3].value, result.mean_average_precision.value) == (1, 1, 1)


def test_recall_and_average_precision_are_those_of_a_loop() -> None:
    draw = np.random.default_rng(9)
    features, labels = draw.normal(size=(50, 3)), draw.integers(6, size=50)
    result = retrieve(features, features, labels, L1(), at=(1, 4), most=50)
    hits, precisions = {1: [], 4: []}, []
    for row in range(50):
        others = sorted(
            (np.abs(features[row] - features[k]).sum(), labels[k] == labels[row]) for k in range(50) if k != row
        )
        alike = [same for _, same in others]
        for count, values in hits.items():
            values.append(any(alike[:count]))
        ranks = [rank for rank, same in enumerate(alike, 1) if same]
        precisions.append(np.mean([hit / rank for hit, rank in enumerate(ranks, 1)]))
    assert {count: value.value for count, value in result.recall.items()} == {
        count: pytest.approx(np.mean(values)) for count, values in hits.items()
    }
    assert result.mean_average_precision.value == pytest.approx(np.mean(precisions))
    assert (result.queries, result.images, result.classes) == (50, 50, 6)


@pytest.mark.slow
def test_images_at_the_same_distance_are_ranked_at_random() -> None:
    # All images are at the same distance, so the ranks of the 99 others are random.
    labels = np.repeat(np.arange(50), 2)
    features = np.zeros((100, 1))
    result = retrieve(features, features, labels, L1(), at=(33,))
    assert result.recall[33].value == pytest.approx(33 / 99, abs=4 * result.recall[33].error)


def test_the_number_of_queries_is_limited_and_lone_images_are_none() -> None:
    features, labels = drawn(3)
    labels[0] = 100
    assert retrieve(features, features, labels, L1(), most=7).queries == 7
    assert retrieve(features, features, labels, L1()).queries == 59


def test_queries_and_images_can_have_features_of_two_towers() -> None:
    labels = np.arange(12) % 4
    queries, images = labels[:, None] * 1.0, labels[:, None] * 1.0 + 0.4
    assert retrieve(queries, images, labels, L1(), at=(1,)).recall[1].value == 1
    assert few_shot(queries, images, labels, L1(), way=4, episodes=30).accuracy.value == 1


def test_the_same_seed_draws_the_same_episodes() -> None:
    features, labels = drawn(5)
    one, again, other = (few_shot(features, features, labels, L1(), episodes=200, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one.accuracy != other.accuracy


def test_the_standard_error_is_that_of_the_mean() -> None:
    result = mean(np.array([0.0, 1.0, 1.0, 1.0]))
    assert (result.value, result.error) == (0.75, pytest.approx(0.25))


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (
            [1, 1, 2, 2],
            {"way": 3},
            "3-way 1-shot needs 3 classes of at least 2 images, but only 2 of the 2 classes have that many",
        ),
        (
            [1, 1, 2, 2],
            {"way": 2, "shot": 2},
            "2-way 2-shot needs 2 classes of at least 3 images, but only 0 of the 2 classes",
        ),
        ([1, 1, 2, 2], {"way": 1}, "1-way 1-shot over 1000 episodes cannot be drawn: expected at least 2, 1 and 1"),
    ],
)
def test_too_few_classes_are_refused(labels: list[int], settings: dict[str, int], message: str) -> None:
    features = np.zeros((len(labels), 1))
    with pytest.raises(DataError) as caught:
        few_shot(features, features, np.array(labels), L1(), **settings)
    assert str(caught.value).startswith(message)


def test_classes_of_one_image_each_cannot_be_retrieved() -> None:
    with pytest.raises(DataError, match=r"^no class has two images, so nothing can be retrieved"):
        retrieve(np.zeros((3, 1)), np.zeros((3, 1)), np.array([1, 2, 3]), L1())
