"""Files that name pairs in forms other than CSV, and lists with several labels."""

from __future__ import annotations

import io
import logging
import random
from pathlib import Path
from typing import IO

import numpy
import pytest
from click.testing import CliRunner
from feeding import batches, make_layer
from image_sources import GRAY, HEIGHT, WIDTH, number_of, write_folder
from PIL import Image

from siamese_proto.cli import main
from siamese_proto.data.databases.database import open_database
from siamese_proto.data.databases.mean_image import read_npy
from siamese_proto.data.images.labeled_source import LabeledSource, guess_kind
from siamese_proto.data.images.pair_lines import pair_form, read_pairs
from siamese_proto.data.transform import Transform, load_mean
from siamese_proto.errors import DataError, NetError
from siamese_proto.evaluation.features import read_features
from siamese_proto.evaluation.pair_sources import open_pair_images
from siamese_proto.evaluation.preprocess import Preprocessing

PEOPLE = ["Ann_Lee", "Bo", "Bo", "Ann_Lee", "Bo"]  # of images 0 to 4, which are numbered per person from 1
LFW = "1\t2\nAnn_Lee\t1\t2\nBo\t2\t3\nAnn_Lee\t1\tBo\t1\nBo\t3\tAnn_Lee\t2\n"
EXPECTED = [(0, 3, 1), (2, 4, 1), (0, 1, 0), (4, 3, 0)]  # images and label


def write_people(root: Path, suffix: str) -> None:
    seen: dict[str, int] = {}
    for number, person in enumerate(PEOPLE):
        seen[person] = seen.get(person, 0) + 1
        (root / person).mkdir(parents=True, exist_ok=True)
        Image.fromarray(GRAY[number]).save(root / person / f"{person}_{seen[person]:04d}{suffix}")


def delivered(source: Path, more: str = "") -> list[tuple[int, int, int]]:
    settings = f'pair_data_param {{ source: "{source}" batch_size: 4 {more} }}'
    layer = make_layer(f'name: "d" type: "PairData" top: "a" top: "b" top: "s" {settings}')
    assert list(layer.top_shapes(())) == [(4, 1, HEIGHT, WIDTH)] * 2 + [(4,)]
    ((first, second, labels),) = batches(layer, 1)
    return [
        (number_of(one), number_of(other), int(label)) for one, other, label in zip(first, second, labels, strict=True)
    ]


@pytest.mark.parametrize("suffix", [".png", ".pgm", ".bmp"])
@pytest.mark.parametrize("text", [LFW, LFW.replace("\t", " "), LFW.replace("\n", "\r\n"), "\ufeff" + LFW, LFW[2:]])
def test_the_pairs_of_lfw_are_read(suffix, text, tmp_path):
    write_people(tmp_path / "lfw", suffix)
    (tmp_path / "pairs.txt").write_text(text, newline="")
    assert guess_kind(str(tmp_path / "pairs.txt")) == "CSV"
    assert delivered(tmp_path / "pairs.txt", f'root_folder: "{tmp_path}/lfw/"') == EXPECTED


def test_the_pairs_of_lfw_may_be_next_to_the_persons(tmp_path):
    write_people(tmp_path, ".png")
    (tmp_path / "pairs.txt").write_text(LFW)
    assert delivered(tmp_path / "pairs.txt") == EXPECTED


def test_the_names_of_lfw_are_those_of_its_images(tmp_path):
    (tmp_path / "pairs.txt").write_text("10\t300\nAbel_Pacheco\t1\t4\nAbdel_Madi_Shabneh\t1\tDean_Barker\t12\n")
    assert read_pairs(str(tmp_path / "pairs.txt")).rows == [
        ("Abel_Pacheco/Abel_Pacheco_0001.jpg", "Abel_Pacheco/Abel_Pacheco_0004.jpg", 1),
        ("Abdel_Madi_Shabneh/Abdel_Madi_Shabneh_0001.jpg", "Dean_Barker/Dean_Barker_0012.jpg", 0),
    ]


def test_pairs_of_lfw_that_are_missing_are_told(tmp_path, caplog):
    (tmp_path / "pairs.txt").write_text("10 300\nA 1 2\nA 1 B 2\n")
    with caplog.at_level(logging.WARNING):
        read_pairs(str(tmp_path / "pairs.txt"))
    assert caplog.messages == [
        f"'{tmp_path}/pairs.txt' names 2 pairs, but its first line says that there are 6000",
    ]


WORDS = "anna/1.png anna/2.png 1\nanna/2.png bert/4.png 0\nbert/4.png bert/5.png 1\ncarl/7.png anna/6.png 0\n"


@pytest.mark.parametrize("head", ["", "first second label\n"])
@pytest.mark.parametrize("gap", [" ", "\t", "   "])
@pytest.mark.parametrize("name", ["pairs.txt", "pairs.csv", "pairs"])
def test_pairs_between_spaces_or_tabs_are_read(head, gap, name, tmp_path):
    write_folder(tmp_path)
    (tmp_path / name).write_text((head + WORDS).replace(" ", gap))
    assert delivered(tmp_path / name) == [(1, 2, 1), (2, 4, 0), (4, 5, 1), (7, 6, 0)]


