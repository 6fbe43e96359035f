from __future__ import annotations

import threading

import numpy
import pytest
from feeding import BACKENDS, copied, make_raw_database, noise
from image_sources import (
    GRAY,
    HEIGHT,
    KINDS,
    LABELS,
    NAMES,
    WIDTH,
    number_of,
    write_folder,
    write_idx,
    write_list,
    write_source,
)
from PIL import Image

from siamese_proto.data.images.class_choice import choose_classes, readable, warn_of_lone_images
from siamese_proto.data.images.digits import load_digits
from siamese_proto.data.images.labeled import LabeledImages
from siamese_proto.data.images.labeled_source import LabeledSource, guess_kind
from siamese_proto.data.images.pair_list import open_pairs
from siamese_proto.errors import DataError
from siamese_proto.proto import schema


def saved(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_delivers_the_same_images_and_labels(kind, tmp_path):
    with LabeledSource(write_source(kind, tmp_path)).open() as images:
        assert (len(images), images.shape, images.labels.dtype) == (8, (1, HEIGHT, WIDTH), numpy.int64)
        found = [number_of(images.image(index)) for index in range(8)]
        assert sorted(found) == list(range(8))
        assert [LABELS[number] for number in found] == images.labels.tolist()
        chosen = numpy.array([6, 1, 1])
        assert [number_of(image) for image in images.images(chosen)] == [found[6], found[1], found[1]]
        few = images.selected(chosen).selected(numpy.array([2, 0]))
        assert [number_of(few.image(index)) for index in range(2)] == [found[1], found[6]]
        assert few.labels.tolist() == [LABELS[found[1]], LABELS[found[6]]]
        assert few.names == [images.names[1], images.names[6]]
        assert images.unreadable() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_images_come_in_the_size_and_colour_asked_for(kind, tmp_path):
    source = write_source(kind, tmp_path)
    with LabeledSource(source, is_color=True, new_size=(6, 4)).open() as images, LabeledSource(source).open() as plain:
        assert images.shape == (3, 6, 4)
        for index in range(8):
            image = images.image(index)
            assert (image.shape, image.dtype) == ((3, 6, 4), numpy.uint8)
            gray = plain.image(index)[0].astype(float)
            rows, columns = (numpy.arange(6) + 0.5) * 5 / 6 - 0.5, (numpy.arange(4) + 0.5) * 7 / 4 - 0.5
            wide = numpy.stack([numpy.interp(columns, numpy.arange(7), row) for row in gray])
            expected = numpy.stack([numpy.interp(rows, numpy.arange(5), column) for column in wide.T], axis=1)
            assert numpy.abs(image - expected).max() <= 0.51


def test_classes_of_a_folder_are_its_sub_folders_in_the_order_of_their_names(tmp_path):
    (tmp_path / "faces/.hidden").mkdir(parents=True)
    saved(tmp_path / "faces/.hidden/x.png", GRAY[0])
    (tmp_path / "faces/empty").mkdir()
    (tmp_path / "faces/notes.txt").write_text("no image")
    saved(tmp_path / "faces/zoe/left/1.JPG", GRAY[0])
    with LabeledSource(write_folder(tmp_path / "faces")).open() as images:
        assert images.class_names == {**NAMES, 3: "zoe/left"}
        assert images.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3]
        assert images.names[3] == f"{tmp_path}/faces/bert/4.png"


def test_the_first_image_decides_on_colour_where_nobody_says(tmp_path):
    saved(tmp_path / "f/a/1.png", noise(3, 4, 3))
    saved(tmp_path / "f/a/2.png", noise(3, 4))
    with LabeledSource(str(tmp_path / "f")).open() as images:
        assert (images.shape, images.image(1).shape) == ((3, 3, 4), (3, 3, 4))
        numpy.testing.assert_array_equal(images.image(0)[0], noise(3, 4, 3)[:, :, 2])  # blue first


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_digits_of_training_and_testing_are_not_the_same_ones(split):
    expected, other = load_digits()[:: 1 if split == "train" else -1]
    for images in (LabeledSource("digits", split=split).open(), LabeledSource(f"digits:{split}", "DIGITS").open()):
        numpy.testing.assert_array_equal(images.images(numpy.arange(len(images)))[:, 0], expected[0])
        numpy.testing.assert_array_equal(images.labels, expected[1])
    seen = {image.tobytes() for image in other[0]}
    assert not any(image.tobytes() in seen for image in expected[0])
    assert len(LabeledSource("digits").open()) == 1797


