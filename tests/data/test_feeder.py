from __future__ import annotations

import gc
import logging
import subprocess
import sys
import threading
import time

import numpy
import paths
import pytest
from feeding import BACKENDS, GOLDEN, batches, data_layer, drain, make_database, make_layer, noise

from siamese_proto.data.feeder import PrefetchFeeder
from siamese_proto.errors import DataError
from siamese_proto.layers.base import RunState

SEVEN = [noise(2, 3, 5, seed=seed) for seed in range(7)]


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "siamese_proto data reader"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_after_the_last_record_comes_the_first(backend, tmp_path, caplog):
    path = make_database(tmp_path / "seven", SEVEN, backend)
    with caplog.at_level(logging.INFO):
        found = batches(data_layer(path, backend=backend), 6)
    numbers = numpy.arange(18) % 7
    numpy.testing.assert_array_equal(numpy.concatenate([labels for _, labels in found]), numbers)
    numpy.testing.assert_array_equal(numpy.concatenate([pixels for pixels, _ in found]), numpy.stack(SEVEN)[numbers])
    assert "Restarting data prefetching from start." in caplog.messages


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_may_be_larger_than_the_database(backend, tmp_path):
    path = make_database(tmp_path / "seven", SEVEN, backend)
    (_, labels), _ = batches(data_layer(path, backend=backend, batch_size=16), 2)
    numpy.testing.assert_array_equal(labels, numpy.arange(16) % 7)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("skip", [1, 2, 3, 9, 1000])
def test_skipping_goes_to_the_batch_that_reading_would_reach(backend, skip, tmp_path):
    layer = data_layer(make_database(tmp_path / "seven", SEVEN, backend), backend=backend)
    (_, labels), _ = batches(layer, 2, skip=skip)
    numpy.testing.assert_array_equal(labels, (numpy.arange(3) + 3 * skip) % 7)


def test_skipping_counts_from_the_first_record_wherever_the_feeder_stands(tmp_path):
    feeder = data_layer(make_database(tmp_path / "seven", SEVEN)).open(RunState())
    drain(feeder, 4)
    feeder.skip(1)
    assert feeder.batches == 1
    assert drain(feeder, 1)[0][1].tolist() == [3, 4, 5]
    assert feeder.batches == 2
    feeder.close()


def test_two_data_layers_read_one_database_side_by_side():
    left, right = (data_layer(GOLDEN / "flagship/pairs_leveldb", batch_size=100).open(RunState()) for _ in range(2))
    for _ in range(8):
        for one, other in zip(left.next_batch(), right.next_batch(), strict=True):
            assert one.equal(other)
    left.close()
    right.close()


def test_one_top_gets_the_images_alone(tmp_path):
    path = make_database(tmp_path / "seven", SEVEN)
    layer = make_layer(f'name: "d" type: "Data" top: "x" data_param {{ source: "{path}" batch_size: 4 }}')
    assert layer.top_shapes(()) == ((4, 2, 3, 5),)
    (found,) = batches(layer, 1)
    assert [top.shape for top in found] == [(4, 2, 3, 5)]


def test_reading_ahead_is_bounded_by_prefetch():
    class Counted:
        made = 0

        def batches(self, first):
            while True:
                self.made += 1
                yield [numpy.zeros(1, numpy.float32)]

        def close(self):
            pass

    source = Counted()
    feeder = PrefetchFeeder(source, ahead=3)
    feeder.next_batch()
    deadline = time.monotonic() + 10
    while source.made < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    # one delivered, three waiting, and one in hand for which there is no room yet
    assert source.made == 5
    feeder.close()


def test_closing_ends_the_thread_and_can_be_done_twice(tmp_path):
    feeder = data_layer(make_database(tmp_path / "seven", SEVEN)).open(RunState())
    feeder.next_batch()
    assert len(readers()) == 1
    feeder.close()
    feeder.close()
    assert readers() == []
    with pytest.raises(ValueError, match="closed"):
        feeder.next_batch()


@pytest.mark.slow
def test_a_forgotten_feeder_leaves_no_thread(tmp_path):
    feeder = data_layer(make_database(tmp_path / "seven", SEVEN)).open(RunState())
    feeder.next_batch()
    del feeder
    gc.collect()
    assert readers() == []


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_interpreter_ends_while_a_feeder_reads_ahead(backend):
    name = {"LEVELDB": "pairs_leveldb", "LMDB": "pairs_lmdb"}[backend]
    code = (
        "from feeding import *\n"
        f"feeder = data_layer(GOLDEN / 'flagship/{name}', backend={backend!r}).open(RunState())\n"
        "print(len(feeder.next_batch()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.HELPERS, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_an_error_comes_up_at_the_batch_it_concerns(tmp_path):
    path = make_database(tmp_path / "odd", [*SEVEN, noise(2, 3, 4)])
    feeder = data_layer(path).open(RunState())
    drain(feeder, 2)
    for _ in range(2):  # and again when that batch is asked for again
        with pytest.raises(DataError, match="'00000007'"):
            feeder.next_batch()
    assert feeder.batches == 2
    feeder.skip(0)
    assert drain(feeder, 1)[0][1].tolist() == [0, 1, 2]
    feeder.close()


def test_a_database_may_be_made_anew_between_two_nets(tmp_path):
    path = make_database(tmp_path / "one", [noise(2, 3, 5)])
    assert data_layer(path).top_shapes(())[0] == (3, 2, 3, 5)
    (tmp_path / "one").rename(tmp_path / "old")
    make_database(tmp_path / "one", [noise(2, 7, 5)])
    assert data_layer(path).top_shapes(())[0] == (3, 2, 7, 5)


def test_paths_are_tried_from_the_working_directory_and_then_from_the_nets_folder(tmp_path, monkeypatch):
    make_database(tmp_path / "net/db", [noise(1, 2, 3)])
    text = 'name: "d" type: "Data" top: "x" data_param { source: "db" batch_size: 4 }'
    monkeypatch.chdir(tmp_path)
    assert make_layer(text, folder=str(tmp_path / "net")).top_shapes(()) == ((4, 1, 2, 3),)
    make_database(tmp_path / "db", [noise(1, 5, 7)])
    assert make_layer(text, folder=str(tmp_path / "net")).top_shapes(()) == ((4, 1, 5, 7),)


def test_fields_out_of_use_do_nothing_and_are_named(tmp_path):
    path = make_database(tmp_path / "seven", SEVEN)
    text = f'source: "{path}" batch_size: 7 scale: 0.5 crop_size: 2 mirror: true rand_skip: 3 mean_file: "none"'
    layer = make_layer(f'name: "d" type: "Data" top: "x" top: "y" data_param {{ {text} }}')
    expected = ("scale", "mean_file", "crop_size", "mirror", "rand_skip")
    assert layer.unused_fields() == tuple(f"data_param.{name}" for name in expected)
    numpy.testing.assert_array_equal(batches(layer, 1)[0][0], numpy.stack(SEVEN))
