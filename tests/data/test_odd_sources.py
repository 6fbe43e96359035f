"""Sources as they are met: links in a ring, lists of other programs, files cut short, images of uncommon kinds."""

from __future__ import annotations

import struct

import h5py
import numpy
import pytest
from feeding import make_layer, noise
from image_sources import GRAY, HEIGHT, LABELS, WIDTH, write_folder, write_idx, write_list
from PIL import Image

from siamese_proto.data.bad_records import BadRecordError
from siamese_proto.data.databases.database import create_database
from siamese_proto.data.databases.datum import make_datum
from siamese_proto.data.databases.listing import images_of
from siamese_proto.data.images.class_choice import readable
from siamese_proto.data.images.decode import resize
from siamese_proto.data.images.labeled_source import LabeledSource
from siamese_proto.data.layers.hdf5 import HDF5Batches, dataset_shapes
from siamese_proto.data.layers.windows import read_windows
from siamese_proto.data.sampling import PairSampler
from siamese_proto.errors import DataError


def test_links_that_lead_back_are_not_followed_and_others_are(tmp_path):
    root = tmp_path / "faces"
    write_folder(root)
    (tmp_path / "aside").mkdir()
    Image.fromarray(GRAY[0]).save(tmp_path / "aside/x.png")
    (tmp_path / "aside/home").symlink_to(root)
    (root / "anna/up").symlink_to("..")
    (root / "bert/itself").symlink_to(".")
    (root / "carl/above").symlink_to(tmp_path)
    (root / "dora").symlink_to(tmp_path / "aside")
    with LabeledSource(str(root)).open() as images:
        assert len(images) == len(LABELS) + 1
        assert list(images.class_names.values()) == ["anna", "bert", "carl", "dora"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace(" ", "\t"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: "\n \n" + text.replace("\n", " \n\t\n"),
    ],
    ids=["byte order mark", "tabs", "CRLF", "CR", "blank lines"],
)
def test_lists_of_other_programs_are_read(change, tmp_path):
    path = write_list(tmp_path)
    with open(path, encoding="utf-8") as file:
        text = change(file.read())
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    with LabeledSource(path).open() as images:
        assert images.labels.tolist() == LABELS
        assert images.unreadable() == {}


def test_names_with_uncommon_spaces_are_not_cut_up(tmp_path):
    name = "a\x0bb\x1cc\u2028d  e.png"
    Image.fromarray(GRAY[0]).save(tmp_path / name)
    (tmp_path / "list.txt").write_text(f"{name} 3\n", encoding="utf-8")
    with LabeledSource(str(tmp_path / "list.txt")).open() as images:
        assert (images.labels.tolist(), images.unreadable()) == ([3], {})


@pytest.mark.parametrize("label", ["99999999999999999999", "2147483648", "-2147483649"])
def test_labels_too_large_for_a_record_are_refused_with_their_line(label, tmp_path):
    (tmp_path / "list.txt").write_text(f"x.png 1\nx.png {label}\n")
    with pytest.raises(DataError, match=rf"list.txt:2: label {label} does not fit in the 32 bits"):
        LabeledSource(str(tmp_path / "list.txt")).open()


@pytest.mark.parametrize("label", ["+-5", "--5", "1.0", "nan", "five"])
def test_labels_that_are_no_whole_number_are_refused_with_their_line(label, tmp_path):
    (tmp_path / "list.txt").write_text(f"x.png {label}\n")
    with pytest.raises(DataError, match=r"list.txt:1: .* is not 'path label' with a whole number as label"):
        LabeledSource(str(tmp_path / "list.txt")).open()


def test_idx_files_cut_short_in_the_header_or_of_empty_images_are_refused(tmp_path):
    path = write_idx(tmp_path)
    with open(path, "wb") as file:
        file.write(struct.pack(">3I", 2051, 8, HEIGHT))
    with pytest.raises(DataError, match="is cut short in its header, after 12 bytes; fetch it again"):
        LabeledSource(path).open()
    with open(path, "wb") as file:
        file.write(struct.pack(">4I", 2051, 8, 0, WIDTH))
    with pytest.raises(DataError, match=rf"says that its images are 0 x {WIDTH} \(height x width\)"):
        LabeledSource(path).open()
    with open(path, "wb") as file:
        file.write(b"<html>not found</html>")
    with pytest.raises(DataError, match="is not an IDX file of images: it begins with the number"):
        LabeledSource(path).open()


def test_a_file_of_labels_in_the_wrong_place_is_told(tmp_path):
    write_idx(tmp_path / "idx")
    with pytest.raises(DataError, match="holds labels and no images; give the file of images"):
        LabeledSource(str(tmp_path / "idx/train-labels-idx1-ubyte")).open()
    with pytest.raises(DataError, match="has its own labels"):
        LabeledSource(write_folder(tmp_path / "faces"), labels="train-labels-idx1-ubyte").open()


def test_images_of_sixteen_bits_are_taken_by_their_upper_eight(tmp_path):
    deep = noise(HEIGHT, WIDTH).astype(numpy.uint16) * 256 + 77
    (tmp_path / "scans/a").mkdir(parents=True)
    Image.fromarray(deep).save(tmp_path / "scans/a/1.png")
    Image.fromarray(GRAY[0]).save(tmp_path / "scans/a/2.png")
    with LabeledSource(str(tmp_path / "scans")).open() as images:
        assert images.shape == (1, HEIGHT, WIDTH)
        assert readable(images).all()
        assert numpy.array_equal(images.image(0)[0], deep >> 8)
    with LabeledSource(str(tmp_path / "scans"), is_color=True).open() as images:
        assert readable(images).all()
        assert numpy.array_equal(images.image(0), numpy.stack([deep >> 8] * 3))


