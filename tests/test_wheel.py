"""The wheel is complete: installed alone, it works from any folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import paths
import pytest

import siamese_proto

ROOT = paths.ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which only the wheel is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_contains_the_package_with_its_data_and_licenses(installed: Path) -> None:
    files = {str(path.relative_to(installed)) for path in installed.rglob("*") if path.is_file()}
    data = {"proto/caffe.desc", "proto/caffe.proto", "proto/schema.pyi", "data/images/digits.csv.gz", "py.typed"}
    data |= {"export/drawing/page.html", "export/drawing/page.css", "export/drawing/page.js"}
    assert {f"siamese_proto/{name}" for name in data} <= files
    networks = {path.parent.name for path in (ROOT / "prototxt").glob("*/*.prototxt")}
    assert networks == {path.parent.name for path in (installed / "siamese_proto" / "networks").glob("*/*.prototxt")}
    assert {path.name for path in installed.glob("*.dist-info/licenses/*")} == {"LICENSE", "THIRD_PARTY.md"}
    assert {name.split("/")[0] for name in files} == {
        "siamese_proto",
        f"siamese_proto-{siamese_proto.__version__}.dist-info",
    }


def test_it_works_from_any_folder(installed: Path, tmp_path: Path) -> None:
    place = run(installed, tmp_path, "-c", "import siamese_proto; print(siamese_proto.__file__)")
    assert Path(place.strip()).is_relative_to(installed)
    command = ("-m", "siamese_proto")
    run(installed, tmp_path, *command, "new", "mnist_siamese", "twin")
    tmp_path /= "twin"
    run(installed, tmp_path, *command, "data", "digits", ".", "--train-count", "64", "--test-count", "100")
    assert "no problems" in run(installed, tmp_path, *command, "check", "train_test.prototxt")
    run(installed, tmp_path, *command, "draw", "train_test.prototxt", "twin.svg")
    (tmp_path / "solver.prototxt").write_text(
        'net: "train_test.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 1 display: 1 solver_mode: CPU'
    )
    run(installed, tmp_path, *command, "train", "--solver", "solver.prototxt")
    assert {"twin.svg", "solver_iter_1.caffemodel"} <= {path.name for path in tmp_path.iterdir()}


def test_the_required_python_version_is_the_same_everywhere() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    required = settings["project"]["requires-python"].removeprefix(">=")
    assert required == "3.11"  # the constraints have no numpy for an older one
    assert f"(Python {required} or newer)" in (ROOT / "README.md").read_text()
    assert settings["tool"]["ruff"]["target-version"] == f"py{required.replace('.', '')}"
    assert settings["tool"]["mypy"]["python_version"] == required
