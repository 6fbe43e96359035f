"""What is drawn, over many seeds and many sets of labels."""

from __future__ import annotations

from collections import Counter

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siamese_proto.data.sampling import GivenTuples, PairSampler, TripletSampler, TupleOrder, TupleSource
from siamese_proto.errors import DataError

UNHURRIED = settings(deadline=None)  # the machine may be busy
SEEDS = st.integers(0, 2**64 - 1)
FRACTIONS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.75, 1.0])
# Two classes of two images at the least, and whatever else, lone images among it; classes are any numbers.
LABELS = st.tuples(
    st.lists(st.integers(-3, 9), max_size=30), st.permutations([4, 4, 1000, 1000]).map(list), st.randoms()
).map(lambda drawn: _shuffled(drawn[0] + drawn[1], drawn[2]))


def _shuffled(labels, random):
    random.shuffle(labels)
    return numpy.array(labels)


def numbers(count: int, first: int = 0) -> numpy.ndarray:
    return first + numpy.arange(count)


@pytest.mark.slow
@UNHURRIED
@given(LABELS, FRACTIONS, SEEDS)
def test_pairs_are_labelled_by_their_classes_and_no_image_is_paired_with_itself(labels, fraction, seed):
    pairs, same = PairSampler(labels, same_fraction=fraction, seed=seed).draw(numbers(300))
    numpy.testing.assert_array_equal(same, labels[pairs[:, 0]] == labels[pairs[:, 1]])
    assert (pairs[:, 0] != pairs[:, 1]).all()


@pytest.mark.slow
@UNHURRIED
@given(LABELS, FRACTIONS, SEEDS, st.integers(1, 400))
def test_the_fraction_that_is_alike_is_met(labels, fraction, seed, count):
    _, endless = PairSampler(labels, same_fraction=fraction, seed=seed).draw(numbers(640))
    for end in range(64, 641, 64):
        assert abs(endless[:end].sum() - fraction * end) <= 0.5
    _, whole = PairSampler(labels, same_fraction=fraction, seed=seed, count=count).draw(numbers(count))
    assert abs(whole.sum() - fraction * count) <= 0.5