def test_a_record_that_is_no_datum_is_named_or_left_out(tmp_path, caplog):
    with create_database(str(tmp_path / "db"), "LMDB") as writer:
        good = [(b"%d" % number, make_datum(GRAY[number][None], number % 2).SerializeToString()) for number in range(4)]
        writer.put([*good, (b"x", b"\xff\xff\xff")])
    with LabeledSource(str(tmp_path / "db")).open() as images:
        with pytest.raises(BadRecordError, match="record 'x' cannot be used: its 3 bytes are not a Datum message"):
            readable(images)
        left_out: set[str] = set()
        assert readable(images, left_out).tolist() == [True] * 4 + [False]
        assert left_out == {"x"}
    assert "left out 1 images" in caplog.text


def test_no_size_is_allocated_that_pillow_would_refuse():
    with pytest.raises(DataError, match=r"images cannot be resized to 100000 x 90000 \(height x width\)"):
        resize(noise(1, HEIGHT, WIDTH), (100_000, 90_000))


@pytest.mark.parametrize("fraction", [float("nan"), -0.1, 1.1, float("inf")])
def test_no_fraction_but_one_from_0_to_1_is_taken(fraction):
    with pytest.raises(DataError, match=r"same_fraction is .*; it must be from 0 to 1"):
        PairSampler(numpy.array(LABELS), same_fraction=fraction)


def test_pixels_that_are_no_numbers_are_drawn_all_the_same():
    values = numpy.array([[[0, numpy.nan, 2], [numpy.inf, 1, -numpy.inf]]], numpy.float32)
    (drawn,) = images_of(values)
    assert drawn.tolist() == [[0, 0, 255], [0, 127, 0]]


def test_values_that_are_no_bytes_stay_what_they_are_when_resized():
    values = numpy.linspace(-1, 1, 24, dtype=numpy.float32).reshape(2, 3, 4)
    found = resize(values, (6, 8))
    assert (found.shape, found.dtype) == ((2, 6, 8), numpy.float32)
    assert numpy.allclose(found.reshape(2, 3, 2, 4, 2).mean((2, 4))[:, 1, 1:3], values[:, 1, 1:3], atol=0.01)


def hdf5_file(path, *, data) -> str:
    with h5py.File(path, "w") as file:
        file["label"] = numpy.arange(200.0)
        data(file)
    return str(path)


def test_a_damaged_part_of_an_hdf5_file_is_told(tmp_path):
    values = numpy.random.default_rng(0).random((200, 30))
    path = hdf5_file(
        tmp_path / "a.h5", data=lambda file: file.create_dataset("data", data=values, chunks=(50, 30), compression=9)
    )
    with h5py.File(path) as file:
        begin = file["data"].id.get_chunk_info(1).byte_offset
    with open(path, "r+b") as raw:
        raw.seek(begin + 20)
        raw.write(bytes(200))
    with pytest.raises(DataError, match=r"the datasets of HDF5 file .* cannot be read: .*; make it again"):
        next(HDF5Batches([path], ["data", "label"], 7, shuffle=False, seed=0).batches(0))


def test_an_hdf5_file_cannot_ask_for_memory_that_it_does_not_fill(tmp_path):
    path = hdf5_file(
        tmp_path / "a.h5", data=lambda file: file.create_dataset("data", (200, 10**8), "f4", chunks=(1, 1000))
    )
    with pytest.raises(DataError, match="but its numbers are not in the file; make the file again"):
        dataset_shapes(path, ["data", "label"])


def test_links_of_an_hdf5_file_that_lead_nowhere_are_told(tmp_path):
    path = hdf5_file(tmp_path / "a.h5", data=lambda file: file.__setitem__("data", h5py.SoftLink("/gone")))
    with pytest.raises(DataError, match="has a link that leads nowhere"):
        dataset_shapes(path, ["data", "label"])


@pytest.mark.parametrize("text", ["a b.h5\n", "\ufeffc.h5 c.h5\r\n\r\n", "  a b.h5  \nc.h5"])
def test_hdf5_files_with_spaces_in_their_names_are_found(text, tmp_path):
    for name in ("a b.h5", "c.h5"):
        hdf5_file(tmp_path / name, data=lambda file: file.create_dataset("data", data=numpy.zeros((200, 3))))
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    layer = make_layer(
        'name: "h" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "list.txt" batch_size: 7 }',
        folder=str(tmp_path),
    )
    assert list(layer.top_shapes(())) == [(7, 3), (7,)]


WINDOWS = "# 0\na.png\n3\n24\n20\n1\n1 0.9 0 0 10 10\n"


@pytest.mark.parametrize("text", ["\ufeff" + WINDOWS, WINDOWS.replace(" ", "\t"), WINDOWS.replace("\n", "\r\n")])
def test_window_files_of_other_programs_are_read(text, tmp_path):
    path = tmp_path / "windows.txt"
    path.write_bytes(text.encode())
    (image,) = read_windows(str(path), 0)
    assert (image.name, image.windows.tolist()) == ("a.png", [[1, 0.9, 0, 0, 10, 10]])


def test_a_number_of_windows_beyond_all_bounds_is_told(tmp_path):
    (tmp_path / "windows.txt").write_text(WINDOWS.replace("\n1\n", "\n99999999999999999999\n"))
    with pytest.raises(DataError, match="the image has 99999999999999999999 windows, but the file ends after 1"):
        read_windows(str(tmp_path / "windows.txt"), 0)