def test_a_folder_named_digits_comes_before_the_embedded_ones(tmp_path, monkeypatch):
    write_folder(tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    assert len(LabeledSource("digits").open()) == 8
    assert len(LabeledSource("digits", "DIGITS").open()) == 1797


@pytest.mark.parametrize("backend", BACKENDS)
def test_records_that_hold_image_files_and_floats_are_read(backend, tmp_path):
    saved(tmp_path / "1.png", GRAY[0])
    encoded = schema.Datum(data=(tmp_path / "1.png").read_bytes(), encoded=True, label=-4)
    floats = schema.Datum(channels=1, height=HEIGHT, width=WIDTH, float_data=(GRAY[1] / 2).ravel(), label=9)
    values = [datum.SerializeToString() for datum in (encoded, floats)]
    with LabeledSource(make_raw_database(tmp_path / "db", values, backend)).open() as images:
        assert (images.shape, images.labels.tolist()) == ((1, HEIGHT, WIDTH), [-4, 9])
        numpy.testing.assert_array_equal(images.image(0)[0], GRAY[0])
        numpy.testing.assert_array_equal(images.image(1)[0], GRAY[1] / 2)


@pytest.mark.parametrize("kind", ["FOLDER", "LMDB", "LEVELDB"])
def test_several_threads_may_read_at_once(kind, tmp_path):
    with LabeledSource(write_source(kind, tmp_path)).open() as images:
        expected = [number_of(images.image(index)) for index in range(8)]
        found: dict[int, list[int]] = {}

        def read(thread: int) -> None:
            found[thread] = [number_of(images.image(index)) for index in list(range(8)) * 20]

        threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == dict.fromkeys(range(4), expected * 20)


def test_images_that_cannot_be_read_are_named_at_once(tmp_path):
    folder = write_folder(tmp_path / "faces")
    saved(tmp_path / "faces/anna/z.jpg", noise(40, 30, 3))
    whole = (tmp_path / "faces/anna/z.jpg").read_bytes()
    (tmp_path / "faces/anna/zz.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "faces/bert/zz.png").write_bytes(b"")
    with LabeledSource(folder).open() as images, pytest.raises(DataError) as caught:
        readable(images)
    text = str(caught.value)
    first = f"2 images of '{folder}' cannot be read: image '{folder}/anna/zz.jpg': its image file is damaged ("
    assert text.startswith(first)
    assert text.endswith(f"; image '{folder}/bert/zz.png': its 0 bytes are not an image file that Pillow can read")


def test_classes_of_one_image_are_named(tmp_path, caplog):
    saved(tmp_path / "faces/zoe/only.png", GRAY[0])
    with LabeledSource(write_folder(tmp_path / "faces")).open() as images:
        warn_of_lone_images(images, "d")
    expected = f"layer 'd': 1 of 4 classes have one image, which no other is alike to: '{tmp_path}/faces/zoe/only.png'"
    assert caplog.messages == [f"{expected} of class 'zoe'"]


CHOICES = [
    ({"classes": "0"}, [0, 0, 0]),
    ({"classes": "carl, 0:1"}, [2, 2, 2, 0, 0, 0]),
    ({"classes": "1:"}, [2, 2, 2, 1, 1]),
    ({"exclude": ":2"}, [2, 2, 2]),
    ({"classes": "0:2", "exclude": "bert"}, [0, 0, 0]),
    ({"per_class": 1}, [2, 0, 1]),
    ({"per_class": 1, "skip": 1}, [2, 0, 1]),
    ({"skip": 2}, [0, 2]),
]


@pytest.mark.parametrize(("choice", "labels"), CHOICES)
def test_classes_and_images_of_each_are_chosen(choice, labels, tmp_path):
    folder, listed = write_folder(tmp_path / "faces"), write_list(tmp_path)
    with LabeledSource(folder).open() as named, LabeledSource(listed).open() as images:
        images.class_names = named.class_names
        chosen = choose_classes(images, **choice)
        assert sorted(chosen.labels.tolist()) == sorted(labels)
        assert [LABELS[number_of(chosen.image(index))] for index in range(len(chosen))] == chosen.labels.tolist()


def test_the_parts_of_a_class_share_no_image(tmp_path):
    with LabeledSource(write_list(tmp_path)).open() as images:
        first, rest = choose_classes(images, per_class=2), choose_classes(images, skip=2)
        assert not set(first.names) & set(rest.names)
        assert len(first) + len(rest) == 8


WRONG_CHOICES = [
    ({"classes": "3"}, "no image has a class of '3'; they go from 0 to 2"),
    ({"classes": "ana"}, "there is no class 'ana'; did you mean 'anna'?"),
    ({"exclude": "0:3"}, "no image of '{}' is left by the choice of classes; choose others"),
]


@pytest.mark.parametrize(("choice", "message"), WRONG_CHOICES)
def test_choices_that_leave_nothing_or_name_nothing_are_refused(choice, message, tmp_path):
    folder = write_folder(tmp_path / "faces")
    with LabeledSource(folder).open() as images, pytest.raises(DataError) as caught:
        choose_classes(images, **choice)
    assert str(caught.value) == message.format(folder)


def test_labels_are_found_by_the_name_of_the_images(tmp_path):
    images = write_idx(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").rename(tmp_path / "other")
    with pytest.raises(DataError) as caught:
        LabeledSource(images).open()
    wanted = f"there is no file of labels 'train-labels-idx1-ubyte' beside '{images}'; name it as labels"
    assert str(caught.value) == wanted
    assert LabeledSource(images, labels="other", folder=str(tmp_path)).open().labels.tolist() == LABELS


def refused(source, *arguments, **settings) -> str:
    with pytest.raises(DataError) as caught:
        LabeledSource(str(source), *arguments, **settings).open()
    return str(caught.value).replace(str(source), "SOURCE")


def test_sources_that_are_not_what_they_should_be_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare").mkdir()
    (tmp_path / "words").write_text("x.png 1\n")
    (tmp_path / "p.csv").write_text("a,b,1\n")
    assert refused("gone") == "'SOURCE' is not there in the working directory; check the path"
    assert refused("bare") == "folder 'SOURCE' has no sub-folders with images; make one a class, with its images"
    assert refused("words", "FOLDER") == "'SOURCE' is not a folder; give one with a sub-folder a class"
    assert "give the prefix of all its paths (--root-folder for a command, root_folder in a layer)" in refused("words")
    assert "is not an IDX file of images" in refused("words", "IDX", labels="words")
    assert refused("bare", "DATABASE").startswith("database 'SOURCE' is an empty folder")
    assert refused("/dev/zero") == "'SOURCE' is neither a file nor a folder; check the path"
    assert "names pairs of images, not classes" in refused("p.csv")
    assert refused("none", "DIGITS").startswith("'SOURCE' is no part of the embedded digits; write one of digits")


def test_paths_of_a_list_begin_with_root_folder_and_are_tried_from_several_places(tmp_path, monkeypatch):
    write_list(tmp_path / "net")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/l.txt").write_text("anna/1.png 5\nbert/4.png 6\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with LabeledSource("../lists/l.txt", root_folder="images/", folder=str(tmp_path / "net")).open() as images:
        assert [number_of(images.image(index)) for index in (0, 1)] == [1, 4]


def test_a_dot_before_a_path_does_no_harm(tmp_path):
    write_list(tmp_path)
    (tmp_path / "dotted.txt").write_text("./images/anna/1.png 0\nimages/bert/4.png 1\n")
    with LabeledSource(str(tmp_path / "dotted.txt")).open() as images:
        assert [number_of(images.image(index)) for index in (0, 1)] == [1, 4]


def csv_of(tmp_path, text) -> tuple[LabeledImages, list[list[int]], list[float]]:
    write_list(tmp_path)
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8")
    images, pairs = open_pairs(LabeledSource(str(tmp_path / "pairs.csv"), root_folder="images/"))
    tuples, labels = pairs.draw(numpy.arange(len(pairs.labels)))
    return images, tuples.tolist(), labels.tolist()


def test_pairs_are_read_from_a_csv(tmp_path):
    first = ["image1,image2,label", "anna/1.png, bert/4.png ,0"]
    lines = [*first, "", '"anna/2.png",anna/1.png,1', "bert/4.png,bert/5.png,0.5"]
    text = "\ufeff" + "\r\n".join(lines)
    images, tuples, labels = csv_of(tmp_path, text)
    assert (len(images), tuples, labels) == (4, [[0, 1], [2, 0], [1, 3]], [0, 1, 0.5])
    assert [number_of(images.image(index)) for index in range(4)] == [1, 4, 2, 5]


WRONG_CSV = [
    ("", "'CSV' names no pair; write lines of image1,image2,label"),
    ("image1,image2,label\n", "'CSV' names no pair; write lines of image1,image2,label"),
    ("anna/1.png,0\n", "CSV:1: 'anna/1.png,0' is not 'image1,image2,label' with a number as label"),
    ("a,b,1\nc,d,same\n", "CSV:2: 'c,d,same' is not 'image1,image2,label' with a number as label"),
    ("a,b,1\nc,d,nan\n", "CSV:2: 'c,d,nan' is not 'image1,image2,label' with a number as label"),
    (
        "gone,b,1\n",
        "image 'images/gone', the first of 'CSV', is not there; give the prefix of all its paths (--root-folder for a "
        "command, root_folder in a layer)",
    ),
]


@pytest.mark.parametrize(("text", "message"), WRONG_CSV)
def test_lines_that_name_no_pair_are_refused(text, message, tmp_path):
    with pytest.raises(DataError) as caught:
        csv_of(tmp_path, text)
    assert str(caught.value).replace(str(tmp_path / "pairs.csv"), "CSV") == message


def test_the_kind_is_told_by_the_files(tmp_path):
    sources = {kind: write_source(kind, tmp_path / kind) for kind in KINDS}
    expected = {"IDX.gz": "IDX", "LMDB": "DATABASE", "LEVELDB": "DATABASE"}
    assert {kind: guess_kind(path) for kind, path in sources.items()} == {
        kind: expected.get(kind, kind) for kind in KINDS
    }


def test_a_database_of_real_caffe_is_read(tmp_path):
    with LabeledSource(copied("flagship/pairs_leveldb", tmp_path)).open() as images:
        assert (images.shape, set(images.labels.tolist())) == ((2, 28, 28), {0, 1})
