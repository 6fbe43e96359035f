"""A small twin, trained on the embedded digits, for the commands that use one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from siamese_proto.cli import main
from siamese_proto.data.images.digits import load_digits
from siamese_proto.solver import Solver

NET = """name: "digit_twin"
layer { name: "pairs" type: "PairData" top: "data" top: "data_p" top: "same" transform_param { scale: 0.00390625 }
        pair_data_param { source: "digits" batch_size: 64 tuples: 640 seed: 7 } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1" param { name: "w1" } param { name: "b1" }
        inner_product_param { num_output: 32 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "feat" type: "InnerProduct" bottom: "ip1" top: "feat" param { name: "w2" } param { name: "b2" }
        inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "ip1_p" type: "InnerProduct" bottom: "data_p" top: "ip1_p" param { name: "w1" } param { name: "b1" }
        inner_product_param { num_output: 32 weight_filler { type: "xavier" } } }
layer { name: "relu1_p" type: "ReLU" bottom: "ip1_p" top: "ip1_p" }
layer { name: "feat_p" type: "InnerProduct" bottom: "ip1_p" top: "feat_p" param { name: "w2" } param { name: "b2" }
        inner_product_param { num_output: 6 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "ContrastiveLoss" bottom: "feat" bottom: "feat_p" bottom: "same" top: "loss" }
"""
SOLVER = """net: "twin.prototxt" type: "Adam" base_lr: 0.003 lr_policy: "fixed" max_iter: 150 random_seed: 1
snapshot_after_train: false display: 0"""
IMAGES = 60  # of the test digits, in a folder a class


@dataclass(frozen=True)
class Trained:
    """A folder with `twin.prototxt`, `tower.prototxt`, `twin.caffemodel` and `images/DIGIT/NUMBER.png`."""

    folder: Path

    def run(self, *arguments: str, model: str = "twin.prototxt") -> Result:
        """Run a command that uses the net, in this process."""
        options = () if arguments[0] == "plot" else ("--model", model, "--weights", "twin.caffemodel")
        return CliRunner().invoke(main, [*arguments, *options])

    def image(self, digit: int, number: int = 0) -> str:
        """The path of an image of a digit."""
        return sorted(str(path) for path in Path(f"images/{digit}").iterdir())[number]


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    (folder / "twin.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    tower = NET[NET.index('layer { name: "ip1"') : NET.index('layer { name: "ip1_p"')]
    entry = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 28 dim: 28 } } }\n'
    (folder / "tower.prototxt").write_text(f'name: "tower"\n{entry}{tower}')
    solver = Solver(folder / "solver.prototxt")
    solver.solve()
    solver.net.save_weights(folder / "twin.caffemodel")
    images, digits = load_digits()[1]
    for number, (image, digit) in enumerate(zip(images[:IMAGES], digits[:IMAGES], strict=True)):
        (folder / "images" / str(digit)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / "images" / str(digit) / f"{number:03d}.png")
    return Trained(folder)


@pytest.fixture
def trained(_trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trained:
    """The trained twin, in the working directory; files written there stay for all tests."""
    monkeypatch.chdir(_trained.folder)
    return _trained


Look = Callable[[Path], set[tuple[int, ...]]]


@pytest.fixture
def colors() -> Look:
    """Return the colors of an image."""

    def look(path: Path) -> set[tuple[int, ...]]:
        with Image.open(path) as image:
            return {color for _, color in image.convert("RGB").getcolors(1 << 22) or []}

    return look
