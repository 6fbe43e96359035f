"""What users are told: one line with the place, what is wrong, what was expected and what to try."""

from __future__ import annotations

import gzip
import io
import shutil
import struct
from pathlib import Path

import numpy
import pytest
from feeding import GOLDEN, batches, copied, data_layer, make_database, make_layer, make_raw_database, noise
from PIL import Image

from siamese_proto.data.databases.database import create_database, open_database
from siamese_proto.data.images.idx import read_labeled
from siamese_proto.errors import DataError, GraphError, NetError
from siamese_proto.graph.ir import SourceMissingError
from siamese_proto.layers.base import RunState
from siamese_proto.proto import schema


def datum(**fields):
    return schema.Datum(**fields).SerializeToString()


def jpeg(size=(5, 3), image_format="JPEG"):
    file = io.BytesIO()
    Image.new("RGB", size, (200, 10, 30)).save(file, image_format)
    return file.getvalue()


GOOD = datum(channels=2, height=3, width=5, data=bytes(30), label=1)
ENCODED = datum(data=jpeg(), encoded=True, label=1)
AGAIN = "; make the database again"

# (records after a first good one, what reading the batch says)
RECORDS = [
    (b"\xff\xff\xff", f"record '00000001' cannot be used: its 3 bytes are not a Datum message{AGAIN}"),
    (b"", f"record '00000001' cannot be used: it holds no pixels{AGAIN}"),
    (
        datum(channels=2, height=3, width=5, data=bytes(29)),
        "record '00000001' cannot be used: it holds 29 values, but its size is 2 x 3 x 5 (channels x height x"
        f" width){AGAIN}",
    ),
    (
        datum(channels=-2, height=-3, width=5, data=bytes(30)),
        "record '00000001' cannot be used: it holds 30 values, but its size is -2 x -3 x 5 (channels x height x"
        f" width){AGAIN}",
    ),
    (
        datum(channels=2**20, height=2**20, width=2**20, data=bytes(30)),
        "record '00000001' cannot be used: it holds 30 values, but its size is 1048576 x 1048576 x 1048576"
        f" (channels x height x width){AGAIN}",
    ),
    (
        datum(channels=2, height=5, width=3, data=bytes(30)),
        "record '00000001' of database 'DB' has size 2 x 5 x 3, but the first one has 2 x 3 x 5 (channels x height x"
        " width); all must have one size, at least that of the crop where there is one",
    ),
    (
        datum(data=b"not a picture", encoded=True),
        f"record '00000001' cannot be used: its 13 bytes are not an image file that Pillow can read{AGAIN}",
    ),
]


