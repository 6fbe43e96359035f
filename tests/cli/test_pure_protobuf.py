"""Every command works with the pure-Python protobuf too, which is installed if no wheel fits."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import run

from siamese_proto.proto import schema

pytestmark = pytest.mark.slow

NET = """name: "twin"
layer { name: "a" type: "DummyData" top: "a"
        dummy_data_param { shape { dim: 3 dim: 5 } data_filler { type: "uniform" } } }
layer { name: "y" type: "DummyData" top: "y" dummy_data_param { shape { dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "ip" param { name: "w" } param { name: "c" }
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "ip_p" type: "InnerProduct" bottom: "a" top: "ip_p" param { name: "w" } param { name: "c" }
        inner_product_param { num_output: 4 } }
layer { name: "loss" type: "ContrastiveLoss" bottom: "ip" bottom: "ip_p" bottom: "y" top: "loss" }
"""
V1 = """name: "old"
input: "x" input_dim: 2 input_dim: 3 input_dim: 1 input_dim: 1
layers { name: "ip" type: INNER_PRODUCT bottom: "x" top: "ip" blobs_lr: 1 blobs_lr: 2
         inner_product_param { num_output: 4 } }
"""
SOLVER = """net: "net.prototxt"
base_lr: 0.01 lr_policy: "fixed" max_iter: 2 snapshot: 2 snapshot_prefix: "pure" type: "Adam"
"""
COMMANDS = [
    (("check", "net.prototxt", "solver.prototxt"), "solver.prototxt: no problems"),
    (("summary", "net.prototxt"), "ContrastiveLoss"),
    (("draw", "net.prototxt", "net.dot"), ""),
    (("upgrade", "old.prototxt", "new.prototxt"), ""),
    (("train", "--solver", "solver.prototxt"), ""),
    (("inspect", "pure_iter_2.caffemodel"), "ip"),
    (("inspect", "pure_iter_2.solverstate"), "2"),
    (("train", "--solver", "solver.prototxt", "--snapshot", "pure_iter_2.solverstate"), ""),
    (("port", "net.prototxt", "--weights", "pure_iter_2.caffemodel", "-o", "net.py"), ""),
    (("data", "digits", "."), ""),
    (("data", "show", "digits_test_leveldb"), ""),
]


def test_every_command_works_with_the_pure_python_protobuf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    for name, text in (("net", NET), ("old", V1), ("solver", SOLVER)):
        (tmp_path / f"{name}.prototxt").write_text(text)
    for arguments, shown in COMMANDS:
        done = run(*arguments, folder=tmp_path)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        assert shown in done.stdout
    assert (tmp_path / "new.prototxt").read_text().count("InnerProduct") == 1


def test_names_with_invalid_utf_8_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual protobuf accepts these bytes; the pure-Python one raises UnicodeDecodeError."""
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    old = schema.NetParameter()
    layer = old.layers.add(name="ip", bottom=["b@"], type=schema.V1LayerParameter.INNER_PRODUCT)
    layer.blobs.add(num=1, channels=1, height=1, width=2, data=[1.0, 2.0])
    (tmp_path / "w.caffemodel").write_bytes(old.SerializeToString().replace(b"@", b"\xbe"))
    state = schema.SolverState(iter=7, learned_net="a@", current_step=0).SerializeToString()
    (tmp_path / "w.solverstate").write_bytes(state.replace(b"@", b"\xbe"))
    for name in ("w.caffemodel", "w.solverstate"):
        done = run("inspect", name, folder=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith(f"{name}: ")
        assert done.stderr.count("\n") == 1
