"""`siamese-proto data pairs` and `triplets` from every kind of source."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy
import pytest
from click.testing import CliRunner
from PIL import Image

from siamese_proto.cli.data import data
from siamese_proto.data.databases.database import create_database, open_database
from siamese_proto.data.databases.datum import make_datum
from siamese_proto.errors import DataError
from siamese_proto.net.net import Net
from siamese_proto.proto import schema

LABELS = [1, 0, 0, 1, 2, 2]
IMAGES = numpy.random.default_rng(2).integers(0, 256, (6, 3, 4)).astype(numpy.uint8)


def run(*arguments: object) -> list[str]:
    result = CliRunner().invoke(data, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def make_source(kind: str, root: Path) -> str:
    for number, label in enumerate(LABELS):
        (root / f"faces/{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(IMAGES[number]).save(root / f"faces/{label}/{number}.png")
    if kind == "list":
        (root / "list.txt").write_text("".join(f"faces/{label}/{n}.png {label}\n" for n, label in enumerate(LABELS)))
        return str(root / "list.txt")
    if kind == "idx":
        (root / "t-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, 6, 3, 4) + IMAGES.tobytes())
        (root / "t-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, 6) + bytes(LABELS))
        return str(root / "t-images-idx3-ubyte")
    if kind in ("LMDB", "LEVELDB"):
        with create_database(str(root / "db"), "LMDB" if kind == "LMDB" else "LEVELDB") as writer:
            values = [make_datum(image[None], label) for image, label in zip(IMAGES, LABELS, strict=True)]
            writer.put([(b"%d" % number, value.SerializeToString()) for number, value in enumerate(values)])
        return str(root / "db")
    return str(root / "faces")


def records_of(path: Path) -> list[schema.Datum]:
    with open_database(str(path)) as database:
        records = list(database.records())
    assert [key for key, _ in records] == [b"%08d" % number for number in range(len(records))]
    return [schema.Datum.FromString(value) for _, value in records]


def classes_of(datum: schema.Datum) -> list[int]:
    """The class of each image that is stacked on the channels of a record."""
    assert (datum.height, datum.width, datum.encoded) == (3, 4, False)
    labels = {image.tobytes(): label for image, label in zip(IMAGES, LABELS, strict=True)}
    return [labels[datum.data[begin : begin + 12]] for begin in range(0, 12 * datum.channels, 12)]


@pytest.mark.parametrize("kind", ["idx", "folder", "list", "LMDB", "LEVELDB"])
@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_pairs_are_made_from_every_source(kind, backend, tmp_path):
    out = tmp_path / "made"
    lines = run("pairs", make_source(kind, tmp_path), out, "--count", 20, "--same-fraction", 0.3, "--backend", backend)
    assert lines == [f"{out}: 20 pairs, 6 same and 14 different"]
    for datum in records_of(out):
        first, second = classes_of(datum)
        assert datum.label == (first == second)


@pytest.mark.parametrize("kind", ["idx", "folder", "LMDB"])
def test_triplets_are_made_from_every_source(kind, tmp_path):
    out = tmp_path / "made"
    assert run("triplets", make_source(kind, tmp_path), out, "--seed", 4) == [f"{out}: 6 triplets"]
    for datum in records_of(out):
        anchor, positive, negative = classes_of(datum)
        assert datum.label == anchor == positive != negative


def test_the_pairs_of_a_csv_are_used_unchanged(tmp_path):
    make_source("folder", tmp_path)
    lines = ["image1,image2,label", "1/0.png,0/2.png,0", "2/4.png,2/5.png,1", "0/1.png,1/3.png,0"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    out, root = tmp_path / "made", f"{tmp_path}/faces/"
    lines = run("pairs", tmp_path / "pairs.csv", out, "--root-folder", root)
    assert lines == [f"{out}: 3 pairs, 1 same and 2 different"]
    assert [(classes_of(datum), datum.label) for datum in records_of(out)] == [([1, 0], 0), ([2, 2], 1), ([0, 1], 0)]
    run("pairs", tmp_path / "pairs.csv", tmp_path / "few", "--root-folder", root, "--count", 2, "--shuffle")
    assert len(records_of(tmp_path / "few")) == 2


def test_images_are_resized_and_converted_to_gray_or_color(tmp_path):
    source = make_source("folder", tmp_path)
    for color, channels in (("--gray", 2), ("--color", 6)):
        run("pairs", source, tmp_path / color, color, "--resize-height", 5, "--resize-width", 7)
        sizes = {(datum.channels, datum.height, datum.width) for datum in records_of(tmp_path / color)}
        assert sizes == {(channels, 5, 7)}


def test_classes_and_images_per_class_can_be_selected(tmp_path):
    source = make_source("list", tmp_path)
    run("triplets", source, tmp_path / "made", "--classes", "0:2", "--count", 30)
    assert {label for datum in records_of(tmp_path / "made") for label in classes_of(datum)} == {0, 1}
    run("pairs", source, tmp_path / "first", "--images-per-class", 1, "--same-fraction", 0, "--count", 30)
    assert len({datum.data[:12] for datum in records_of(tmp_path / "first")}) == 3


def test_the_same_seed_makes_the_same_database(tmp_path):
    source = make_source("folder", tmp_path)
    databases = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        run("pairs", source, tmp_path / name, "--seed", seed, "--count", 40)
        databases.append([datum.SerializeToString() for datum in records_of(tmp_path / name)])
    assert databases[0] == databases[1] != databases[2]


def test_a_database_contains_the_pairs_drawn_by_a_layer_with_its_seed(tmp_path):
    source = make_source("folder", tmp_path)
    run("pairs", source, tmp_path / "made", "--seed", 7, "--count", 33, "--backend", "lmdb")
    settings = {
        "PairData": f'pair_data_param {{ source: "{source}" seed: 7 tuples: 33 batch_size: 11 }}',
        "Data": f'data_param {{ source: "{tmp_path / "made"}" backend: LMDB batch_size: 11 }}',
    }
    nets = [Net(f'layer {{ name: "d" type: "{kind}" top: "x" top: "y" {text} }}') for kind, text in settings.items()]
    for _ in range(4):
        drawn, read = (net() for net in nets)
        assert drawn["x"].equal(read["x"])
        assert drawn["y"].equal(read["y"])
    for net in nets:
        net.close()


def test_unusable_images_are_reported_and_nothing_is_written(tmp_path):
    source = make_source("folder", tmp_path)
    Image.fromarray(IMAGES[0, :2]).save(tmp_path / "faces/2/small.png")
    with pytest.raises(
        DataError, match=r"image '.*/faces/2/small.png' has size 1 x 2 x 4, but the first one has 1 x 3 x"
    ):
        run("pairs", source, tmp_path / "made", "--count", 200)
    (tmp_path / "faces/2/small.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"image '.*/faces/2/small.png' cannot be read: "):
        run("triplets", source, tmp_path / "made")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces"]


@pytest.mark.parametrize("command", ["pairs", "triplets"])
def test_unreadable_images_are_skipped_on_request(command, tmp_path, caplog):
    source = make_source("folder", tmp_path)
    Path(source, "1/bad.png").write_text("no image")
    out = tmp_path / "made"
    run(command, source, out, "--count", 30, "--skip-bad-records")
    assert len(records_of(out)) == 30
    assert len({label for datum in records_of(out) for label in classes_of(datum)}) == 3
    assert "left out 1 images" in caplog.text
    assert "1/bad.png': its 8 bytes are not an image file" in caplog.text


def test_pairs_of_a_csv_with_an_unreadable_image_are_skipped_on_request(tmp_path):
    make_source("folder", tmp_path)
    (tmp_path / "faces/bad.png").write_text("no image")
    rows = "faces/bad.png,faces/1/0.png,1\nfaces/1/0.png,faces/1/3.png,1\nfaces/0/1.png,faces/bad.png,0\n"
    (tmp_path / "pairs.csv").write_text(rows)
    out = tmp_path / "made"
    lines = run("pairs", tmp_path / "pairs.csv", out, "--skip-bad-records")
    assert lines == [f"{out}: 1 pairs, 1 same and 0 different"]
    assert [classes_of(datum) for datum in records_of(out)] == [[1, 1]]
    (tmp_path / "none.csv").write_text(rows.splitlines()[0])
    with pytest.raises(DataError, match="no tuple is left"):
        run("pairs", tmp_path / "none.csv", tmp_path / "none", "--skip-bad-records")


@pytest.mark.parametrize("label", ["0.5", "3e9"])
def test_labels_of_a_csv_that_do_not_fit_a_record_are_refused(label, tmp_path):
    make_source("folder", tmp_path)
    (tmp_path / "pairs.csv").write_text(f"faces/1/0.png,faces/1/3.png,{label}\n")
    message = r"has labels .* \(once\), expected those of 'same=1,different=0'; specify their meaning"
    with pytest.raises(DataError, match=message):
        run("pairs", tmp_path / "pairs.csv", tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_wrong_usage_is_reported(tmp_path):
    source = make_source("folder", tmp_path)
    for arguments, words in (
        (["pairs", "a", "b", "c", "d"], "give SOURCE and OUT, or IMAGES, LABELS and OUT"),
        (["pairs", source, "out", "--resize-width", "3"], "--resize-height and --resize-width must be given together"),
        (["triplets", "out"], "Missing argument"),
    ):
        result = CliRunner().invoke(data, arguments)
        assert result.exit_code == 2
        assert words in result.output
