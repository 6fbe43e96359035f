from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import paths
import pytest

from siamese_proto.proto.reader import parse_net, parse_solver

TOOLS = paths.TOOLS
OLD_NET = """name: "old"
input: "x"
input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 9
layers { name: "relu" type: RELU bottom: "x" top: "y" }
"""


def run(tool: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOLS / tool), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)


def test_upgrade_net_proto_text(tmp_path: Path) -> None:
    (tmp_path / "old.prototxt").write_text(OLD_NET)
    assert run("upgrade_net_proto_text.py", "old.prototxt", "new.prototxt", folder=tmp_path).returncode == 0
    message = parse_net(tmp_path / "new.prototxt").message
    assert [(layer.name, layer.type) for layer in message.layer] == [("input", "Input"), ("relu", "ReLU")]
    assert "layers" not in (tmp_path / "new.prototxt").read_text()


def test_upgrade_solver_proto_text(tmp_path: Path) -> None:
    (tmp_path / "old.prototxt").write_text('net: "net.prototxt"\nbase_lr: 0.1\nsolver_type: NESTEROV\n')
    assert run("upgrade_solver_proto_text.py", "old.prototxt", "new.prototxt", folder=tmp_path).returncode == 0
    assert parse_solver(tmp_path / "new.prototxt").message.type == "Nesterov"


@pytest.mark.parametrize(("direction", "across"), [("LR", True), ("TB", False)])
def test_draw_net(direction: str, across: bool, tmp_path: Path) -> None:
    (tmp_path / "old.prototxt").write_text(OLD_NET)
    done = run("draw_net.py", "old.prototxt", "net.dot", "--rankdir", direction, "--phase", "TEST", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "net.dot").read_text(encoding="utf-8")
    assert ("rankdir=LR" in text) is across
    assert "TEST" in text


def test_draw_net_shows_multipliers_of_learning_rates(tmp_path: Path) -> None:
    product = """layers { name: "ip" type: INNER_PRODUCT bottom: "y" top: "ip" blobs_lr: 3 blobs_lr: 0.5
                          inner_product_param { num_output: 4 } }"""
    (tmp_path / "old.prototxt").write_text(OLD_NET + product)
    assert run("draw_net.py", "old.prototxt", "net.dot", "--display_lrm", folder=tmp_path).returncode == 0
    text = (tmp_path / "net.dot").read_text(encoding="utf-8")
    assert "lr_mult 3" in text
    assert "lr_mult 0.5" in text


@pytest.mark.parametrize(
    ("tool", "target"),
    [
        ("draw_net.py", "x.svg"),
        ("upgrade_net_proto_text.py", "x.prototxt"),
        ("upgrade_solver_proto_text.py", "x.prototxt"),
    ],
)
def test_a_missing_file_is_one_line(tool: str, target: str, tmp_path: Path) -> None:
    done = run(tool, "missing.prototxt", target, folder=tmp_path)
    assert (done.returncode, done.stderr) == (1, "missing.prototxt: no such file\n")
