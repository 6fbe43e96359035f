"""The command inspect, with figures compared with numbers written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import paths
import pytest
from click.testing import CliRunner, Result

from siamese_proto.cli import main
from siamese_proto.weights import StoredLayer, StoredState, StoredWeights, write_state, write_stored

GOLDEN = paths.GOLDEN


def inspect(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoredWeights:
    monkeypatch.chdir(tmp_path)
    odd = np.float32([[1, -3, np.nan], [np.inf, 2, 4]])
    bias = np.array([0.5, 1.5])
    return StoredWeights(
        "w",
        (
            StoredLayer("relu", "ReLU"),
            StoredLayer("ip", "InnerProduct", blobs=(odd, bias), keys=("ip/0", "ip/1")),
            StoredLayer("ip_p", "InnerProduct", blobs=(odd, bias + 1), keys=("ip/0", "ip_p/1")),
            StoredLayer(
                "bad", "Scale", blobs=(np.float32([np.nan]), np.zeros((3, 0), np.float32)), keys=("b/0", "b/1")
            ),
        ),
        "tiny",
    )


def test_layers_shapes_and_figures_are_listed(weights: StoredWeights) -> None:
    write_stored("w.safetensors", weights)
    done = inspect("w.safetensors")
    assert (done.exit_code, done.stdout) == (
        0,
        "w.safetensors: tiny\n"
        "layer  type          blob  shape  numbers  least  most  mean\n"
        "ip     InnerProduct  0     2x3    float32  -3     4     1     2 not finite\n"
        "ip     InnerProduct  1     2      float64  0.5    1.5   1\n"
        "ip_p   InnerProduct  0     2x3    float32  -3     4     1     same as ip/0, 2 not finite\n"
        "ip_p   InnerProduct  1     2      float64  1.5    2.5   2\n"
        "bad    Scale         0     1      float32                     1 not finite\n"
        "bad    Scale         1     3x0    float32\n"
        "4 layers, 5 arrays, 11 numbers; 1 blob is a copy\n",
    )


def test_the_same_as_json(weights: StoredWeights) -> None:
    write_stored("w.pt", weights)
    done = inspect("w.pt", "--format", "json")
    content = json.loads(done.stdout)
    assert content["rows"][2] == {
        "layer": "ip_p",
        "type": "InnerProduct",
        "blob": 0,
        "shape": [2, 3],
        "kind": "float32",
        "least": -3.0,
        "most": 4.0,
        "mean": 1.0,
        "not_finite": 2,
        "same_as": "ip/0",
    }
    assert content["rows"][4]["mean"] is None


@pytest.mark.parametrize("suffix", ["", ".h5"])
def test_a_solver_state_is_listed(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"s.solverstate{suffix}"
    write_state(path, StoredState(30, "s.caffemodel", 2, (np.float32([[1, 2]]), np.float32([-1]))))
    assert inspect(path).stdout == (
        f"{path}: a solver state after iteration 30, step 2 of the policy\n"
        "weights: s.caffemodel\n"
        "layer    type  blob  shape  numbers  least  most  mean\n"
        "history        0     1x2    float32  1      2     1.5\n"
        "history        1     1      float32  -1     -1    -1\n"
        "2 arrays, 3 numbers\n"
    )


def test_a_solver_state_is_recognized_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "copy.bin").write_bytes((GOLDEN / "solver" / "adam" / "snap_iter_20.solverstate").read_bytes())
    assert inspect(tmp_path / "copy.bin").stdout.startswith(
        f"{tmp_path / 'copy.bin'}: a solver state after iteration 20, step 0 of the policy\n"
    )


def test_the_twin_of_caffe_is_listed_with_its_shared_arrays() -> None:
    lines = inspect(GOLDEN / "flagship" / "snap_iter_100.caffemodel").stdout.splitlines()
    assert lines[-1] == "19 layers, 10 arrays, 431,102 numbers; 10 blobs are copies"
    assert any(line.startswith("conv1_p  Convolution") and line.endswith("same as conv1/0") for line in lines)


def test_another_file_is_one_error_line(tmp_path: Path) -> None:
    (tmp_path / "x.caffemodel").write_bytes(b"\xff" * 40)
    done = inspect(tmp_path / "x.caffemodel")
    assert done.exit_code == 1
    assert done.stderr == (
        f"{tmp_path / 'x.caffemodel'}: is not a caffemodel, or is damaged or cut off (byte 0 begins a number that does "
        "not end)\n"
    )