@pytest.mark.parametrize("text", ["my photos/a.png 3\n", "a.png 0 1\n", "a.png 7\nb.png 8\n", "12 3\n4 5\n", "", "\0"])
def test_lists_of_single_images_are_no_pairs(text, tmp_path):
    (tmp_path / "list.txt").write_text(text)
    assert pair_form(str(tmp_path / "list.txt")) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a.png b.png 1\na.png b.png\n", "x.txt:2: 'a.png b.png' is not 'image1 image2 label' with a number as label"),
        ("1\nA 1 2\n\nB 1 C\n", "x.txt:4: 'B 1 C' is neither 'name i j' nor 'name1 i name2 j', as in the pairs.txt"),
    ],
)
def test_a_line_that_names_no_pair_is_named(text, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x.txt").write_text(text)
    with pytest.raises(DataError) as error:
        read_pairs("x.txt")
    assert str(error.value).startswith(problem)


def test_data_pairs_and_evaluate_read_these_files_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_people(Path(), ".png")
    Path("pairs.txt").write_text(LFW)
    done = CliRunner().invoke(main, ["data", "pairs", "pairs.txt", "made"])
    assert done.output.splitlines()[-1] == "made: 4 pairs, 2 same and 2 different"
    with open_database("made") as database:
        assert database.count() == 4
    preparation = Preprocessing((1, HEIGHT, WIDTH), (HEIGHT, WIDTH), Transform("TEST"), None, "the net")
    pairs = open_pair_images(LabeledSource("pairs.txt"), preparation)
    assert pairs.same.tolist() == [True, True, False, False]


SEVERAL = (
    "its line ends with several numbers, but a list has one label a line: keep one, or write the labels to an HDF5"
)


@pytest.mark.parametrize("text", ["x.png 0 1\n", "x.png 3 -0.5 1\n", "x.png 0 0.5\n", "x.png\t0 1.5\n"])
def test_a_list_with_several_labels_a_line_is_named_as_such(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(GRAY[0]).save("x.png")
    Path("list.txt").write_text(text)
    layer = make_layer('name: "i" type: "ImageData" top: "x" top: "y" image_data_param { source: "list.txt" }')
    for read in (lambda: LabeledSource("list.txt").open(), lambda: layer.top_shapes(())):
        with pytest.raises(NetError, match=SEVERAL):
            read()


def test_one_label_that_is_no_whole_number_is_not_taken_for_several(tmp_path):
    (tmp_path / "list.txt").write_text("x.png 0.5\n")
    with pytest.raises(DataError, match=r"is not 'path label' with a whole number as label$"):
        LabeledSource(str(tmp_path / "list.txt")).open()


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 2, 3, 5)])
def test_a_mean_of_numpy_is_named_and_converted(shape, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mean = numpy.arange(30).reshape(shape) / 7
    numpy.save("m.npy", mean)
    hint = (
        "it is a NumPy file, which Caffe does not read; convert it: siamese-proto data mean MEAN.npy MEAN.binaryproto"
    )
    with pytest.raises(DataError) as error:
        load_mean("m.npy", None)
    assert str(error.value) == f"mean_file 'm.npy' is not a BlobProto; {hint}"
    done = CliRunner().invoke(main, ["data", "mean", "m.npy", "m.binaryproto"])
    assert done.output.splitlines()[0] == "m.binaryproto: the mean in m.npy, 2 x 3 x 5"
    assert numpy.array_equal(load_mean("m.binaryproto", None)[1], mean.reshape(2, 3, 5).astype("f4"))


@pytest.mark.parametrize("mean", [numpy.zeros(3), numpy.array([[["a"]]]), numpy.zeros((2, 0, 3))])
def test_a_numpy_file_that_is_no_mean_image_is_refused(mean, tmp_path):
    numpy.save(tmp_path / "m.npy", mean)
    with pytest.raises(DataError, match=r"a mean image has numbers of shape \(channels, height, width\)"):
        read_npy(str(tmp_path / "m.npy"))


def save_mean(file: IO[bytes]) -> None:
    numpy.save(file, numpy.ones((2, 3, 5), "f4"))


def save_features(file: IO[bytes]) -> None:
    names = numpy.array(["a", "b", "c"])
    features = numpy.ones((3, 500), "f4")
    numpy.savez_compressed(file, features=features, labels=numpy.arange(3), names=names, class_names=names)


@pytest.mark.slow
@pytest.mark.parametrize(("save", "read"), [(save_mean, read_npy), (save_features, read_features)])
def test_a_damaged_file_of_numpy_is_one_line(save, read, tmp_path):
    file, draw, messages = io.BytesIO(), random.Random(1), []
    save(file)
    for case in range(600):
        data = bytearray(file.getvalue())
        for _ in range(draw.choice([1, 2, 5])):
            data[draw.randrange(len(data) if case % 2 else min(len(data), 128))] = draw.randrange(256)
        (tmp_path / "x").write_bytes(data)
        try:
            read(str(tmp_path / "x"))
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)
