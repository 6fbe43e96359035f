"""Sources as they are met: links in a ring, lists of other programs, files cut short, images of uncommon kinds."""

from __future__ import annotations

import struct

import numpy
import pytest
from feeding import noise
from PIL import Image
from sources import GRAY, HEIGHT, LABELS, WIDTH, write_folder, write_idx, write_list

from siamese_proto.data.bad_records import BadRecordError
from siamese_proto.data.class_choice import readable
from siamese_proto.data.database import create_database
from siamese_proto.data.datum import make_datum
from siamese_proto.data.images import resize
from siamese_proto.data.labelled import open_labelled
from siamese_proto.data.pair_sampling import PairSampler
from siamese_proto.data.picture import images_of
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
    with open_labelled(str(root)) as images:
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
    with open_labelled(path) as images:
        assert images.labels.tolist() == LABELS
        assert images.unreadable() == {}


def test_names_with_uncommon_spaces_are_not_cut_up(tmp_path):
    name = "a\x0bb\x1cc\u2028d  e.png"
    Image.fromarray(GRAY[0]).save(tmp_path / name)
    (tmp_path / "list.txt").write_text(f"{name} 3\n", encoding="utf-8")
    with open_labelled(str(tmp_path / "list.txt")) as images:
        assert (images.labels.tolist(), images.unreadable()) == ([3], {})


@pytest.mark.parametrize("label", ["99999999999999999999", "2147483648", "-2147483649"])
def test_labels_too_large_for_a_record_are_refused_with_their_line(label, tmp_path):
    (tmp_path / "list.txt").write_text(f"x.png 1\nx.png {label}\n")
    with pytest.raises(DataError, match=rf"list.txt:2: label {label} does not fit in the 32 bits"):
        open_labelled(str(tmp_path / "list.txt"))


@pytest.mark.parametrize("label", ["+-5", "--5", "1.0", "nan", "five"])
def test_labels_that_are_no_whole_number_are_refused_with_their_line(label, tmp_path):
    (tmp_path / "list.txt").write_text(f"x.png {label}\n")
    with pytest.raises(DataError, match=r"list.txt:1: .* is not 'path label' with a whole number as label"):
        open_labelled(str(tmp_path / "list.txt"))


def test_idx_files_cut_short_in_the_header_or_of_empty_images_are_refused(tmp_path):
    path = write_idx(tmp_path)
    with open(path, "wb") as file:
        file.write(struct.pack(">3I", 2051, 8, HEIGHT))
    with pytest.raises(DataError, match="is cut short in its header, after 12 bytes; fetch it again"):
        open_labelled(path)
    with open(path, "wb") as file:
        file.write(struct.pack(">4I", 2051, 8, 0, WIDTH))
    with pytest.raises(DataError, match=rf"says that its images are 0 x {WIDTH} \(height x width\)"):
        open_labelled(path)
    with open(path, "wb") as file:
        file.write(b"<html>not found</html>")
    with pytest.raises(DataError, match="is not an IDX file of images: it begins with the number"):
        open_labelled(path)


def test_a_file_of_labels_in_the_wrong_place_is_told(tmp_path):
    write_idx(tmp_path / "idx")
    with pytest.raises(DataError, match="holds labels and no images; give the file of images"):
        open_labelled(str(tmp_path / "idx/train-labels-idx1-ubyte"))
    with pytest.raises(DataError, match="has labels of its own"):
        open_labelled(write_folder(tmp_path / "faces"), labels="train-labels-idx1-ubyte")


def test_images_of_sixteen_bits_are_taken_by_their_upper_eight(tmp_path):
    deep = noise(HEIGHT, WIDTH).astype(numpy.uint16) * 256 + 77
    (tmp_path / "scans/a").mkdir(parents=True)
    Image.fromarray(deep).save(tmp_path / "scans/a/1.png")
    Image.fromarray(GRAY[0]).save(tmp_path / "scans/a/2.png")
    with open_labelled(str(tmp_path / "scans")) as images:
        assert images.shape == (1, HEIGHT, WIDTH)
        assert readable(images).all()
        assert numpy.array_equal(images.image(0)[0], deep >> 8)
    with open_labelled(str(tmp_path / "scans"), is_color=True) as images:
        assert readable(images).all()
        assert numpy.array_equal(images.image(0), numpy.stack([deep >> 8] * 3))


def test_a_record_that_is_no_datum_is_named_or_left_out(tmp_path, caplog):
    with create_database(str(tmp_path / "db"), "LMDB") as writer:
        good = [(b"%d" % number, make_datum(GRAY[number][None], number % 2).SerializeToString()) for number in range(4)]
        writer.put([*good, (b"x", b"\xff\xff\xff")])
    with open_labelled(str(tmp_path / "db")) as images:
        with pytest.raises(BadRecordError, match="record 'x' cannot be used: its 3 bytes are not a Datum message"):
            readable(images)
        left_out: set[str] = set()
        assert readable(images, left_out).tolist() == [True] * 4 + [False]
        assert left_out == {"x"}
    assert "left out 1 images" in caplog.text


def test_no_size_is_allocated_that_pillow_would_refuse():
    with pytest.raises(DataError, match=r"images cannot be brought to 100000 x 90000 \(height x width\)"):
        resize(noise(1, HEIGHT, WIDTH), (100_000, 90_000))


@pytest.mark.parametrize("fraction", [float("nan"), -0.1, 1.1, float("inf")])
def test_no_fraction_but_one_from_0_to_1_is_taken(fraction):
    with pytest.raises(DataError, match=r"same_fraction is .*; it must be from 0 to 1"):
        PairSampler(numpy.array(LABELS), same_fraction=fraction)


def test_pixels_that_are_no_numbers_are_drawn_all_the_same():
    values = numpy.array([[[0, numpy.nan, 2], [numpy.inf, 1, -numpy.inf]]], numpy.float32)
    (drawn,) = images_of(values)
    assert drawn.tolist() == [[0, 0, 255], [0, 127, 0]]
