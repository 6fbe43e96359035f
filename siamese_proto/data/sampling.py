"""Which images make a pair or a triplet: tuple number i depends on the seed and on i alone.

So a run that is resumed, any number of threads and any number of processes draw the same tuples, in any order.
"""

from __future__ import annotations

import functools
import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from siamese_proto.errors import DataError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Numbers = NDArray[numpy.int64]

_BLOCK = 64  # tuples among which the alike ones are spread by chance: so many keep the fraction exactly
_FRACTION_BITS = 24  # those of a float32: a fraction is a whole number of 2^-24
_ALIKE, _PARTNER, _STRANGER, _ALIKE_FIRST, _DIFFERENT_FIRST, _ORDER = range(6)  # streams of random numbers


class TupleSource(ABC):
    """Tuples of images by number."""

    @abstractmethod
    def draw(self, numbers: Numbers) -> tuple[Numbers, NDArray[numpy.float32]]:
        """The tuples of these numbers, (n,): indices of their images (n, k), and their labels (n,)."""


class PairSampler(TupleSource):
    """Pairs of labeled images: of every 64, `same_fraction` are of one class (label 1), the others of two (label 0).

    First images are all images in turn, shuffled anew each time round: those with a partner of their class for pairs
    that are alike, all for the others. The second image is any of the others of that class, or any of other classes,
    each as likely. Of a set of `count` pairs (0: no end) the whole keeps the fraction exactly, too. Raises DataError
    where the labels do not allow it.
    """

    def __init__(self, labels: Numbers, *, same_fraction: float = 0.5, seed: int = 0, count: int = 0) -> None:
        if not 0 <= same_fraction <= 1:  # no number (nan) is not, either
            raise DataError(f"same_fraction is {same_fraction:g}; it must be from 0 to 1")
        self._count = count
        self._fraction = round(same_fraction * 2**_FRACTION_BITS)
        self._seed = seed % 2**64
        self._classes = _Classes.of(labels)
        if self._fraction > 0:
            self._classes.need_partners("no pair can be alike", "same_fraction 0")
        if self._fraction < 2**_FRACTION_BITS:
            self._classes.need_others("no pair can differ", "same_fraction 1")

    def draw(self, numbers: Numbers) -> tuple[Numbers, NDArray[numpy.float32]]:
        import numpy

        same, rank = self._alike(numbers)  # rank: how many of its kind come before
        pairs = numpy.empty((len(numbers), 2), numpy.int64)
        kinds = (
            (same, self._classes.partnered, _ALIKE_FIRST, self._classes.partners),
            (~same, self._classes.order, _DIFFERENT_FIRST, self._classes.strangers),
        )
        for chosen, firsts, stream, others in kinds:
            if chosen.any():
                first = in_turn(firsts, rank[chosen], self._seed, stream)
                drawn = hashed(self._seed, _PARTNER, numbers[chosen])
                pairs[chosen] = numpy.stack([first, others(first, drawn)], axis=1)
        return pairs, same.astype(numpy.float32)

    def _alike(self, numbers: Numbers) -> tuple[NDArray[numpy.bool_], Numbers]:
        """Whether each pair is alike, and its rank among the alike, or else among the others, from number 0 on."""
        import numpy

        blocks, of_block = numpy.unique(numbers // _BLOCK, return_inverse=True)
        begins = blocks[:, None] * _BLOCK
        places = begins + numpy.arange(_BLOCK)
        chances = hashed(self._seed, _ALIKE, places)
        if self._count:
            chances[places >= self._count] = numpy.iinfo(numpy.uint64).max  # the last ones, so that none of them counts
        shuffled = chances.argsort(axis=1).argsort(axis=1)
        same = self._alike_before(begins + shuffled + 1) > self._alike_before(begins + shuffled)  # (blocks, 64)
        alike_before = self._alike_before(begins) + numpy.cumsum(same, axis=1) - same
        place = (of_block, numbers % _BLOCK)
        alike = same[place]
        return alike, numpy.where(alike, alike_before[place], numbers - alike_before[place])

    def _alike_before(self, count: Numbers) -> Numbers:
        """How many of the first so many pairs are alike, were they not shuffled: the nearest whole number."""
        half = 1 << (_FRACTION_BITS - 1)
        before: Numbers = count * self._fraction + half >> _FRACTION_BITS
        return before


def distinct_pairs(
    labels: Numbers, count: int, *, same_fraction: float = 0.5, seed: int = 0
) -> tuple[Numbers, NDArray[numpy.bool_]]:
    """Different pairs of labeled images, and whether each is of one class: (n, 2) and (n,).

    `count` pairs are drawn as a PairSampler draws them, but none a second time, in whichever order its images are. Of a
    kind that has fewer pairs than are asked for all are taken, so that n can be below `count`.
    """
    import numpy

    sampler = PairSampler(labels, same_fraction=same_fraction, seed=seed)
    alike = int(sampler._alike_before(numpy.array([count]))[0])
    kinds = [_different_ones(labels, most, seed, of_one_class=kind) for kind, most in ((1, alike), (0, count - alike))]
    return numpy.concatenate(kinds), numpy.repeat([True, False], [len(pairs) for pairs in kinds])


def _different_ones(labels: Numbers, count: int, seed: int, *, of_one_class: int) -> Numbers:
    """Up to `count` different pairs of one kind, (n, 2)."""
    import numpy

    sizes = numpy.unique(labels, return_counts=True)[1]
    there_are = int((sizes * (sizes - 1) // 2).sum())
    if not of_one_class:
        there_are = len(labels) * (len(labels) - 1) // 2 - there_are
    pairs = numpy.empty((0, 2), numpy.int64)
    if not count:
        return pairs
    if 2 * count > there_are:  # drawing would meet the same ones again and again
        random = numpy.random.default_rng([seed, of_one_class])
        pairs = random.permutation(_every_pair(labels, of_one_class=of_one_class))[:count]
        return random.permuted(pairs, axis=1)
    sampler = PairSampler(labels, same_fraction=of_one_class, seed=seed)
    for number in itertools.count(0, count):
        pairs = numpy.concatenate([pairs, sampler.draw(numpy.arange(number, number + count))[0]])
        first = numpy.unique(pairs.min(1) * len(labels) + pairs.max(1), return_index=True)[1]
        pairs = pairs[numpy.sort(first)]
        if len(pairs) >= count:
            break
    return pairs[:count]


def _every_pair(labels: Numbers, *, of_one_class: int) -> Numbers:
    """Every pair of one kind, (n, 2): of each class with itself, or with the classes after it."""
    import numpy

    order = numpy.argsort(labels, kind="stable")
    found = []
    for end in numpy.cumsum(numpy.unique(labels, return_counts=True)[1]).tolist():
        members = order[labels[order] == labels[order[end - 1]]]
        if of_one_class:
            found.append(numpy.stack([members[part] for part in numpy.triu_indices(len(members), 1)], 1))
        else:
            others = order[end:]
            found.append(numpy.stack([numpy.repeat(members, len(others)), numpy.tile(others, len(members))], 1))
    return numpy.concatenate(found)


class TripletSampler(TupleSource):
    """Triplets of labeled images: anchor and positive are two images of one class, the negative is of another.

    Anchors are all images with a partner of their class in turn, shuffled anew each time round. The label is 1.
    """

    def __init__(self, labels: Numbers, *, seed: int = 0) -> None:
        self._seed = seed % 2**64
        self._classes = _Classes.of(labels)
        self._classes.need_partners("there is no positive")
        self._classes.need_others("there is no negative")

    def draw(self, numbers: Numbers) -> tuple[Numbers, NDArray[numpy.float32]]:
        import numpy

        anchor = in_turn(self._classes.partnered, numbers, self._seed, _ALIKE_FIRST)
        positive = self._classes.partners(anchor, hashed(self._seed, _PARTNER, numbers))
        negative = self._classes.strangers(anchor, hashed(self._seed, _STRANGER, numbers))
        return numpy.stack([anchor, positive, negative], axis=1), numpy.ones(len(numbers), numpy.float32)


@dataclass(frozen=True)
class GivenTuples(TupleSource):
    """Tuples that somebody else has chosen: (n, k) indices of images, and (n,) labels."""

    tuples: Numbers
    labels: NDArray[numpy.float32]

    def draw(self, numbers: Numbers) -> tuple[Numbers, NDArray[numpy.float32]]:
        return self.tuples[numbers], self.labels[numbers]

    def of_images(self, marked: NDArray[numpy.bool_]) -> GivenTuples:
        """Those whose images are all marked; DataError where there is none."""
        which = marked[self.tuples].all(axis=1)
        if not which.any():
            raise DataError("no tuple is left, as each has an image that cannot be used; give others")
        return GivenTuples(self.tuples[which], self.labels[which])


@dataclass(frozen=True)
class TupleOrder:
    """In which order tuples come: those of a set of `count` again and again, or (0) all of them."""

    count: int = 0
    shuffle: bool = False
    seed: int = 0

    def numbers(self, positions: Numbers) -> Numbers:
        """The numbers of the tuples at these positions of the stream."""
        import numpy

        if not self.count:
            return positions
        if self.shuffle:
            return in_turn(numpy.arange(self.count), positions, self.seed % 2**64, _ORDER)
        return positions % self.count


@dataclass(frozen=True)
class _Classes:
    """Images sorted by class, so that each class is a run of places."""

    order: Numbers  # the image at each place
    place: Numbers  # the place of each image
    begin: Numbers  # the first place of each image's class
    size: Numbers  # and its number of images
    partnered: Numbers  # images whose class has two or more

    @staticmethod
    def of(labels: Numbers) -> _Classes:
        import numpy

        if not len(labels):
            raise DataError("there are no images to draw from; give some")
        order = numpy.argsort(labels, kind="stable")
        place = numpy.empty_like(order)
        place[order] = numpy.arange(len(order))
        _, of_class, sizes = numpy.unique(labels, return_inverse=True, return_counts=True)
        size = sizes[of_class]
        return _Classes(order, place, (numpy.cumsum(sizes) - sizes)[of_class], size, order[size[order] > 1])

    def need_partners(self, problem: str, instead: str = "") -> None:
        if not len(self.partnered):
            hint = f", or {instead}" if instead else ""
            raise DataError(f"no class has two images, so {problem}; give more images{hint}")

    def need_others(self, problem: str, instead: str = "") -> None:
        if self.size[0] == len(self.order):
            hint = f", or {instead}" if instead else ""
            raise DataError(f"all images are of one class, so {problem}; give more classes{hint}")

    def partners(self, image: Numbers, drawn: NDArray[numpy.uint64]) -> Numbers:
        """Another image of the class of each."""
        begin, size = self.begin[image], self.size[image]
        place = begin + (drawn % (size - 1).astype("uint64")).astype("int64")
        others: Numbers = self.order[place + (place >= self.place[image])]
        return others

    def strangers(self, image: Numbers, drawn: NDArray[numpy.uint64]) -> Numbers:
        """An image of another class than that of each."""
        begin, size = self.begin[image], self.size[image]
        place = (drawn % (len(self.order) - size).astype("uint64")).astype("int64")
        others: Numbers = self.order[place + size * (place >= begin)]
        return others


def in_turn(items: Numbers, numbers: Numbers, seed: int, stream: int) -> Numbers:
    """Item number i of the items gone through again and again, in another order each time."""
    import numpy

    rounds, places = numpy.divmod(numbers, len(items))
    taken = numpy.empty(len(numbers), numpy.int64)
    for turn in numpy.unique(rounds).tolist():
        now = rounds == turn
        taken[now] = items[_permutation(len(items), seed, stream, turn)[places[now]]]
    return taken


@functools.lru_cache(maxsize=8)
def _permutation(count: int, seed: int, stream: int, turn: int) -> Any:
    import numpy

    return numpy.random.default_rng([seed, stream, turn]).permutation(count)


def hashed(seed: int, stream: int, numbers: Numbers) -> NDArray[numpy.uint64]:
    """A random number for each number: the output function of SplitMix64 (Steele, Lea and Flood, 2014), twice."""
    return _mixed(_mixed(numbers.astype("uint64") + _mixed_key(seed, stream)))


def _mixed_key(seed: int, stream: int) -> NDArray[numpy.uint64]:
    import numpy

    return _mixed(_mixed(numpy.array([seed], numpy.uint64)) + numpy.array([stream], numpy.uint64))


def _mixed(values: NDArray[numpy.uint64]) -> NDArray[numpy.uint64]:
    import numpy

    # Arrays of whole numbers wrap around, as the generator wants.
    values = values * numpy.uint64(0x9E3779B97F4A7C15) + numpy.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    mixed: NDArray[numpy.uint64] = values ^ (values >> numpy.uint64(31))
    return mixed
