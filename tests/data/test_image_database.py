"""Databases of images, their means and merged databases, compared with Caffe's tools and with plain loops."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import paths
import pytest
from click.testing import CliRunner
from feeding import BACKENDS, GOLDEN, batches, copied, data_layer, make_database, noise, tool
from PIL import Image

from siamese_proto.cli.data import data
from siamese_proto.data.databases.database import open_database
from siamese_proto.data.databases.datum import Decoding, parse_datum, pixels_of
from siamese_proto.errors import DataError
from siamese_proto.proto import schema

TOOLS = paths.TOOLS
IMAGES = GOLDEN / "data/images"
LIST = GOLDEN / "data/list.txt"
BY_CAFFE = [  # flags, output of Caffe's tool, whether equal byte for byte
    ("", "color_lmdb", True),
    ("--gray", "gray_lmdb", True),
    ("--resize_height=16 -resize_width=18", "resized_lmdb", False),
    ("-encoded=true -encode_type jpg --nogray", "encoded_jpg_leveldb", True),
]


def run_tool(name: str, *arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(TOOLS / name), *map(str, arguments)]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


def run(*arguments: object) -> list[str]:
    result = CliRunner().invoke(data, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def records(path: object) -> list[tuple[bytes, bytes]]:
    with open_database(str(path)) as database:
        return list(database.records())


def images_of(path: object) -> list[numpy.ndarray]:
    return [pixels_of(key, parse_datum(key, value), Decoding()) for key, value in records(path)]


def labels_of(path: object) -> list[int]:
    return [parse_datum(*record).label for record in records(path)]


@pytest.mark.slow
@pytest.mark.parametrize(("flags", "name", "exact"), BY_CAFFE)
def test_convert_imageset_writes_the_records_of_caffes_tool(flags, name, exact, tmp_path):
    backend = name.rpartition("_")[2]
    done = run_tool("convert_imageset.py", *flags.split(), f"-backend={backend}", f"{IMAGES}/", LIST, tmp_path / "db")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/db: 8 images\n"), done.stderr
    assert "A total of 8 images." in done.stderr
    if exact:
        assert records(tmp_path / "db") == records(GOLDEN / "data" / name)
    for one, other in zip(images_of(tmp_path / "db"), images_of(GOLDEN / "data" / name), strict=True):
        assert abs(one.astype(int) - other).max() <= 1  # resizing differs by a gray level between libraries
    assert labels_of(tmp_path / "db") == labels_of(GOLDEN / "data" / name)


def test_encoded_records_hold_the_original_files(tmp_path):
    run("images", LIST, tmp_path / "db", "--root", f"{IMAGES}/", "--encoded")
    entries = records(tmp_path / "db")
    for line, (key, value) in zip(LIST.read_text().splitlines(), entries, strict=True):
        name, label = line.split()
        assert key.decode().endswith(f"_{name}")
        datum = schema.Datum.FromString(value)
        assert (datum.data, datum.label, datum.encoded) == ((IMAGES / name).read_bytes(), int(label), True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_folder_of_classes_becomes_a_database_that_others_read(backend, tmp_path):
    pictures = {"b/two.png": 1, "a/one.png": 0, "b/three.bmp": 1, "c d/four.png": 2}
    for name in pictures:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(3, 5, 3, seed=len(name))).save(tmp_path / "in" / name)
    (tmp_path / "in/notes.txt").write_text("no picture")
    path = tmp_path / "out" / "db"
    assert run("images", tmp_path / "in", path, "--backend", backend.lower()) == [f"{path}: 4 images"]
    keys = ["00000000_a/one.png", "00000001_b/three.bmp", "00000002_b/two.png", "00000003_c d/four.png"]
    assert [key.decode() for key, _ in records(path)] == keys
    assert labels_of(path) == [0, 1, 1, 2]
    values = by_others(path, backend)
    for name, value in values.items():
        datum = schema.Datum.FromString(value)
        expected = noise(3, 5, 3, seed=len(name.partition("_")[2]))[:, :, ::-1].transpose(2, 0, 1)
        assert (datum.channels, datum.height, datum.width) == (3, 3, 5)
        assert datum.data == expected.tobytes()
    assert list(values) == keys


def by_others(path: Path, backend: str) -> dict[str, bytes]:
    """Read the records with independent programs: mdb_dump and Debian's plyvel."""
    if backend == "LMDB":
        assert "Entries: 4" in subprocess.run([tool("mdb_stat"), path], capture_output=True, text=True).stdout
        dump = subprocess.run([tool("mdb_dump"), path], capture_output=True, text=True, check=True).stdout
        lines = [line.strip() for line in dump.partition("HEADER=END\n")[2].splitlines() if line.startswith(" ")]
    else:
        python = tool("/usr/bin/python3")
        if subprocess.run([python, "-c", "import plyvel"], capture_output=True).returncode:
            assert "CI" not in os.environ, "python3-plyvel is missing; see .ci/debian.txt"
            pytest.skip("python3-plyvel is not installed")
        code = "import plyvel, sys\nfor k, v in plyvel.DB(sys.argv[1]): print(k.hex()); print(v.hex())"
        done = subprocess.run([python, "-c", code, path], capture_output=True, text=True, check=True)
        lines = done.stdout.split()
    parts = [bytes.fromhex(line) for line in lines]
    return {key.decode(): value for key, value in zip(parts[::2], parts[1::2], strict=True)}


