from __future__ import annotations

import gzip
import struct
import subprocess
import sys
from collections import Counter

import numpy
import paths
import pytest
from feeding import BACKENDS, GOLDEN

from siamese_proto.data.databases.database import open_database
from siamese_proto.data.databases.pairs import draw_pairs, write_pairs
from siamese_proto.data.images.digits import enlarge, load_digits
from siamese_proto.data.images.idx import read_images, read_labeled, read_labels
from siamese_proto.errors import DataError
from siamese_proto.proto import schema

LABELS = numpy.array([3, 0, 1, 0, 3, 3, 7, 1, 0, 3], numpy.uint8)  # one image of class 7
TOOLS = paths.TOOLS


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.5, 1.0])
def test_balanced_pairs_have_exactly_the_given_fraction_of_same_pairs(fraction):
    pairs = draw_pairs(LABELS, 1000, same_fraction=fraction)
    assert pairs.same.sum() == 1000 * fraction
    numpy.testing.assert_array_equal(pairs.same, LABELS[pairs.first] == LABELS[pairs.second])
    assert not (pairs.first == pairs.second).any()


def test_every_pair_that_may_be_drawn_is_drawn_about_as_often():
    pairs = draw_pairs(LABELS, 40000, seed=5)
    drawn = Counter(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    images = range(len(LABELS))
    alike = {(a, b) for a in images for b in images if a != b and LABELS[a] == LABELS[b]}
    assert set(drawn) == {(a, b) for a in images for b in images if a != b}
    # each first image with a partner as often as the others, then each partner as often as the others
    for first, second in alike:
        expected = 20000 / 9 / (numpy.sum(LABELS[first] == LABELS) - 1)
        assert 0.85 * expected < drawn[first, second] < 1.15 * expected
    for first, second in set(drawn) - alike:
        expected = 20000 / 10 / numpy.sum(LABELS[first] != LABELS)
        assert 0.7 * expected < drawn[first, second] < 1.3 * expected


def test_uniform_pairs_take_both_images_from_all():
    pairs = draw_pairs(LABELS, 20000, draw="uniform")
    numpy.testing.assert_array_equal(pairs.same, LABELS[pairs.first] == LABELS[pairs.second])
    for chosen in (pairs.first, pairs.second):
        assert (numpy.bincount(chosen, minlength=10) > 1700).all()
    expected = (4**2 + 3**2 + 2**2 + 1) / 100
    assert abs(pairs.same.mean() - expected) < 0.02


@pytest.mark.parametrize("draw", ["balanced", "uniform"])
def test_the_seed_determines_the_pairs(draw):
    one, again, other = (draw_pairs(LABELS, 50, draw=draw, seed=seed) for seed in (1, 1, 2))
    numpy.testing.assert_array_equal(one.first, again.first)
    numpy.testing.assert_array_equal(one.second, again.second)
    assert (one.first != other.first).any()


IMPOSSIBLE = [
    ([], 0.5, "there are no images to draw from; give some"),
    ([1, 2, 3], 0.5, "no class has two images, so no pair can be alike; give more images, or same_fraction 0"),
    ([1, 1, 1], 0.5, "all images are of one class, so no pair can differ; give more classes, or same_fraction 1"),
]


@pytest.mark.parametrize(("labels", "fraction", "message"), IMPOSSIBLE)
def test_pairs_that_cannot_be_drawn_are_refused(labels, fraction, message):
    with pytest.raises(DataError) as caught:
        draw_pairs(numpy.array(labels, numpy.uint8), 10, same_fraction=fraction)
    assert str(caught.value) == message


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("colors", [(), (3,)])
def test_a_record_holds_both_images_on_its_channels(backend, colors, tmp_path):
    images = numpy.random.default_rng(0).integers(0, 256, (10, *colors, 4, 5)).astype(numpy.uint8)
    pairs = draw_pairs(LABELS, 2345)
    counts: list[int] = []
    write_pairs(str(tmp_path / "made"), backend, images, pairs, progress=counts.append)
    assert counts == [1000, 2000, 2345]
    with open_database(str(tmp_path / "made"), backend) as database:
        records = list(database.records())
    assert [key for key, _ in records] == [b"%08d" % number for number in range(2345)]
    for number, (_, value) in enumerate(records):
        datum = schema.Datum.FromString(value)
        assert (datum.channels, datum.height, datum.width) == (2 * (colors or (1,))[0], 4, 5)
        assert datum.data == images[pairs.first[number]].tobytes() + images[pairs.second[number]].tobytes()
        assert (datum.label, datum.encoded) == (int(pairs.same[number]), False)


def test_idx_files_are_read_plain_and_compressed(tmp_path):
    images = numpy.arange(3 * 4 * 5, dtype=numpy.uint8).reshape(3, 4, 5)
    (tmp_path / "images.gz").write_bytes(gzip.compress(struct.pack(">4I", 2051, 3, 4, 5) + images.tobytes()))
    (tmp_path / "labels").write_bytes(struct.pack(">2I", 2049, 3) + bytes([7, 0, 255]))
    pixels, labels = read_labeled(str(tmp_path / "images.gz"), str(tmp_path / "labels"))
    numpy.testing.assert_array_equal(pixels, images)
    assert labels.tolist() == [7, 0, 255]


def test_the_images_of_the_flagship_are_those_of_its_records():
    images = read_images(str(GOLDEN / "flagship/images-idx3-ubyte"))
    labels = read_labels(str(GOLDEN / "flagship/labels-idx1-ubyte"))
    classes = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    with open_database(str(GOLDEN / "flagship/pairs_lmdb")) as database:
        for _, value in database.records():
            datum = schema.Datum.FromString(value)
            assert datum.label == (classes[datum.data[:784]] == classes[datum.data[784:]])


def test_the_embedded_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits as reference

    expected = reference()
    (train, train_digits), (test, test_digits) = load_digits()
    assert (train.shape, test.shape, train.dtype) == ((1437, 28, 28), (360, 28, 28), numpy.uint8)
    numpy.testing.assert_array_equal(numpy.concatenate([train_digits, test_digits]), expected.target)
    enlarged = enlarge(expected.images.astype(numpy.float32) / 16)
    numpy.testing.assert_array_equal(numpy.concatenate([train, test]), enlarged)
    assert train[:, :4].max() == train[:, :, :4].max() == train[:, 24:].max() == train[:, :, 24:].max() == 0
    assert set(train_digits.tolist()) == set(test_digits.tolist()) == set(range(10))


def test_enlarging_is_bilinear():
    image = numpy.random.default_rng(2).random((1, 8, 8)).astype(numpy.float32)
    enlarged = enlarge(image)[0, 4:24, 4:24]
    for row in range(20):
        for column in range(20):
            y, x = (min(max((place + 0.5) * 8 / 20 - 0.5, 0), 7) for place in (row, column))
            top, left = min(int(y), 6), min(int(x), 6)
            down, right = y - top, x - left
            value = (
                image[0, top, left] * (1 - down) * (1 - right)
                + image[0, top, left + 1] * (1 - down) * right
                + image[0, top + 1, left] * down * (1 - right)
                + image[0, top + 1, left + 1] * down * right
            )
            assert abs(int(enlarged[row, column]) - 255 * value) <= 0.51


@pytest.mark.slow
def test_create_mnist_siamese_makes_as_many_pairs_as_images(tmp_path):
    files = [str(GOLDEN / "flagship" / name) for name in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    command = [sys.executable, str(TOOLS / "create_mnist_siamese.py")]
    done = subprocess.run([*command, *files, str(tmp_path / "made")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with open_database(str(tmp_path / "made"), "LEVELDB") as database:
        datums = [schema.Datum.FromString(value) for _, value in database.records()]
    assert len(datums) == 640
    assert 0.05 < sum(datum.label for datum in datums) / 640 < 0.16
    done = subprocess.run([*command, files[1], files[1], str(tmp_path / "other")], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "is not an IDX file of images" in done.stderr
