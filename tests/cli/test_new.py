"""siamese-proto new: an included network becomes a project."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import run
from PIL import Image

from siamese_proto.data.images.digits import load_digits
from siamese_proto.proto.reader import parse_net
from siamese_proto.zoo import networks_folder

pytestmark = pytest.mark.slow

NETWORKS = sorted(path.parent.name for path in networks_folder().glob("*/train_test.prototxt"))


def test_without_a_name_all_networks_are_listed_with_their_titles() -> None:
    done = run("new")
    assert [line.split()[0] for line in done.stdout.splitlines()] == NETWORKS
    assert "mnist_siamese" in NETWORKS
    assert all(len(line.split()) > 4 for line in done.stdout.splitlines())


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_starts_a_project_that_prints_the_next_commands(network: str, tmp_path: Path) -> None:
    done = run("new", network, "my own", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (tmp_path / "my own").iterdir()}
    assert files == {path.name for path in (networks_folder() / network).glob("*.prototxt")}
    assert {"train_test.prototxt", "solver.prototxt", "deploy.prototxt"} <= files
    assert "cd 'my own'" in done.stdout
    assert "siamese-proto train --solver solver.prototxt" in done.stdout


def test_the_users_sources_are_written_into_the_net(tmp_path: Path) -> None:
    for number, (image, digit) in enumerate(zip(*load_digits()[0], strict=True)):
        place = tmp_path / 'my "pictures"' / str(digit)
        place.mkdir(parents=True, exist_ok=True)
        if number < 40:
            Image.fromarray(image).save(place / f"{number}.png")
    done = run("new", "mnist_siamese", "mine", "--train", 'my "pictures"', "--test", "digits:test", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    layers = parse_net(tmp_path / "mine" / "train_test.prototxt").message.layer
    assert [layer.pair_data_param.source for layer in layers[:2]] == ['../my "pictures"', "digits:test"]
    assert "TRAIN: 40 images of 10 classes from 'my \"pictures\"'\nTEST: 360 images of 10 classes from" in done.stdout


def test_the_quick_training_is_proposed_and_the_complete_one_is_a_comment(tmp_path: Path) -> None:
    lines = run("new", "mnist_siamese", "mine", folder=tmp_path).stdout.splitlines()
    assert "  siamese-proto train --solver solver_quick.prototxt --log train.log" in lines
    assert "  # or the complete training: siamese-proto train --solver solver.prototxt --log train.log" in lines
    assert [line for line in lines if " parameters; " in line] == [
        "solver.prototxt: 431 k parameters; 50,000 iterations, about 15 minutes on two CPU cores; "
        "10 snapshots of 5.17 MB",
        "solver_quick.prototxt: 431 k parameters; 1,000 iterations, about 20 seconds on two CPU cores; "
        "2 snapshots of 5.17 MB",
    ]


def test_missing_data_are_listed(tmp_path: Path) -> None:
    done = run("new", "mnist_siamese", "mine", folder=tmp_path)
    assert "siamese-proto data digits ." in done.stdout
    done = run("new", "mnist_siamese", "yours", "--train", "a", "--test", "b", folder=tmp_path)
    assert "or write other sources in train_test.prototxt: 'a', 'b'" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (("mnist_siames", "x"), 1, "unknown network 'mnist_siames'; did you mean 'mnist_siamese'?"),
        (("mnist_siamese", "full"), 1, "'full' exists and is not an empty folder; give another"),
        (("mnist_siamese", "full/file"), 1, "'full/file' exists and is not an empty folder; give another"),
        (("mnist_siamese", "none/x"), 1, "there is no folder '{here}/none' to start a project in"),
        (("mnist_siames",), 1, "unknown network 'mnist_siames'; did you mean 'mnist_siamese'?"),
        (("lenet",), 1, f"unknown network 'lenet'; expected one of {', '.join(NETWORKS)}"),
        (("mnist_siamese",), 2, "missing FOLDER: siamese-proto new mnist_siamese FOLDER"),
    ],
)
def test_a_project_that_cannot_be_started_is_one_line(
    arguments: tuple[str, ...], status: int, text: str, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    done = run("new", *arguments, folder=tmp_path)
    assert done.returncode == status
    assert done.stderr.splitlines()[-1].endswith(text.format(here=tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
    assert (tmp_path / "full" / "file").read_text() == "mine"


def test_special_characters_in_names_are_quoted(tmp_path: Path) -> None:
    done = run("new", "cosine_siamese", "--train", 'a"b\\c', "--", "-x y", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "  cd './-x y'\n" in done.stdout
    assert """write other sources in train_test.prototxt: 'a"b\\c'""" in done.stdout