@pytest.mark.slow
@UNHURRIED
@given(LABELS, SEEDS)
def test_every_image_and_so_every_class_appears(labels, seed):
    classes, sizes = numpy.unique(labels, return_counts=True)
    partnered = set(numpy.flatnonzero(numpy.isin(labels, classes[sizes > 1])).tolist())
    count = 2 * 64 * (len(labels) // 64 + 1)
    pairs, same = PairSampler(labels, seed=seed).draw(numbers(count))
    assert set(pairs[same == 1, 0].tolist()) == partnered
    assert set(pairs[same == 0, 0].tolist()) == set(range(len(labels)))
    triplets, _ = TripletSampler(labels, seed=seed).draw(numbers(len(labels)))
    assert set(triplets[:, 0].tolist()) == partnered


@pytest.mark.slow
@UNHURRIED
@given(LABELS, SEEDS)
def test_triplets_never_mix_classes(labels, seed):
    triplets, _ = TripletSampler(labels, seed=seed).draw(numbers(200))
    anchor, positive, negative = triplets.T
    assert (anchor != positive).all()
    assert (labels[anchor] == labels[positive]).all()
    assert (labels[anchor] != labels[negative]).all()


@pytest.mark.slow
@UNHURRIED
@given(LABELS, FRACTIONS, SEEDS, st.lists(st.integers(0, 10**11), min_size=1, max_size=20))
def test_a_tuple_depends_on_its_number_alone(labels, fraction, seed, chosen):
    samplers: list[TupleSource] = [
        PairSampler(labels, same_fraction=fraction, seed=seed),
        PairSampler(labels, same_fraction=fraction, seed=seed, count=10**11 + 1),
        TripletSampler(labels, seed=seed),
    ]
    for sampler in samplers:
        together, same = sampler.draw(numpy.array(chosen))
        for number, drawn, label in zip(chosen, together, same, strict=True):
            alone, own = sampler.draw(numpy.array([number]))
            assert (alone[0].tolist(), own[0]) == (drawn.tolist(), label)


def test_other_seeds_draw_others():
    labels = numpy.arange(60) % 7
    drawn = {PairSampler(labels, seed=seed).draw(numbers(50))[0].tobytes() for seed in (0, 1, 2**63, 2**64 - 1)}
    drawn |= {TripletSampler(labels, seed=seed).draw(numbers(50))[0].tobytes() for seed in (0, 1)}
    assert len(drawn) == 6


@pytest.mark.slow
def test_each_partner_and_each_stranger_is_as_likely_as_the_others():
    labels = numpy.array([3, 0, 3, 3, 0, 7])
    triplets, _ = TripletSampler(labels, seed=1).draw(numbers(50000))
    assert all(9700 < times < 10300 for times in Counter(triplets[:, 0].tolist()).values())
    drawn = Counter(map(tuple, triplets[:, 1:].tolist()))
    for (positive, negative), times in drawn.items():
        expected = 10000 / (3 if labels[positive] == 3 else 4)  # each is the positive of 10000, of all anchors together
        assert 0.9 * expected < times < 1.1 * expected, (positive, negative)
    assert len(drawn) == 3 * 3 + 2 * 4


@pytest.mark.slow
@UNHURRIED
@given(st.integers(1, 50), st.booleans(), SEEDS)
def test_a_set_of_tuples_is_gone_through_whole_each_time(count, shuffle, seed):
    order = TupleOrder(count, shuffle=shuffle, seed=seed)
    rounds = order.numbers(numbers(3 * count)).reshape(3, count)
    assert [sorted(turn) for turn in rounds.tolist()] == [list(range(count))] * 3
    if not shuffle:
        assert rounds.tolist() == [list(range(count))] * 3
    numpy.testing.assert_array_equal(order.numbers(numbers(5, count + 1)), order.numbers(numbers(count + 6))[-5:])


def test_a_shuffled_set_comes_in_another_order_each_time():
    rounds = TupleOrder(100, shuffle=True).numbers(numbers(300)).reshape(3, 100)
    assert len({turn.tobytes() for turn in rounds}) == 3


def test_given_tuples_are_delivered_as_they_are():
    given_pairs = GivenTuples(numpy.array([[5, 6], [1, 2], [3, 3]]), numpy.array([1, 0, 0.25], numpy.float32))
    pairs, labels = given_pairs.draw(numpy.array([2, 0]))
    assert (pairs.tolist(), labels.tolist()) == ([[3, 3], [5, 6]], [0.25, 1])


IMPOSSIBLE = [
    ([], "there are no images to draw from; give some"),
    ([1, 2, 3], "no class has two images, so no pair can be alike; give more images, or same_fraction 0"),
    ([1, 1], "all images are of one class, so no pair can differ; give more classes, or same_fraction 1"),
]


@pytest.mark.parametrize(("labels", "message"), IMPOSSIBLE)
def test_pairs_that_cannot_be_drawn_are_refused(labels, message):
    with pytest.raises(DataError) as caught:
        PairSampler(numpy.array(labels))
    assert str(caught.value) == message


@pytest.mark.parametrize(("labels", "fraction"), [([1, 2, 3], 0), ([1, 1], 1)])
def test_what_is_left_can_be_drawn(labels, fraction):
    _, same = PairSampler(numpy.array(labels), same_fraction=fraction).draw(numbers(9))
    assert same.tolist() == [fraction] * 9


@pytest.mark.parametrize(("labels", "message"), [([1, 2], "no class has two images"), ([2, 2], "of one class")])
def test_triplets_that_cannot_be_drawn_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        TripletSampler(numpy.array(labels))
