"""siamese-proto embed: features in files and pictures, and sources that are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from siamese_proto.evaluation.features import Embedding, read_features
from siamese_proto.evaluation.plots.features import plot_embedding, project
from siamese_proto.evaluation.plots.style import CLASSES, class_style


@pytest.mark.slow
def test_features_labels_and_names_of_labeled_images(trained: Any, tmp_path: Path) -> None:
    outs = [str(tmp_path / name) for name in ("f.npz", "f.npy", "f.png")]
    done = trained.run("embed", "images", *(part for out in outs for part in ("-o", out)))
    assert done.exit_code == 0, done.output
    assert "images: gray, resized to 28 x 28, times 0.00390625 (from layer 'pairs')" in done.output
    with np.load(outs[0]) as arrays:
        assert arrays["features"].shape == (60, 6)
        assert arrays["features"].dtype == np.float32
        assert arrays["names"].tolist() == sorted(map(str, Path("images").glob("*/*.png")))
        assert arrays["class_names"].tolist() == [name.split("/")[1] for name in arrays["names"]]
        np.testing.assert_array_equal(np.load(outs[1]), arrays["features"])
        labels = arrays["labels"]
    back = read_features(outs[0])
    assert (back.labels == labels).all()
    assert back.name_of_class(3) == "3"
    assert back.made_by["model"] == "twin.prototxt"
    done = trained.run("plot", outs[0], str(tmp_path / "again.png"))
    assert done.exit_code == 0, done.output


def test_one_tower_gives_the_features_of_the_twin(trained: Any, tmp_path: Path) -> None:
    trained.run("embed", "images", "-o", str(tmp_path / "twin.npy"))
    done = trained.run(
        "embed", "images", "-o", str(tmp_path / "tower.npy"), "--scale", "0.00390625", model="tower.prototxt"
    )
    assert done.exit_code == 0, done.output
    np.testing.assert_allclose(np.load(tmp_path / "tower.npy"), np.load(tmp_path / "twin.npy"), atol=1e-5)


def test_files_and_folders_without_classes(trained: Any, tmp_path: Path) -> None:
    files = (trained.image(3), trained.image(5))
    done = trained.run("embed", *files, "images/7", "-o", str(tmp_path / "f.npz"))
    assert done.exit_code == 0, done.output
    back = read_features(tmp_path / "f.npz")
    assert tuple(back.names[:2]) == files
    assert len(back.names) == 2 + len(list(Path("images/7").iterdir()))
    assert (back.labels == -1).all()


@pytest.mark.parametrize("names", [[f"class_{n}" for n in range(45)], ["_a", "$b", "c\nd" * 9]])
def test_many_classes_and_odd_names_are_drawn(names: list[str], tmp_path: Path) -> None:
    labels = np.arange(180) % len(names)
    features = np.random.default_rng(0).normal(size=(180, 5)).astype(np.float32)
    plot_embedding(Embedding(features, labels, [""] * 180, dict(enumerate(names))), tmp_path / "f.svg", "t")
    assert (tmp_path / "f.svg").stat().st_size > 10_000


def test_classes_beyond_the_colors_have_different_markers() -> None:
    styles = [class_style(index) for index in range(5 * len(CLASSES))]
    assert len(set(styles)) == len(styles)


@pytest.mark.slow
def test_points_are_the_main_components(colors: Callable[[Path], Any], tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    features = draw.normal(size=(50, 4)) * [0.1, 5, 0.1, 2]
    points, axes = project(features)
    centered = features - features.mean(0)
    _, _, directions = np.linalg.svd(centered, full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(centered @ directions[:2].T), atol=1e-6)
    assert axes[0].startswith("component 1 (")
    two, _ = project(features[:, :2])
    np.testing.assert_array_equal(two, features[:, :2])
    plot_embedding(Embedding(np.ones((3, 4)), np.array([1, 2, 2]), ["", "", ""]), tmp_path / "f.png")
    assert len(colors(tmp_path / "f.png")) > 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gone", "-o", "f.npz"), "'gone' is not there in the working directory; check the path"),
        (("gone.png", "-o", "f.npz"), "image 'gone.png' cannot be read: No such file or directory"),
        (("images", "-o", "f.gif"), "'f.gif': its name must end in .npz, .npy, .png, .svg, .pdf"),
        (("images", "-o", "no/f.npz"), "cannot write 'no/f.npz': there is no folder 'no'"),
        (("images", "-o", "f.npz", "--classes", "11"), "no image has a class of '11'; they go from 0 to 9"),
        (
            ("images/3", "-o", "f.npz", "--classes", "3"),
            "'images/3' is not a source of labeled images, so it has no classes",
        ),
    ],
)
def test_sources_that_cannot_be_embedded_are_one_line(arguments: tuple[str, ...], message: str, trained: Any) -> None:
    done = trained.run("embed", *arguments)
    assert done.exit_code == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"", "is not a .npz of 'siamese-proto embed'"),
        (b"PK\x03\x04junk", "is not a .npz of 'siamese-proto embed'"),
        (b"\x93NUMPY\x01\x00", "is not a .npz of 'siamese-proto embed'"),
    ],
)
def test_a_file_without_features_is_refused(content: bytes | None, message: str, trained: Any, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "f.npz").write_bytes(content)
    done = trained.run("plot", str(tmp_path / "f.npz"), str(tmp_path / "f.png"))
    assert done.exit_code == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
