"""siamese-proto search: the nearest images, as a list and as a sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from siamese_proto.evaluation.features import read_features


@pytest.mark.slow
def test_the_nearest_images_are_found_without_the_query(trained: Any, tmp_path: Path) -> None:
    query = trained.image(6)
    trained.run("embed", "images", "-o", str(tmp_path / "f.npz"))
    saved = read_features(tmp_path / "f.npz")
    own = list(saved.names).index(query)
    distances = np.linalg.norm(saved.features - saved.features[own], axis=1)
    expected = [saved.names[row] for row in np.argsort(distances) if row != own][:5]
    out = tmp_path / "sheet.png"
    done = trained.run("search", query, "--in", "images", "--count", "5", "--format", "json", "--picture", str(out))
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)
    assert [one["name"] for one in results] == expected
    assert results[0]["distance"] == pytest.approx(np.sort(distances)[1], abs=1e-4)
    assert all(one["class_name"] == one["name"].split("/")[1] for one in results)
    with Image.open(out) as picture:
        assert picture.width > 500
    again = trained.run("search", query, "--in", str(tmp_path / "f.npz"), "--count", "5", "--format", "json")
    assert [one["name"] for one in json.loads(again.stdout)] == expected


def test_a_folder_without_classes_is_searched_and_listed(trained: Any) -> None:
    done = trained.run("search", trained.image(6), "--in", "images/3", "--count", "2")
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("images/3/" in line and "class" not in line for line in lines)


@pytest.mark.slow
def test_the_embedded_digits_are_searched_with_pictures(trained: Any, tmp_path: Path) -> None:
    done = trained.run("search", trained.image(6), "--in", "digits:train", "--picture", str(tmp_path / "s.svg"))
    assert done.exit_code == 0, done.output
    assert sum("(class 6)" in line for line in done.stdout.splitlines()) >= 8
    assert (tmp_path / "s.svg").stat().st_size > 5000


def test_features_of_other_weights_are_refused(trained: Any, tmp_path: Path) -> None:
    trained.run("embed", "images", "-o", str(tmp_path / "f.npz"))
    with np.load(tmp_path / "f.npz") as arrays:
        content = {name: arrays[name] for name in arrays.files}
    content["made_by"] = np.array(str(content["made_by"]).replace('"digest": "', '"digest": "0'))
    np.savez(tmp_path / "other.npz", **content)
    done = trained.run("search", trained.image(6), "--in", str(tmp_path / "other.npz"))
    assert done.stderr == f"'{tmp_path / 'other.npz'}' was made with other weights; embed the images again\n"
    np.savez(tmp_path / "wide.npz", **{**content, "features": np.zeros((60, 9))})
    done = trained.run("search", trained.image(6), "--in", str(tmp_path / "wide.npz"))
    assert "has 9 features per image, the net computes 6; embed the images again" in done.stderr


def test_an_unreadable_image_is_named_in_the_error(trained: Any, tmp_path: Path) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    done = trained.run("search", trained.image(6), "--in", str(tmp_path))
    assert done.exit_code == 1
    assert done.stderr.startswith(f"image '{tmp_path / 'b.png'}' cannot be read: ")
    empty = tmp_path / "empty"
    empty.mkdir()
    done = trained.run("search", trained.image(6), "--in", str(empty))
    assert done.stderr.startswith(f"no images in '{empty}'")