@pytest.mark.parametrize(("value", "message"), RECORDS)
@pytest.mark.parametrize("backend", ["LEVELDB", "LMDB"])
def test_a_bad_record_is_named_by_its_key(backend, value, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_raw_database(Path("DB"), [GOOD, value], backend)
    with pytest.raises(DataError) as caught:
        batches(data_layer("DB", backend=backend), 1)
    assert str(caught.value) == message


def test_a_damaged_image_file_is_named_by_its_key(tmp_path):
    cut = datum(data=jpeg((64, 48))[:-60], encoded=True)
    layer = data_layer(make_raw_database(tmp_path / "DB", [cut]))
    with pytest.raises(
        DataError, match=r"^record '00000000' cannot be used: its image file is damaged \(.*[Tt]runcated"
    ):
        batches(layer, 1)


def test_an_image_of_16_bits_is_refused(tmp_path):
    file = io.BytesIO()
    Image.fromarray(numpy.full((3, 5), 40000, numpy.uint16)).save(file, "PNG")
    layer = data_layer(make_raw_database(tmp_path / "DB", [datum(data=file.getvalue(), encoded=True)]))
    with pytest.raises(DataError, match=r"^record '00000000' cannot be used: its image has more than 8 bits per value"):
        layer.top_shapes(())


def test_an_image_beyond_pillows_limit_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    layer = data_layer(make_raw_database(tmp_path / "DB", [ENCODED]))
    for limit in (10, 5):  # Pillow warns above its limit and refuses above twice its limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError) as caught:
            batches(layer, 1)
        assert str(caught.value) == (
            "record '00000000' cannot be used: its image is larger than Pillow's limit (PIL.Image.MAX_IMAGE_PIXELS)"
            f"{AGAIN}"
        )
        monkeypatch.undo()
        batches(layer, 1)


MAKE = "make it with 'siamese-proto data'"


def missing(folder: Path) -> None:
    pass


def empty_folder(folder: Path) -> None:
    (folder / "DB").mkdir()


def other_folder(folder: Path) -> None:
    (folder / "DB").mkdir()
    (folder / "DB/readme.txt").write_text("nothing")


def lmdb_one(folder: Path) -> None:
    make_database(folder / "DB", [noise(1, 2, 3)], "LMDB")


def leveldb_one(folder: Path) -> None:
    make_database(folder / "DB", [noise(1, 2, 3)], "LEVELDB")


def lmdb_empty(folder: Path) -> None:
    make_database(folder / "DB", [], "LMDB")


def leveldb_empty(folder: Path) -> None:
    make_database(folder / "DB", [], "LEVELDB")


def lmdb_no_bytes(folder: Path) -> None:
    (folder / "DB").mkdir()
    (folder / "DB/data.mdb").touch()


def lmdb_other_bytes(folder: Path) -> None:
    (folder / "DB").mkdir()
    (folder / "DB/data.mdb").write_bytes(b"hello world" * 10000)


def lmdb_cut(folder: Path) -> None:
    shutil.move(copied("flagship/pairs_lmdb", folder), folder / "DB")
    with open(folder / "DB/data.mdb", "r+b") as file:
        file.truncate(100000)


def leveldb_no_manifest(folder: Path) -> None:
    shutil.move(copied("flagship/pairs_leveldb", folder), folder / "DB")
    (folder / "DB/MANIFEST-000013").unlink()


def leveldb_no_table(folder: Path) -> None:
    shutil.move(copied("flagship/pairs_leveldb", folder), folder / "DB")
    (folder / "DB/000005.ldb").unlink()


def leveldb_flipped(folder: Path) -> None:
    shutil.move(copied("flagship/pairs_leveldb", folder), folder / "DB")
    table = folder / "DB/000005.ldb"
    data = bytearray(table.read_bytes())
    data[300] ^= 255
    table.write_bytes(data)


DATABASES = [
    (missing, "LMDB", f"database 'DB' is not there in the working directory; {MAKE}"),
    (empty_folder, "LMDB", f"database 'DB' is an empty folder; {MAKE}"),
    (
        other_folder,
        "LMDB",
        f"'DB' is not a database: neither data.mdb (LMDB) nor CURRENT (LevelDB) exists; check the path, or {MAKE}",
    ),
    (
        lmdb_one,
        "LEVELDB",
        "database 'DB' is of kind LMDB, not LEVELDB (the default of 'backend'); write 'backend: LMDB' in data_param",
    ),
    (leveldb_one, "LMDB", "database 'DB' is of kind LEVELDB, not LMDB; write 'backend: LEVELDB' in data_param"),
    (lmdb_empty, "LMDB", "database 'DB' has no records; make it again"),
    (leveldb_empty, "LEVELDB", "database 'DB' has no records; make it again"),
    (
        lmdb_no_bytes,
        "LMDB",
        "LMDB database 'DB' is damaged or incomplete (data.mdb has no bytes); copy it or make it again",
    ),
    (
        lmdb_other_bytes,
        "LMDB",
        "LMDB database 'DB' is damaged or incomplete (MDB_INVALID: File is not an LMDB file); copy it or make it again",
    ),
    (
        lmdb_cut,
        "LMDB",
        "LMDB database 'DB' is damaged or incomplete (100000 bytes of at least 2641920); copy it or make it again",
    ),
    (
        leveldb_no_manifest,
        "LEVELDB",
        "LevelDB database 'DB' is damaged or incomplete (CURRENT names no existing manifest); copy it or make it again",
    ),
    (
        leveldb_no_table,
        "LEVELDB",
        "LevelDB database 'DB' is damaged or incomplete (Corruption: 1 missing files; e.g.: 000005.ldb); copy it or"
        " make it again",
    ),
    (
        leveldb_flipped,
        "LEVELDB",
        "LevelDB database 'DB' is damaged or incomplete (Corruption: block checksum mismatch); copy it or make it"
        " again",
    ),
]


@pytest.mark.parametrize(("spoil", "backend", "message"), DATABASES)
def test_a_database_that_cannot_be_used_is_told_in_one_line(spoil, backend, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spoil(tmp_path)
    layer = data_layer("DB", backend=backend)
    with pytest.raises(DataError) as caught:
        layer.open(RunState())
    assert (str(caught.value), caught.value.field) == (message, "data_param.source")
    # The net can be drawn and checked without its database only where there is none.
    with pytest.raises(SourceMissingError if spoil is missing else DataError) as caught_early:
        layer.top_shapes(())
    assert str(caught_early.value) == message


def test_a_damaged_byte_anywhere_in_a_leveldb_is_found(tmp_path):
    path = Path(copied("data/color_leveldb", tmp_path))
    table = path / "000005.ldb"
    whole = table.read_bytes()
    for position in range(0, 11700, 450):
        table.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        with pytest.raises(DataError, match="checksum mismatch"), open_database(str(path)) as database:
            list(database.records())


def mean_of_another_size(folder: Path) -> None:
    blob = schema.BlobProto(num=1, channels=2, height=5, width=3, data=[0.0] * 30)
    (folder / "mean").write_bytes(blob.SerializeToString())


def mean_of_other_bytes(folder: Path) -> None:
    (folder / "mean").write_bytes(b"\xff\xff\xff")


def mean_cut(folder: Path) -> None:
    blob = schema.BlobProto(num=1, channels=2, height=3, width=5, data=[0.0] * 29)
    (folder / "mean").write_bytes(blob.SerializeToString())


MEANS = [
    (
        mean_of_another_size,
        "mean_file 'mean' has size 2 x 5 x 3, but the records have 2 x 3 x 5 (channels x height x width); make it from"
        " this database",
    ),
    (mean_of_other_bytes, "mean_file 'mean' is not a BlobProto; make it with 'siamese-proto data mean'"),
    (mean_cut, "mean_file 'mean' has 29 values for size 2 x 3 x 5; make it again"),
    (missing, "mean_file 'mean' cannot be read: No such file or directory; check the path"),
]


@pytest.mark.parametrize(("make", "message"), MEANS)
def test_a_mean_that_does_not_suit_is_told_when_reading_begins(make, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path)
    layer = data_layer(make_raw_database(Path("DB"), [GOOD]), 'transform_param { mean_file: "mean" }')
    assert layer.top_shapes(())[0] == (3, 2, 3, 5)
    with pytest.raises(DataError) as caught:
        layer.open(RunState())
    assert str(caught.value) == message


SETTINGS = [
    (
        "crop_size: 4",
        "transform_param.crop_size",
        "crop_size 4 is larger than the images of the source, which are 3 x 5 (height x width); write at most the"
        " smaller of the two",
    ),
    (
        "mean_value: 1 mean_value: 2 mean_value: 3",
        "transform_param.mean_value",
        "3 mean values for 2 channels; write one, or one a channel",
    ),
    (
        'mean_file: "x" mean_value: 1',
        "transform_param.mean_value",
        "mean_file and mean_value exclude each other; keep one",
    ),
    (
        "force_color: true force_gray: true",
        "transform_param.force_gray",
        "force_color and force_gray exclude each other; keep one",
    ),
]


@pytest.mark.parametrize(("text", "field", "message"), SETTINGS)
def test_settings_that_do_not_suit_name_their_field(text, field, message, tmp_path):
    path = make_raw_database(tmp_path / "DB", [GOOD])
    with pytest.raises(GraphError) as caught:
        data_layer(path, f"transform_param {{ {text} }}").top_shapes(())
    assert (str(caught.value), caught.value.field) == (message, field)


LAYERS = [
    ('type: "Data" data_param { batch_size: 2 }', "no source is given; write the database's path"),
    ('type: "Data" data_param { source: "DB" }', "no batch_size is given; write one above 0"),
    ('type: "HDF5Data" hdf5_data_param { batch_size: 2 }', "no source is given; write the list's path"),
    (
        'type: "HDF5Data" hdf5_data_param { source: "list" batch_size: 2 }',
        "list 'list' is not there in the working directory; write a file with the path of an HDF5 file a line",
    ),
    (
        'type: "HDF5Data" hdf5_data_param { source: "data/h5_list.txt" batch_size: 2 }',
        "HDF5 file 'a.h5' has no dataset 't'",
    ),
    (
        'type: "HDF5Data" hdf5_data_param { source: "x" } transform_param { scale: 2 }',
        "HDF5Data does not transform its data; remove transform_param",
    ),
    (
        'type: "ImageData" image_data_param { source: "data/list.txt" root_folder: "elsewhere/" }',
        "image 'elsewhere/img0.png', the first of list 'data/list.txt', is not there; check root_folder",
    ),
    (
        'type: "ImageData" image_data_param { source: "data/h5_list.txt" }',
        "data/h5_list.txt:1: 'a.h5' is not 'path label' with a whole number as label",
    ),
    (
        'type: "DummyData" dummy_data_param { num: 2 channels: 3 height: 4 }',
        "no shape is given; write shape { dim: ... } once, or once a top",
    ),
    (
        'type: "DummyData" dummy_data_param { shape { dim: 2 } shape { dim: 3 } shape { dim: 4 } }',
        "3 times shape for 2 tops; write one, or one a top",
    ),
    (
        'type: "MemoryData" memory_data_param { batch_size: 2 }',
        "batch_size, channels, height and width must all be given and above 0",
    ),
]


@pytest.mark.parametrize(("text", "message"), LAYERS)
def test_other_data_layers_say_what_they_lack(text, message, monkeypatch):
    monkeypatch.chdir(GOLDEN)

    def open_layer() -> None:
        layer = make_layer(f'name: "d" top: "t" top: "u" {text}')
        layer.top_shapes(())

    with pytest.raises(NetError) as caught:
        open_layer()
    assert str(caught.value).replace("data/a.h5", "a.h5") == message


def idx_images(count=3, written=3 * 4 * 5):
    return struct.pack(">4I", 2051, count, 4, 5) + bytes(written)


def idx_labels(count=3, written=3):
    return struct.pack(">2I", 2049, count) + bytes(written)


IDX = [
    (b"", idx_labels(), "'images' is not an IDX file of images: it begins with the number 0, not 2051"),
    (
        idx_labels(),
        idx_images(),
        "'images' is not an IDX file of images: it begins with the number 2049, not 2051; it holds labels",
    ),
    (
        idx_images(),
        idx_images(),
        "'labels' is not an IDX file of labels: it begins with the number 2051, not 2049; it holds images",
    ),
    (
        idx_images(written=59),
        idx_labels(),
        "'images' holds 59 bytes after its header, but says 3 x 4 x 5 (images); it is cut short or damaged: fetch it"
        " again",
    ),
    (
        idx_images(count=2**31, written=60),
        idx_labels(),
        "'images' holds 60 bytes after its header, but says 2147483648 x 4 x 5 (images); it is cut short or damaged:"
        " fetch it again",
    ),
    (
        idx_images(),
        idx_labels(4, 4),
        "'images' has 3 images, but 'labels' has 4 labels; give the two files of one set",
    ),
    (
        gzip.compress(idx_images(), mtime=0)[:-9],
        idx_labels(),
        "'images' is not a whole gzip file (Compressed file ended before the end-of-stream marker was reached); fetch"
        " it again",
    ),
    (None, idx_labels(), "'images' does not exist; check the path"),
]


@pytest.mark.parametrize(("images", "labels", "message"), IDX)
def test_idx_files_are_checked(images, labels, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if images is not None:
        Path("images").write_bytes(images)
    Path("labels").write_bytes(labels)
    with pytest.raises(DataError) as caught:
        read_labeled("images", "labels")
    assert str(caught.value) == message


def test_a_database_with_a_bad_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(DataError, match="cannot be made"),
        create_database(str(tmp_path / "file/made"), "LMDB"),
    ):
        pytest.fail("the block must not begin")
    with pytest.raises(DataError, match="does not exist; check the path"):
        open_database(str(tmp_path / "none"))
