"""--gpu with a missing GPU is an error; solver_mode in a file is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from siamese_proto.cli import main

COUNT = torch.cuda.device_count()
HERE = f"the GPUs here are numbered 0 to {COUNT - 1}" if COUNT else "torch finds no GPU here"
NET = """
layer { name: "in" type: "DummyData" top: "data" dummy_data_param { shape { dim: 5 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "ip" top: "loss" }
"""
COMMANDS = [
    ("train", "--solver", "solver.prototxt"),
    ("test", "--model", "net.prototxt", "--weights", "w.caffemodel"),
    ("time", "--model", "net.prototxt"),
    ("evaluate", "--model", "net.prototxt", "--weights", "w.caffemodel"),
    ("embed", "digits:test", "-o", "f.npy", "--model", "net.prototxt", "--weights", "w.caffemodel"),
]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1 solver_mode: GPU snapshot_prefix: "snap"'
    )


@pytest.mark.parametrize("spelling", ["--gpu", "-gpu"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_missing_gpu_is_an_error(command: tuple[str, ...], spelling: str) -> None:
    done = CliRunner().invoke(main, [*command, spelling, str(COUNT)])
    text = f"--gpu {COUNT}: {HERE}; leave --gpu out to run on the CPU"
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (1, text)


@pytest.mark.skipif(COUNT > 0, reason="there is a GPU here")
@pytest.mark.parametrize("gpu", ["all", "0,1"])
def test_several_missing_gpus_are_an_error(gpu: str) -> None:
    done = CliRunner().invoke(main, ["train", "--solver", "solver.prototxt", "--gpu", gpu])
    text = "--gpu 0: torch finds no GPU here; leave --gpu out to run on the CPU"
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (1, text)


@pytest.mark.skipif(COUNT > 0, reason="there is a GPU here")
def test_solver_mode_gpu_without_a_gpu_is_a_warning() -> None:
    done = CliRunner().invoke(main, ["train", "--solver", "solver.prototxt"])
    assert done.exit_code == 0, done.output
    assert "solver.prototxt: solver_mode is GPU, but torch finds no GPU here; training on the CPU" in done.stderr
