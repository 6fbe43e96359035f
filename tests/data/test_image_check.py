"""Large sources: the first batch does not wait until every image has been read."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy
import pytest
from feeding import drain, make_layer
from image_sources import GRAY, NAMES, number_of, write_folder

from siamese_proto.data.images.image_check import CHECKED_FIRST
from siamese_proto.errors import DataError
from siamese_proto.layers.base import RunState

MANY = CHECKED_FIRST + 600


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Pairs of images, of which the third and many from the 13th on do not exist; batches have four."""
    write_folder(tmp_path / "faces")
    good = [f"faces/{NAMES[label]}/{number}.png" for number, label in enumerate([2, 0, 0, 2, 1, 1, 0, 2])]
    rows = [f"{good[row % 8]},{good[row % 7]},{row % 2}" for row in range(12)]
    rows[2] = f"{good[0]},gone/x.png,1"
    rows += [f"{good[0]},gone/{row}.png,0" for row in range(MANY)]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    return tmp_path


def layer(folder: Path):
    settings = 'pair_data_param { source: "pairs.csv" batch_size: 4 }'
    return make_layer(f'name: "d" type: "PairData" top: "a" top: "b" top: "s" {settings}', folder=str(folder))


def test_the_first_batch_of_many_images_does_not_wait_for_the_others(pairs):
    rows = (pairs / "pairs.csv").read_text().splitlines()
    rows[2] = rows[3]
    (pairs / "pairs.csv").write_text("\n".join(rows))
    feeder = layer(pairs).open(RunState())
    batches = drain(feeder, 3)
    assert [label for _, _, labels in batches for label in labels.tolist()] == [0, 1, 1, 1, *[0, 1] * 4]
    assert [number_of(image) for image in batches[1][0]] == [4, 5, 6, 7]
    with pytest.raises(DataError, match=r"^image '.*gone/0.png' cannot be read: No such file or directory"):
        feeder.next_batch()
    feeder.close()


def test_a_damaged_image_among_many_ends_the_run_where_it_is_drawn(pairs):
    feeder = layer(pairs).open(RunState())
    with pytest.raises(DataError, match=r"^image '.*gone/x.png' cannot be read: No such file or directory"):
        feeder.next_batch()
    feeder.close()


def test_the_next_pair_of_the_batch_takes_the_place_of_one_with_a_bad_image_in_a_resumed_run_too(pairs):
    rows = (pairs / "pairs.csv").read_text().splitlines()
    rows = [*rows[:12], *(f"{rows[index % 12].rpartition(',')[0]},{index % 3}" for index in range(MANY))]
    rows += [f"faces/anna/1.png,gone/{row}.png,0" for row in range(MANY)]
    (pairs / "pairs.csv").write_text("\n".join(rows))
    run = RunState(skip_bad_records=True)
    feeder = layer(pairs).open(run)
    whole = drain(feeder, 9)
    feeder.close()
    assert [number_of(image) for image in whole[0][0]] == [0, 1, 3, 3]
    assert [number_of(image) for image in whole[0][1]] == [0, 1, 3, 3]
    assert whole[0][2].tolist() == [0, 1, 1, 1]
    assert len(run.bad_records["d"]) == 1
    feeder = layer(pairs).open(RunState(skip_bad_records=True))
    feeder.skip(4)
    for one, other in zip(drain(feeder, 5), whole[4:], strict=True):
        assert all(numpy.array_equal(a, b) for a, b in zip(one, other, strict=True))
    feeder.close()


def test_a_batch_in_which_no_pair_can_be_read_is_of_the_first_good_one(pairs):
    feeder = layer(pairs).open(RunState(skip_bad_records=True))
    feeder.skip(5)
    first, second, labels = drain(feeder, 1)[0]
    feeder.close()
    assert [number_of(image) for image in (*first, *second)] == [0] * 8
    assert labels.tolist() == [0] * 4


def reports(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name == "siamese_proto.data.images.image_check"]


@pytest.mark.parametrize("skip", [False, True])
def test_images_that_cannot_be_read_are_reported_while_the_net_trains(pairs, caplog, skip):
    run = RunState(skip_bad_records=skip)
    feeder = layer(pairs).open(run)
    feeder.skip(1)
    with caplog.at_level(logging.WARNING):
        feeder.next_batch()
        deadline = time.monotonic() + 60
        while not reports(caplog) and time.monotonic() < deadline:
            time.sleep(0.01)
    feeder.close()
    (message,) = reports(caplog)
    assert message.startswith(
        f"layer 'd': {MANY + 1} of {MANY + 1 + len(GRAY)} images of '{pairs}/pairs.csv' cannot be"
    )
    assert f"'{pairs}/gone/x.png': No such file" in message
    assert message.endswith("--skip-bad-records is given") != skip
