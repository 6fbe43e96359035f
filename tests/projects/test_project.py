"""Projects on a user's images: every network with every kind of source runs, or explains why it cannot."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from PIL import Image

from siamese_proto.compiler import build_graph
from siamese_proto.data.databases.database import Backend, create_database
from siamese_proto.data.databases.datum import make_datum
from siamese_proto.data.layers.data import Data
from siamese_proto.data.layers.pair_data import PairData
from siamese_proto.errors import NetError
from siamese_proto.layers.base import RunState
from siamese_proto.projects.project import start_project
from siamese_proto.proto import schema
from siamese_proto.proto.reader import parse_net
from siamese_proto.zoo import network_titles

CLASSES, EACH = 5, 3
GRAY = numpy.random.default_rng(1).integers(0, 256, (CLASSES * EACH, 9, 7), numpy.uint8)
LABELS = [number // EACH for number in range(len(GRAY))]


def folder(place: Path) -> Path:
    for number, label in enumerate(LABELS):
        (place / f"person {label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(GRAY[number]).save(place / f"person {label}" / f"{number}.png")
    return place


def image_list(place: Path) -> Path:
    folder(place / "images")
    lines = [f"images/person {label}/{number}.png {label}" for number, label in enumerate(LABELS)]
    (place / "list.txt").write_text("\n".join(lines))
    return place / "list.txt"


def csv(place: Path) -> Path:
    folder(place)
    names = [f"person {label}/{number}.png" for number, label in enumerate(LABELS)]
    rows = [f"{names[a]},{names[b]},{int(LABELS[a] == LABELS[b])}" for a in range(9) for b in range(a)]
    (place / "pairs.csv").write_text("\n".join(rows))
    return place / "pairs.csv"


def idx(place: Path) -> Path:
    place.mkdir()
    (place / "images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, *GRAY.shape) + GRAY.tobytes())
    (place / "labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, len(LABELS)) + bytes(LABELS))
    return place / "images-idx3-ubyte"


def database(images: numpy.ndarray, backend: Backend) -> Callable[[Path], Path]:
    def write(place: Path) -> Path:
        data = [make_datum(image, label).SerializeToString() for image, label in zip(images, LABELS, strict=True)]
        with create_database(str(place), backend) as writer:
            writer.put([(b"%03d" % number, value) for number, value in enumerate(data)])
        return place

    return write


PAIRS = numpy.random.default_rng(2).integers(0, 256, (len(GRAY), 2, 28, 28), numpy.uint8)
KINDS = {
    "folder": folder,
    "list": image_list,
    "csv": csv,
    "idx": idx,
    "lmdb": database(GRAY[:, None], "LMDB"),
    "leveldb": database(GRAY[:, None], "LEVELDB"),
    "pairs in lmdb": database(PAIRS, "LMDB"),
    "pairs in leveldb": database(PAIRS, "LEVELDB"),
}
# The reasons why a network does not accept a kind of source.
DRAWS = "this network draws {} tuples of labeled images"
NO_PAIRS = "is a database of pairs (15 records of 2 channels), but this network draws pairs of labeled images itself"


def refusal(network: str, kind: str) -> str | None:
    if kind.startswith("pairs"):
        return None if network == "mnist_siamese" else NO_PAIRS
    drawn = {"mnist_triplet": "triplet", "mnist_pair_classifier": "balanced"}.get(network)
    return DRAWS.format(drawn) if kind == "csv" and drawn else None


def opened(project: Path, phase: str) -> list[tuple[schema.LayerParameter, list[tuple[int, ...]]]]:
    """The data layers of a project's nets, and the shapes of the first batch of each."""
    layers = []
    for file in sorted(project.glob("train_test*.prototxt")):
        for node in build_graph(parse_net(file), "TRAIN" if phase == "TRAIN" else "TEST").nodes:
            if isinstance(node.layer, Data | PairData):
                with contextlib.closing(node.layer.open(RunState())) as feeder:
                    layers.append((node.message, [tuple(top.shape) for top in feeder.next_batch()]))
    return layers


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("network", network_titles())
def test_a_project_runs_on_the_users_images_or_explains_why_it_cannot(network: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    source = KINDS[kind](tmp_path / "data" / "own")
    why_not = refusal(network, kind)
    if why_not is not None:
        with pytest.raises(NetError) as caught:
            start_project(network, tmp_path / "project", str(source), str(source))
        assert why_not in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == ["data"]
        return
    project = start_project(network, tmp_path / "project", str(source), str(source))
    assert project.missing == ()
    for phase in ("TRAIN", "TEST"):
        for message, shapes in opened(tmp_path / "project", phase):
            settings = message.data_param if message.type == "Data" else message.pair_data_param
            assert settings.source.startswith("../data/own")
            assert not message.pair_data_param.classes
            assert all(shape[0] == shapes[0][0] for shape in shapes)


@pytest.mark.parametrize("network", ["face_siamese", "oneshot_siamese", "mnist_siamese", "cosine_siamese"])
def test_one_source_is_split_by_class_between_training_and_test(network: str, tmp_path: Path) -> None:
    folder(tmp_path / "own")
    project = start_project(network, tmp_path / "project", str(tmp_path / "own"))
    assert [project.sources[phase].classes for phase in ("TRAIN", "TEST")] == ["0:3", "3:"]
    assert project.sources["TEST"].text == "6 images of 2 classes (3:)"
    for phase, classes in (("TRAIN", "0:3"), ("TEST", "3:")):
        assert [message.pair_data_param.classes for message, _ in opened(tmp_path / "project", phase)] == [classes]


@pytest.mark.slow
def test_digits_for_training_select_the_test_digits(tmp_path: Path) -> None:
    start_project("face_siamese", tmp_path / "project", "digits:train")
    assert opened(tmp_path / "project", "TEST")[0][0].pair_data_param.source == "digits:test"


@pytest.mark.parametrize("network", network_titles())
def test_without_sources_the_net_keeps_its_own(network: str, tmp_path: Path) -> None:
    start_project(network, tmp_path / "project")
    from siamese_proto.zoo import network_files

    for name, text in network_files(network).items():
        assert (tmp_path / "project" / name).read_text() == text


@pytest.mark.parametrize(
    ("names", "root"),
    [("person 0/0.png", ""), ("signatures/person 0/0.png", "signatures/"), ("here/person 0/0.png", "../")],
)
def test_images_that_a_csv_names_are_found_from_the_project(
    names: str, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the folder of the CSV, in the root_folder of the network there, or in the working directory."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "data" if root != "../" else tmp_path
    folder(place / names.removesuffix("person 0/0.png"))
    (tmp_path / "data").mkdir(exist_ok=True)
    first = names.removeprefix("signatures/")
    rows = [f"{first},{first.replace('0/0', '0/1')},1", f"{first},{first.replace('0/0', '1/3')},0"]
    (tmp_path / "data" / "own.csv").write_text("\n".join(rows))
    start_project("signature_siamese", tmp_path / "project", "data/own.csv", "data/own.csv")
    monkeypatch.chdir(tmp_path / "project")
    message, shapes = opened(Path(), "TRAIN")[0]
    assert message.pair_data_param.root_folder == root
    assert shapes == [(32, 1, 105, 105), (32, 1, 105, 105), (32,)]


def one_class(place: Path) -> Path:
    (place / "a").mkdir(parents=True)
    for number in range(4):
        Image.fromarray(GRAY[number]).save(place / "a" / f"{number}.png")
    return place


def lone_images(place: Path) -> Path:
    for number in range(4):
        (place / str(number)).mkdir(parents=True)
        Image.fromarray(GRAY[number]).save(place / str(number) / "a.png")
    return place


def damaged(place: Path) -> Path:
    (folder(place) / "person 1" / "3.png").write_bytes(b"\x89PNG nothing")
    return place


def empty(place: Path) -> Path:
    place.mkdir()
    return place


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (one_class, "cosine_siamese cannot be used on '{}': all images are of one class, so no pair can differ"),
        (lone_images, "cosine_siamese cannot be used on '{}': no class has two images, so no pair can be alike"),
        (damaged, "cosine_siamese cannot be used on '{}': image '{}/person 1/3.png' cannot be read"),
        (empty, "folder '{}' has no sub-folders with images"),
    ],
)
def test_images_that_make_no_pairs_are_refused_before_anything_is_written(
    write: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    source = str(write(tmp_path / "own"))
    with pytest.raises(NetError) as caught:
        start_project("cosine_siamese", tmp_path / "project", source, "digits:test")
    assert str(caught.value).startswith(message.replace("{}", source))
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (one_class, "has 1 classes: expected at least 4, so that training and test have different classes"),
        (csv, "has pairs, which cannot be split by class; give --test too"),
    ],
)
def test_a_source_that_cannot_be_split_needs_another_for_the_test(
    write: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    with pytest.raises(NetError) as caught:
        start_project("cosine_siamese", tmp_path / "project", str(write(tmp_path / "own")))
    assert message in str(caught.value)


def test_a_project_below_a_link_finds_its_images(tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    folder(tmp_path / "own")
    start_project("cosine_siamese", tmp_path / "link" / "project", str(tmp_path / "own"), str(tmp_path / "own"))
    assert opened(tmp_path / "link" / "project", "TRAIN")[0][1][0] == (64, 1, 28, 28)
