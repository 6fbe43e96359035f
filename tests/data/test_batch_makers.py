"""Batches that several threads make in parallel."""

from __future__ import annotations

import functools
import itertools
import threading
import time

import numpy
import pytest

from siamese_proto.data.feeder import MOST_MAKERS, PrefetchFeeder
from siamese_proto.errors import DataError


class Slow:
    """Finishes batches in another order than it starts them; records how many were made in parallel."""

    def __init__(self, bad: int = -1) -> None:
        self.bad = bad
        self.begun: list[int] = []
        self.at_work = self.most = 0
        self.closed_at_work: int | None = None
        self._lock = threading.Lock()

    def batches(self, first: int):
        for number in itertools.count(first):
            yield functools.partial(self.make, number)

    def make(self, number: int):
        with self._lock:
            self.begun.append(number)
            self.at_work += 1
            self.most = max(self.most, self.at_work)
        time.sleep(0.02 if number % 2 else 0.005)
        with self._lock:
            self.at_work -= 1
        if number == self.bad:
            raise DataError(f"batch {number} is bad")
        return [numpy.full(3, number, numpy.float32)]

    def close(self) -> None:
        self.closed_at_work = self.at_work


@pytest.fixture(autouse=True)
def two_processors(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)


def test_batches_come_in_order():
    source = Slow()
    feeder = PrefetchFeeder(source, ahead=4)
    assert [int(feeder.next_batch()[0][0]) for _ in range(20)] == list(range(20))
    feeder.skip(7)
    assert [int(feeder.next_batch()[0][0]) for _ in range(3)] == [7, 8, 9]
    feeder.close()
    assert 1 < source.most <= min(2, MOST_MAKERS)


@pytest.mark.slow
def test_at_most_the_limit_of_batches_is_made_ahead():
    source = Slow()
    feeder = PrefetchFeeder(source, ahead=3)
    feeder.next_batch()
    time.sleep(0.3)
    assert sorted(source.begun) == [0, 1, 2, 3]
    feeder.close()


def test_an_error_is_raised_at_its_batch_and_again():
    feeder = PrefetchFeeder(Slow(bad=3), ahead=4)
    for _ in range(3):
        feeder.next_batch()
    for _ in range(2):
        with pytest.raises(DataError, match="batch 3 is bad"):
            feeder.next_batch()
    assert feeder.batches == 3
    feeder.skip(4)
    assert int(feeder.next_batch()[0][0]) == 4
    feeder.close()


def test_the_source_is_closed_when_nothing_is_being_made():
    source = Slow()
    feeder = PrefetchFeeder(source, ahead=4)
    feeder.next_batch()
    feeder.close()
    assert source.closed_at_work == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("siamese_proto batch maker")]


def test_a_feeder_that_is_dropped_ends_its_threads():
    source = Slow()
    feeder = PrefetchFeeder(source, ahead=4)
    feeder.next_batch()
    del feeder
    assert source.closed_at_work == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("siamese_proto")]