def test_shuffling_depends_on_the_seed_and_keeps_labels_with_their_images(tmp_path):
    for name, seed in (("one", 4), ("again", 4), ("other", 5)):
        run("images", LIST, tmp_path / name, "--root", f"{IMAGES}/", "--shuffle", "--seed", seed)
    one, again, other = (records(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again != other
    labels = dict(line.split() for line in LIST.read_text().splitlines())
    names = [key.decode().partition("_")[2] for key, _ in one]
    assert sorted(names) == sorted(labels) != names
    assert labels_of(tmp_path / "one") == [int(labels[name]) for name in names]


def test_files_are_encoded_again_for_gray(tmp_path):
    run("images", LIST, tmp_path / "db", "--root", f"{IMAGES}/", "--gray", "--encoded")
    pictures = zip(
        records(tmp_path / "db"), images_of(tmp_path / "db"), images_of(GOLDEN / "data/gray_lmdb"), strict=True
    )
    for (key, _), actual, expected in pictures:
        assert actual.shape == expected.shape == (1, 20, 24)
        # Encoding as JPEG again loses a little.
        assert abs(actual.astype(int) - expected).max() <= (8 if key.endswith(b".jpg") else 0)


@pytest.fixture
def odd_images(tmp_path: Path) -> Path:
    for number, size in enumerate([(3, 5), (3, 5), (4, 5)]):
        Image.fromarray(noise(*size, 3)).save(tmp_path / f"{number}.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "list").write_text("0.png 1\nbad.png 2\nmissing.png 3\n1.png 4\n2.png 5\n")
    return tmp_path


@pytest.mark.slow
def test_an_image_that_cannot_be_used_is_named_or_left_out(odd_images):
    with pytest.raises(DataError) as caught:
        run("images", odd_images / "list", odd_images / "db")
    assert str(caught.value) == (
        f"image '{odd_images}/bad.png' cannot be used: its 10 bytes are not an image file that Pillow can read"
    )
    assert not (odd_images / "db").exists()
    lines = run("images", odd_images / "list", odd_images / "db", "--skip-bad-images")
    assert f"{odd_images}/db: 3 images, 2 left out" in lines
    assert [line.partition(":")[0] for line in lines].count("left out") == 2
    assert "note: the images have 2 sizes; Data layers read them only with a crop_size" in lines
    assert [key for key, _ in records(odd_images / "db")] == [b"00000000_0.png", b"00000003_1.png", b"00000004_2.png"]
    done = run_tool("convert_imageset.py", f"{odd_images}/", "list", "caffes", folder=odd_images)
    assert (done.returncode, done.stdout) == (0, "caffes: 3 images\n")
    assert records(odd_images / "caffes") == records(odd_images / "db")


def test_check_size_refuses_images_of_several_sizes(odd_images):
    (odd_images / "list").write_text("0.png 1\n1.png 4\n2.png 5\n")
    with pytest.raises(DataError, match=r"2\.png' has size 3 x 4 x 5, but those before 3 x 3 x 5"):
        run("images", odd_images / "list", odd_images / "db", "--check-size")
    assert not (odd_images / "db").exists()
    sized = ["--check-size", "--resize-height", 6, "--resize-width", 7]
    run("images", odd_images / "list", odd_images / "db", *sized)
    assert {image.shape for image in images_of(odd_images / "db")} == {(3, 6, 7)}


FAULTS = [
    (["images", "nowhere", "db"], "'nowhere' does not exist; give a list of lines 'path label', or a folder"),
    (["images", "empty", "db"], "folder 'empty' has no sub-folders with images; make one a class, with its images"),
    (["images", "bad_list", "db"], "bad_list:1: 'one.png' is not 'path label' with a whole number as label"),
    (["images", "all_bad", "db", "--skip-bad-images"], "none of the 1 images can be used, so no database is made"),
    (["mean", "nowhere"], "database 'nowhere' does not exist; check the path, or make it with 'siamese-proto data'"),
    (
        ["merge", "nowhere", "db"],
        "database 'nowhere' does not exist; check the path, or make it with 'siamese-proto data'",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), FAULTS)
def test_an_error_is_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad_list").write_text("one.png\n")
    (tmp_path / "all_bad").write_text("none.png 1\n")
    with pytest.raises(DataError) as caught:
        run(*arguments)
    assert str(caught.value) == message
    assert not (tmp_path / "db").exists()


@pytest.mark.slow
def test_the_mean_is_caffes_bit_for_bit(tmp_path):
    done = run_tool("compute_image_mean.py", GOLDEN / "data/color_lmdb", tmp_path / "mean.binaryproto")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mean.binaryproto").read_bytes() == (GOLDEN / "data/mean.binaryproto").read_bytes()
    lines = run("mean", GOLDEN / "data/color_leveldb", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (GOLDEN / "data/mean.binaryproto").read_bytes()
    means = numpy.mean([image.mean((1, 2)) for image in images_of(GOLDEN / "data/color_lmdb")], 0)
    assert lines == [
        f"{tmp_path}/again: the mean of 8 records, 3 x 20 x 24",
        *(f"mean_value channel [{channel}]: {value:g}" for channel, value in enumerate(means)),
    ]


def test_the_mean_of_many_records_equals_that_of_loops_and_is_subtracted(tmp_path):
    images = [noise(2, 3, 5, seed=seed) for seed in range(600)]  # more than one batch of the sum
    path = make_database(tmp_path / "db", images)
    run("mean", path, tmp_path / "mean")
    blob = schema.BlobProto.FromString((tmp_path / "mean").read_bytes())
    assert (blob.num, blob.channels, blob.height, blob.width) == (1, 2, 3, 5)
    place = iter(blob.data)
    for c in range(2):
        for row in range(3):
            for column in range(5):
                expected = sum(int(image[c, row, column]) for image in images) / 600
                assert next(place) == numpy.float32(expected)
    layer = data_layer(path, f'transform_param {{ mean_file: "{tmp_path}/mean" }}', batch_size=600)
    ((pixels, _),) = batches(layer, 1)
    assert abs(pixels.mean(0)).max() < 1e-3


def test_the_mean_of_records_of_two_sizes_is_refused(tmp_path):
    path = make_database(tmp_path / "db", [noise(2, 3, 5), noise(2, 4, 5)])
    with pytest.raises(DataError) as caught:
        run("mean", path, tmp_path / "mean")
    assert str(caught.value) == (
        f"record '00000001' of database '{path}' has size 2 x 4 x 5, but the first one has 2 x 3 x 5 (channels x height"
        " x width); a mean needs one size"
    )
    assert not (tmp_path / "mean").exists()


def test_merging_joins_databases_of_both_kinds_in_order(tmp_path):
    sources = [copied("data/color_lmdb", tmp_path), copied("data/color_leveldb", tmp_path)]
    assert run("merge", *sources, tmp_path / "both") == [f"{tmp_path}/both: 16 records of 2 databases"]
    one = records(sources[0])
    merged = records(tmp_path / "both")
    assert [value for _, value in merged] == [value for _, value in one] * 2
    assert [key for key, _ in merged] == [b"%08d%s" % (n, key[8:]) for n, (key, _) in enumerate(one * 2)]


def test_merging_can_shuffle_by_a_seed(tmp_path):
    sources = [
        make_database(tmp_path / "a", [noise(1, 2, 3, seed=seed) for seed in range(20)], "LMDB"),
        make_database(tmp_path / "b", [noise(1, 2, 3, seed=seed) for seed in range(20, 50)]),
    ]
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        run("merge", *sources, tmp_path / name, "--shuffle", "--seed", seed, "--backend", "lmdb")
    in_order = [value for source in sources for _, value in records(source)]
    one, again, other = ([value for _, value in records(tmp_path / name)] for name in ("one", "again", "other"))
    assert one == again != other
    assert sorted(one) == sorted(other) == sorted(in_order) != in_order
    assert [key for key, _ in records(tmp_path / "one")] == [b"%08d" % number for number in range(50)]


def test_merging_records_of_two_sizes_names_both(tmp_path):
    sources = [make_database(tmp_path / name, [noise(1, *size)]) for name, size in (("a", (2, 3)), ("b", (3, 2)))]
    with pytest.raises(DataError) as caught:
        run("merge", *sources, tmp_path / "both")
    assert str(caught.value) == (
        f"record '00000000' of database '{tmp_path}/b' has size 1 x 3 x 2, but record '00000000' of database"
        f" '{tmp_path}/a' has 1 x 2 x 3 (channels x height x width); to merge different sizes, add --any-size"
    )
    assert not (tmp_path / "both").exists()
    run("merge", *sources, tmp_path / "both", "--any-size")
    assert len(records(tmp_path / "both")) == 2


def test_a_database_can_be_merged_into_itself_with_overwrite(tmp_path):
    source = copied("data/color_leveldb", tmp_path)
    before = records(source)
    run("merge", source, source, source, "--overwrite")
    assert [value for _, value in records(source)] == [value for _, value in before] * 2


def many_images(folder: Path) -> Path:
    """Return a list that takes a while: one image, many times."""
    Image.fromarray(noise(700, 900, 3)).save(folder / "one.png")
    (folder / "list").write_text("one.png 1\n" * 4000)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_stopped_at_any_moment_nothing_has_the_final_name(number, tmp_path):
    many_images(tmp_path)
    command = [sys.executable, "-m", "siamese_proto", "data", "images", "list", "out/db"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("out/.db.*/database/*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(number)
        _, complaint = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert b"Traceback" not in complaint
    assert not (tmp_path / "out/db").exists()
    if number == signal.SIGINT:
        assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(tmp_path):
    (tmp_path / "list").write_text("".join(f"{name} 1\n" for name in ["one.png"] * 60))
    Image.fromarray(noise(70, 90, 3)).save(tmp_path / "one.png")
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        "from siamese_proto.cli import main; main()"
    )
    words = [sys.executable, "-c", code, "data", "images", "list", "db"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "check whether the disk is full" in done.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["list", "one.png"]


@pytest.mark.slow
def test_on_a_terminal_a_bar_shows_the_progress(tmp_path):
    Image.fromarray(noise(30, 40, 3)).save(tmp_path / "one.png")
    (tmp_path / "list").write_text("one.png 1\n" * 2500)
    outside, inside = pty.openpty()
    command = [sys.executable, "-m", "siamese_proto", "data", "images", "list", "some_db"]
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(command, cwd=tmp_path, stdout=inside, stderr=inside, env=environment):
        os.close(inside)
        shown = b""
        while chunk := read_terminal(outside):
            shown += chunk
    os.close(outside)
    text = shown.decode()
    assert "some_db" in text.partition("some_db: 2500 images")[0]
    assert "%" in text
    assert "\x1b[" in text


def read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the other end is closed
        return b""


@pytest.mark.slow
def test_create_mnist_siamese_takes_the_arguments_of_caffes_tool(tmp_path):
    flagship = GOLDEN / "flagship"
    files = [flagship / "images-idx3-ubyte", flagship / "labels-idx1-ubyte"]
    done = run_tool("create_mnist_siamese.py", *files, tmp_path / "db")
    assert done.returncode == 0, done.stderr
    entries = records(tmp_path / "db")
    assert [key for key, _ in entries] == [b"%08d" % number for number in range(640)]
    datum = schema.Datum.FromString(entries[0][1])
    assert (datum.channels, datum.height, datum.width, len(datum.data)) == (2, 28, 28, 1568)
    assert (tmp_path / "db/CURRENT").is_file()
