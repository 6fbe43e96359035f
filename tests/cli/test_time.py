"""The command time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cli_runner import NET, SHAPES, run
from click.testing import CliRunner

import siamese_proto as sp
from siamese_proto.cli import main
from siamese_proto.solver.profile import random_batch, time_net


@pytest.mark.slow
def test_lines_are_those_of_caffe_time_and_no_database_is_needed(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    done = run("time", "-model", "net.prototxt", "-iterations", "2", *SHAPES, "--no-fuse", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Average time per layer: "
    named = [line.split("\t")[0].strip() for line in lines[1:-4]]
    assert named == [name for name in ("cut", "ip", "ip_b", "loss") for _ in range(2)]
    assert [line.partition(":")[0] for line in lines[-4:]] == [
        "Average Forward pass", "Average Backward pass", "Average Forward-Backward", "Total Time",
    ]  # fmt: skip  # as Caffe prints them


def test_json_lists_the_layers_that_join_towers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    done = CliRunner().invoke(
        main, ["time", "--model", "net.prototxt", "--iterations", "3", "--format", "json", *SHAPES]
    )
    times = json.loads(done.stdout)
    assert times["iterations"] == 3
    assert times["step"] == pytest.approx(times["forward"] + times["backward"])
    assert [layer["type"] for layer in times["layers"]] == [
        "Slice", "JoinBatches", "InnerProduct", "PartBatches", "ContrastiveLoss",
    ]  # fmt: skip  # one word per layer
    assert all(layer["forward"] > 0 for layer in times["layers"])
    assert times["layers"][2]["backward"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give its shape with --shape pairs=N,C,H,W"),
        ([*SHAPES, "--precision", "fp16"], "precision fp16 needs a GPU, and the net is on the CPU"),
        ([*SHAPES, "--precision", "tf32"], "precision tf32 needs a GPU, and the net is on the CPU"),
    ],
)
def test_an_error_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    done = CliRunner().invoke(main, ["time", "--model", "net.prototxt", *arguments])
    assert done.exit_code == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_timing_does_not_change_the_net() -> None:
    shapes = {"pairs": (7, 2, 5, 4), "sim": (7,)}
    net = sp.Net(NET, "TRAIN", shapes=shapes, seed=1)
    before = {name: tensor.detach().clone() for name, tensor in net.tensors.items()}
    batch = random_batch(net.graph)
    assert not batch["sim"].any()
    time_net(net, batch, 1)
    for name, tensor in net.tensors.items():
        assert torch.equal(tensor, before[name])
        assert tensor.grad is None
