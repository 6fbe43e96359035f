"""Commands that only look at a net, time it or use its features leave the files that its layers name as they are."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from siamese_proto.cli import main
from siamese_proto.cli.group import PROBLEM
from siamese_proto.errors import SolverError
from siamese_proto.net.net import Net
from siamese_proto.solver import Solver
from siamese_proto.solver.profile import time_net

OLD = b"rows that took a week to compute"
OUTPUT = """layer { name: "save" type: "HDF5Output" bottom: "feat" bottom: "same"
  hdf5_output_param { file_name: "%s" } }
"""
COMMANDS = [
    ("time", "--iterations", "1"),
    ("time", "--iterations", "1", "--phase", "TEST", "--no-fuse"),
    ("evaluate", "--pairs", "images", "--count", "20"),
    ("evaluate",),
    ("embed", "images", "-o", "{tmp}/features.npy"),
    ("compare", "{image}", "{other}"),
    ("search", "{image}", "--in", "images"),
    ("check", "{net}"),
    ("summary", "{net}"),
    ("draw", "{net}", "{tmp}/net.dot"),
    ("deploy", "{net}", "-o", "{tmp}/deploy.prototxt"),
    ("port", "{net}", "-o", "{tmp}/model.py", "--weights", "twin.caffemodel"),
    ("port", "{net}", "-o", "{tmp}/model.onnx", "--weights", "twin.caffemodel"),
]
WITHOUT_MODEL = {"check", "summary", "draw", "deploy", "port"}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["out.h5", "gone/out.h5"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_command_that_inspects_a_net_writes_no_file_of_its_layers(
    command: tuple[str, ...], place: str, trained: Any, tmp_path: Path
) -> None:
    if command[0] == "port" and command[3].endswith("onnx") and importlib.util.find_spec("onnxscript") is None:
        pytest.skip("needs the extra onnx")
    file, net = tmp_path / place, tmp_path / "net.prototxt"
    if file.parent.is_dir():
        file.write_bytes(OLD)
    net.write_text(Path("twin.prototxt").read_text() + OUTPUT % file)
    named = {"tmp": tmp_path, "net": net, "image": trained.image(0), "other": trained.image(1)}
    arguments = [part.format(**named) for part in command]
    if command[0] not in WITHOUT_MODEL:
        arguments += ["--model", str(net), "--weights", "twin.caffemodel"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code in (0, PROBLEM), done.output
    assert file.read_bytes() == OLD if file.parent.is_dir() else not file.exists()
    assert not list(tmp_path.rglob("*.partial"))
    if command[0] != "port" or "onnx" not in command[3]:  # ONNX has no such layer
        assert done.exit_code == 0, done.output


LINE = """
layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: 5 dim: 3 } shape { dim: 5 dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 2
  weight_filler { type: "xavier" } } }
layer { name: "save" type: "HDF5Output" bottom: "ip" bottom: "y" hdf5_output_param { file_name: "out.h5" } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""


def test_inspecting_and_timing_a_net_write_nothing_but_calling_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    batch = {"x": torch.ones(5, 3), "y": torch.ones(5, 2)}
    net = Net(LINE)
    net.blobs(**batch)
    time_net(net, batch, 1)
    net.close()
    assert not list(tmp_path.iterdir())
    net(**batch)
    net.close()
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_the_search_for_the_layer_that_is_not_finite_adds_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import h5py

    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(LINE)
    Path("solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2 display: 1')
    rows = [[np.full((5, size), number, np.float32) for size in (3, 2)] for number in (0.5, math.nan)]
    solver = Solver("solver.prototxt", data={"in": rows})
    with pytest.raises(SolverError, match="the loss of iteration 1 is nan"):
        solver.step(2)
    solver.close()
    with h5py.File("out.h5") as file:
        assert file["data"].shape == (10, 2, 1, 1)
