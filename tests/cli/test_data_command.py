from __future__ import annotations

import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy
import paths
import pytest
from click.testing import CliRunner
from PIL import Image

from siamese_proto.cli.data import data
from siamese_proto.data.databases.database import create_database, open_database
from siamese_proto.data.databases.datum import make_datum
from siamese_proto.data.databases.listing import images_of
from siamese_proto.errors import DataError
from siamese_proto.proto import schema

GOLDEN = paths.GOLDEN
IDX = [str(GOLDEN / "flagship" / name) for name in ("images-idx3-ubyte", "labels-idx1-ubyte")]


def run(*arguments: object) -> list[str]:
    result = CliRunner().invoke(data, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def labels_of(path: Path) -> list[int]:
    with open_database(str(path)) as database:
        return [schema.Datum.FromString(value).label for _, value in database.records()]


def test_pairs_makes_a_balanced_leveldb_with_one_pair_per_image(tmp_path):
    assert run("pairs", *IDX, tmp_path / "made") == [f"{tmp_path}/made: 640 pairs, 320 same and 320 different"]
    assert (tmp_path / "made/CURRENT").is_file()
    assert sum(labels_of(tmp_path / "made")) == 320


def test_pairs_takes_backend_count_fraction_and_seed(tmp_path):
    settings = ["--backend", "lmdb", "--count", 50, "--same-fraction", 0.2]
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        run("pairs", *IDX, tmp_path / name, *settings, "--seed", seed)
    one, again, other = (labels_of(tmp_path / name) for name in ("one", "again", "other"))
    assert (len(one), sum(one)) == (50, 10)
    assert one == again != other
    assert (tmp_path / "one/data.mdb").is_file()


def test_pairs_draws_uniformly_on_request(tmp_path):
    run("pairs", *IDX, tmp_path / "made", "--draw", "uniform")
    assert 30 < sum(labels_of(tmp_path / "made")) < 105


@pytest.mark.slow
def test_long_work_prints_its_progress_in_lines(tmp_path):
    lines = run("pairs", *IDX, tmp_path / "made", "--count", 20000)
    assert lines == [
        f"{tmp_path}/made: 10000 of 20000 pairs",
        f"{tmp_path}/made: 20000 pairs, 10000 same and 10000 different",
    ]


def test_digits_makes_train_and_test_pairs_of_different_images(tmp_path):
    run("digits", tmp_path, "--train-count", 300, "--test-count", 200)
    halves = []
    for name, count in (("digits_train_leveldb", 300), ("digits_test_leveldb", 200)):
        with open_database(str(tmp_path / name), "LEVELDB") as database:
            datums = [schema.Datum.FromString(value) for _, value in database.records()]
        assert (len(datums), sum(datum.label for datum in datums)) == (count, count // 2)
        halves.append({datum.data[start : start + 784] for datum in datums for start in (0, 784)})
    assert not halves[0] & halves[1]


def test_digits_replaces_existing_databases_only_on_request(tmp_path):
    small = ["digits", tmp_path, "--train-count", 20, "--test-count", 10]
    run(*small)
    with pytest.raises(DataError, match="already exists; remove it, choose another name, or write --overwrite"):
        run(*small)
    run(*small, "--overwrite", "--train-count", 30)
    assert len(labels_of(tmp_path / "digits_train_leveldb")) == 30


def test_show_prints_the_contents_of_a_database(tmp_path):
    images = [numpy.zeros((2, 3, 5), numpy.uint8)] * 3 + [numpy.zeros((1, 4, 6), numpy.uint8)]
    with create_database(str(tmp_path / "made"), "LMDB") as writer:
        writer.put(
            [
                (b"%d" % number, make_datum(image, number // 2).SerializeToString())
                for number, image in enumerate(images)
            ]
        )
    assert run("show", tmp_path / "made", "--count", 2) == [
        f"{tmp_path}/made: LMDB, 4 records",
        "size 2 x 3 x 5 (channels x height x width): 3 records",
        "size 1 x 4 x 6 (channels x height x width): 1 records",
        "label 0: 2 records (50.0%)",
        "label 1: 2 records (50.0%)",
        "first records:",
        "  '0': 2 x 3 x 5, label 0",
        "  '1': 2 x 3 x 5, label 0",
    ]


def test_show_names_encoded_records():
    lines = run("show", GOLDEN / "data/encoded_png_lmdb")
    assert "encoded images: 8" in lines
    assert "  '00000003_img3.png': encoded, 3 x 20 x 24, label 0" in lines


def test_show_works_while_the_database_is_in_use(tmp_path):
    run("digits", tmp_path, "--train-count", 20, "--test-count", 10)
    with open_database(str(tmp_path / "digits_train_leveldb")) as training:
        walking = training.records()
        next(walking)
        assert run("show", tmp_path / "digits_train_leveldb")[0].endswith("LEVELDB, 20 records")
        assert sum(1 for _ in walking) == 19


def test_the_picture_shows_the_pairs_side_by_side(tmp_path):
    run("show", GOLDEN / "flagship/pairs_lmdb", "--picture", tmp_path / "pairs.png", "--count", 6)
    with Image.open(tmp_path / "pairs.png") as file:
        picture = numpy.asarray(file)
    with open_database(str(GOLDEN / "flagship/pairs_lmdb")) as database:
        first = schema.Datum.FromString(next(database.records())[1])
    pair = numpy.frombuffer(first.data, numpy.uint8).reshape(2, 28, 28)
    for number in range(2):  # three times as large, two pixels between the images
        column = 6 + number * (84 + 2)
        tile = picture[6 : 6 + 84, column : column + 84]
        numpy.testing.assert_array_equal(tile[1::3, 1::3, 0], pair[number])


def test_pictures_of_color_records_are_red_green_blue():
    pixels = numpy.zeros((6, 2, 3), numpy.uint8)
    pixels[2] = 200  # the red channel of the first image
    pixels[3] = 100  # the blue one of the second
    first, second = images_of(pixels)
    assert first[0, 0].tolist() == [200, 0, 0]
    assert second[0, 0].tolist() == [0, 0, 100]


def test_show_refuses_a_format_that_pillow_does_not_know(tmp_path):
    with pytest.raises(DataError, match="cannot be written in that format"):
        run("show", GOLDEN / "flagship/pairs_lmdb", "--picture", tmp_path / "pairs.nothing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_an_interrupt_leaves_no_partial_files(tmp_path):
    side = 600  # large, so that making the pairs takes a while
    (tmp_path / "images").write_bytes(struct.pack(">4I", 2051, 20, side, side) + bytes(20 * side * side))
    (tmp_path / "labels").write_bytes(struct.pack(">2I", 2049, 20) + bytes([0, 1] * 10))
    code = "from siamese_proto.cli.data import data; data()"
    arguments = ["pairs", "images", "labels", "out/made", "--count", "2000", "--backend", "lmdb"]
    with subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("out/.made.*/database/*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"Traceback" not in complaint
    assert list((tmp_path / "out").iterdir()) == []
