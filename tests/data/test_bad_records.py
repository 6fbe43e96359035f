"""Records from anywhere: a bad one is named, or left out and counted; none does harm."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy
import pytest
from feeding import BACKENDS, data_layer, drain, make_layer, make_raw_database, noise
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from problem_lines import problem_lines

import siamese_proto as sp
from siamese_proto.data.bad_records import BadRecordError, count_of
from siamese_proto.data.databases.datum import Decoding, parse_datum, pixels_of, size_of
from siamese_proto.errors import DataError
from siamese_proto.layers.base import RunState
from siamese_proto.proto import schema


def plain(value: int, label: int) -> bytes:
    """A record of 2 x 3 x 5 equal bytes."""
    return schema.Datum(channels=2, height=3, width=5, data=bytes([value] * 30), label=label).SerializeToString()


def encoded(kind: str = "PNG", size: tuple[int, int] = (5, 3)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(size[1], size[0], 3)).save(file, kind)
    return schema.Datum(data=file.getvalue(), encoded=True, label=9).SerializeToString()


BAD = [b"\xff\xff", b"", plain(1, 1)[:-9], schema.Datum(channels=9, height=9, width=9, data=b"1").SerializeToString()]


def delivered(layer, run: RunState, count: int, skip: int = 0) -> list[list[numpy.ndarray]]:
    feeder = layer.open(run)
    try:
        if skip:
            feeder.skip(skip)
        return drain(feeder, count)
    finally:
        feeder.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_next_good_record_of_the_batch_takes_the_place_of_a_bad_one(backend, tmp_path, caplog):
    values = [plain(number, number) for number in range(11)]
    for number, bad in zip((0, 2, 5, 6), BAD, strict=True):  # the first of all too, and two at a batch's end
        values[number] = bad
    run = RunState(skip_bad_records=True)
    layer = data_layer(make_raw_database(tmp_path / "db", values, backend), backend=backend, batch_size=4)
    assert list(layer.top_shapes(())) == [(4, 2, 3, 5), (4,)]
    with caplog.at_level(logging.WARNING):
        found = delivered(layer, run, 4)
    labels = [labels.tolist() for _, labels in found]
    assert labels[:3] == [[1, 1, 3, 3], [4, 7, 7, 7], [8, 9, 10, 8]]  # the twelfth is the first again, which is bad
    for pixels, numbers in found:
        numpy.testing.assert_array_equal(pixels[:, 1, 2, 4], numbers)
    assert run.bad_records == {"d": {f"'{number:08d}'" for number in (0, 2, 5, 6)}}
    assert count_of([run]) == "bad records left out: 4 (layer 'd' 4)"
    assert sum("layer 'd': left out: record" in line for line in caplog.messages) == 4


def test_a_run_resumed_at_any_batch_meets_the_same_records(tmp_path):
    values = [plain(number, number) for number in range(13)]
    for number in (1, 4, 5, 12):
        values[number] = b"\xff"
    layer = data_layer(make_raw_database(tmp_path / "db", values), "transform_param { mirror: true }", batch_size=3)
    whole = delivered(layer, RunState(4, skip_bad_records=True), 10)
    for skip in (1, 4, 9):
        rest = delivered(layer, RunState(4, skip_bad_records=True), 10 - skip, skip)
        for one, other in zip(whole[skip:], rest, strict=True):
            numpy.testing.assert_array_equal(one[0], other[0])
            numpy.testing.assert_array_equal(one[1], other[1])


def test_a_batch_without_any_good_record_is_of_the_first_good_one(tmp_path):
    values = [b"\xff", b"\xff", plain(7, 3), b"\xff"]
    layer = data_layer(make_raw_database(tmp_path / "db", values), batch_size=1)
    found = delivered(layer, RunState(skip_bad_records=True), 5)
    assert [labels.tolist() for _, labels in found] == [[3]] * 5


def test_a_database_without_any_good_record_ends_the_run_all_the_same(tmp_path):
    layer = data_layer(make_raw_database(tmp_path / "db", [b"\xff", b""]))
    with pytest.raises(DataError, match="record '00000000' cannot be used: its 1 bytes are not a Datum message"):
        delivered(layer, RunState(skip_bad_records=True), 1)


def test_images_that_cannot_be_read_are_left_out_too(tmp_path):
    for number in range(4):
        Image.fromarray(numpy.full((3, 5), number * 10, numpy.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "3.png").unlink()
    (tmp_path / "list").write_text("".join(f"{number}.png {number}\n" for number in range(4)))
    layer = make_layer(
        'name: "i" type: "ImageData" top: "x" top: "y"'
        ' image_data_param { source: "list" batch_size: 4 is_color: false }',
        folder=str(tmp_path),
    )
    with pytest.raises(BadRecordError, match=r"image '.*1\.png' cannot be used"):
        delivered(layer, RunState(), 1)
    run = RunState(skip_bad_records=True)
    ((pixels, labels),) = delivered(layer, run, 1)
    assert labels.tolist() == [0, 2, 2, 0]
    numpy.testing.assert_array_equal(pixels[:, 0, 1, 1], labels * 10)
    assert len(run.bad_records["i"]) == 2


def test_a_list_that_names_a_device_does_not_hang(tmp_path):
    (tmp_path / "list").write_text("/dev/zero 1\n")
    layer = make_layer(
        'name: "i" type: "ImageData" top: "x" top: "y" image_data_param { source: "list" }', folder=str(tmp_path)
    )
    with pytest.raises(DataError, match="image '/dev/zero' is no file"):
        layer.open(RunState())


NET = """layer { name: "pairs" type: "Data" top: "data" top: "label"
                 data_param { source: "db" batch_size: 4 backend: LMDB } }
         layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 1 } }
         layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "label" top: "loss" }"""


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    values = [plain(number, number % 2) for number in range(10)]
    values[3] = values[7] = b"\xff\xff"
    make_raw_database(tmp_path / "db", values, "LMDB")
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.00001 lr_policy: "fixed" max_iter: 5 snapshot: 2 snapshot_prefix: "run"'
        " random_seed: 3 display: 1"
    )
    return tmp_path


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "siamese_proto", *arguments]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_training_stops_at_a_bad_record_or_counts_it(spoilt):
    stopped = command(spoilt, "train", "--solver", "solver.prototxt")
    assert stopped.returncode == 1
    assert problem_lines(stopped.stderr)[-1] == (
        "net.prototxt:1: layer 'pairs': record '00000003' cannot be used: its 2 bytes are not a Datum message; make the"
        " database again"
    )
    trained = command(spoilt, "train", "--solver", "solver.prototxt", "--skip-bad-records")
    assert trained.returncode == 0
    assert "bad records left out: 2 (layer 'pairs' 2)" in trained.stderr
    weights = "run_iter_5.caffemodel"
    tested = command(
        spoilt, "test", "--model", "net.prototxt", "--weights", weights, "--iterations", "3", "--skip-bad-records"
    )
    assert tested.stdout.splitlines()[-1] == "bad records left out: 2 (layer 'pairs' 2)"


def test_a_resumed_training_that_leaves_out_records_goes_on_bit_for_bit(spoilt, monkeypatch):
    monkeypatch.chdir(spoilt)
    whole = sp.Solver("solver.prototxt", skip_bad_records=True)
    whole.solve()
    resumed = sp.Solver("solver.prototxt", snapshot="run_iter_2.solverstate", skip_bad_records=True)
    resumed.solve()
    assert resumed.losses == whole.losses[2:]
    whole.close()
    resumed.close()


RECORDS = [plain(5, 1), encoded(), encoded("JPEG", (40, 30)), schema.Datum(float_data=[0.5] * 6).SerializeToString()]


def spoil(record: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    data = bytearray(record)
    for place, value in changes:
        data[place % len(data)] = value
    return bytes(data[: cut % (len(data) + 1)]) if cut else bytes(data)


@pytest.mark.slow
@settings(max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            spoil,
            st.sampled_from(RECORDS),
            st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=6),
            st.integers(0, 3000),
        ),
        st.builds(
            lambda sizes, data, is_encoded: schema.Datum(
                channels=sizes[0], height=sizes[1], width=sizes[2], data=data, encoded=is_encoded
            ).SerializeToString(),
            st.tuples(*[st.sampled_from([-(2**31), -1, 0, 1, 3, 2**16, 2**31 - 1])] * 3),
            st.binary(max_size=60),
            st.booleans(),
        ),
    )
)
@pytest.mark.filterwarnings("ignore")  # of Pillow, about odd files: they are for who made the file
def test_whatever_bytes_a_record_has_it_is_read_or_named(value):
    tracemalloc.start()
    problem = None
    try:
        datum = parse_datum(b"key", value)
        size = size_of(b"key", datum, Decoding())
        pixels = pixels_of(b"key", datum, Decoding())
    except BadRecordError as error:
        problem = error
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 50_000_000  # whatever sizes the record claims
    if problem is not None:
        assert (problem.record, "\n" in str(problem)) == ("'key'", False)
    else:
        assert (pixels.shape, pixels.dtype in (numpy.uint8, numpy.float32)) == (size, True)


def test_a_tiff_whose_place_of_pixels_is_a_fraction_is_a_bad_record(tmp_path):
    tiff = encoded("TIFF")
    strip_offsets = b"\x11\x01"
    spoilt_tiff = tiff.replace(strip_offsets + b"\x04\x00", strip_offsets + b"\x0c\x00")  # a LONG becomes a DOUBLE
    assert spoilt_tiff != tiff
    path = make_raw_database(tmp_path / "db", [encoded(), spoilt_tiff])
    with pytest.raises(BadRecordError, match=r"^record '.*' cannot be used: its image file is damaged \("):
        delivered(data_layer(path, batch_size=2), RunState(), 1)
    run = RunState(skip_bad_records=True)
    delivered(data_layer(path, batch_size=2), run, 1)
    assert count_of([run]) == "bad records left out: 1 (layer 'd' 1)"


def test_an_image_of_another_size_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    large = encoded(size=(90, 70))
    path = make_raw_database(tmp_path / "db", [encoded(), large])
    decoded = []
    convert = Image.Image.convert
    monkeypatch.setattr(Image.Image, "convert", lambda image, mode: decoded.append(image.size) or convert(image, mode))
    with pytest.raises(BadRecordError, match="has size 3 x 70 x 90, but the first one has 3 x 3 x 5"):
        delivered(data_layer(path, batch_size=2), RunState(), 1)
    assert set(decoded) == {(5, 3)}


def test_the_examples_reach_the_decoder():
    for record in RECORDS[:3]:
        datum = parse_datum(b"key", record)
        assert pixels_of(b"key", datum, Decoding()).shape == size_of(b"key", datum, Decoding())
    with pytest.raises(DecodeError):
        schema.Datum.FromString(RECORDS[0][:-3])
