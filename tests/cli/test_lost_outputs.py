"""Full disks under what a command writes besides its result, and streams that the caller has closed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from siamese_proto.net.net import Net
from siamese_proto.weights import read_weights

pytestmark = pytest.mark.slow

NET = """
layer { name: "in" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 5 dim: 300 } shape { dim: 5 dim: 70 } data_filler { type: "constant" value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 70
  weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 2 display: 1 snapshot_prefix: "snap"'
TRAIN = ("train", "--solver", "solver.prototxt")
TEST = ("test", "--model", "net.prototxt", "--weights", "w.caffemodel", "--iterations", "2")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    Net(NET, "TEST").save_weights("w.caffemodel")


def shell(line: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which "$@" is a siamese-proto command."""
    command = [sys.executable, "-P", "-m", "siamese_proto", *words]
    return subprocess.run(["sh", "-c", line, "sh", *command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [TRAIN, TEST], ids=lambda command: command[0])
def test_a_full_disk_under_the_log_file_is_one_line_and_the_command_continues(command: tuple[str, ...]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("the system has no /dev/full")
    done = shell('"$@"', *command, "--log", "/dev/full")
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if "/dev/full" in line or "rror" in line]
    assert lines == ["warning: /dev/full: the log cannot be written (No space left on device); continuing without it"]
    assert command is not TRAIN or Path("snap_iter_2.solverstate").exists()


def test_a_full_disk_under_ported_weights_is_one_line_and_leaves_nothing() -> None:
    pytest.importorskip("resource")
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from siamese_proto.cli import main
main(["port", "net.prototxt", "-o", "made/model.py", "--weights", "w.caffemodel"])
"""
    Path("made").mkdir()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "made/model.safetensors: cannot be written: File too large\n")
    assert list(Path("made").iterdir()) == []


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_command_without_its_standard_streams_does_its_work(closed: str) -> None:
    done = shell(f'"$@" {closed}', *TRAIN)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    blobs = {layer.name: layer.blobs for layer in read_weights("snap_iter_2.caffemodel").layers}
    assert [np.shape(blob) for blob in blobs["ip"]] == [(70, 300), (70,)]


def test_library_output_to_a_closed_stream_is_in_no_file() -> None:
    Path("noisy.py").write_text("""
import os
import siamese_proto as sp
from siamese_proto.layers.activation import TanH
@sp.layer("Noisy")
class Noisy(TanH):
    def forward(self, bottoms, params, run):
        for number in (1, 2):
            os.write(number, b"noise")
        return super().forward(bottoms, params, run)
""")
    noisy = 'layer { name: "n" type: "Noisy" bottom: "ip" top: "n" }\nlayer { name: "loss"'
    Path("net.prototxt").write_text(NET.replace('layer { name: "loss"', noisy))
    done = shell('"$@" >&- 2>&-', *TRAIN, "--layers", "noisy.py", "--log", "run.log")
    assert done.returncode == 0
    assert "Optimization Done." in Path("run.log").read_text()
    assert "noise" not in Path("run.log").read_text()
