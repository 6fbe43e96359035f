"""Estimates of a training, and projects that have all of their files or none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import siamese_proto as sp
from siamese_proto.errors import NetError
from siamese_proto.projects.project import start_project
from siamese_proto.zoo import network_titles


@pytest.mark.parametrize("network", network_titles())
def test_no_training_writes_more_than_two_gigabytes_of_snapshots(network: str, tmp_path: Path) -> None:
    plans = start_project(network, tmp_path / "project").plans
    assert plans
    for plan in plans:
        assert plan.snapshots * plan.snapshot_bytes < 2e9
        assert 5e5 > plan.iterations / plan.snapshots >= 200
        assert plan.parameters > 1e5
        assert plan.seconds > 5


def test_the_estimates_are_those_of_the_layers(tmp_path: Path) -> None:
    plan = start_project("pseudo_siamese", tmp_path / "project").plans[0]
    assert str(plan) == (
        "solver.prototxt: 482 k parameters; 1,000 iterations, about 10 seconds on two CPU cores; 2 snapshots of 7.71 MB"
    )


@pytest.mark.slow
@pytest.mark.parametrize("network", ["l1_siamese", "mnist_siamese"])  # Adam and SGD
def test_snapshots_are_as_large_as_announced(network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = start_project(network, tmp_path / "project", "digits:train").plans[-1]
    monkeypatch.chdir(tmp_path / "project")
    text = re.sub(r"\b(snapshot|max_iter|test_iter|test_interval): \d+", r"\1: 1", Path(plan.solver).read_text())
    Path(plan.solver).write_text(text)
    sp.Solver(plan.solver).solve()
    written = [path.stat().st_size for path in Path().glob("*_iter_1.*")]
    assert len(written) == 2
    assert sum(written) == pytest.approx(plan.snapshot_bytes, rel=0.01)


FULL_DISK = """
import errno, os, sys
from pathlib import Path
from siamese_proto.cli import main
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
main(["new", "l1_siamese", *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_no_half_project(exists: bool, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: solver.prototxt fits, train_test.prototxt does not."""
    if exists:
        (tmp_path / "project").mkdir()
    code = [sys.executable, "-c", FULL_DISK, str(tmp_path / "project")]
    done = subprocess.run(code, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"'{tmp_path}/project' cannot be written: File too large\n"
    assert [path.name for path in tmp_path.rglob("*")] == (["project"] if exists else [])


def test_an_empty_folder_keeps_its_permissions(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir(mode=0o750)
    start_project("l1_siamese", tmp_path / "project")
    assert (tmp_path / "project").stat().st_mode & 0o777 == 0o750
    assert sorted(os.listdir(tmp_path / "project")) == ["deploy.prototxt", "solver.prototxt", "train_test.prototxt"]


def test_a_folder_that_cannot_be_created_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NetError, match=r"x' cannot be written: File name too long"):
        start_project("l1_siamese", tmp_path / ("x" * 300))
