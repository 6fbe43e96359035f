"""siamese-proto plot: the file determines what is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import run
from click.testing import CliRunner

from siamese_proto.cli import main

LOG = "\n".join(
    f"I1122 00:00:0{n}.000000  7 solver.cpp:228] Iteration {100 * n}, loss = {1 / (n + 1)}" for n in range(5)
)


def test_a_log_is_drawn_as_curves_with_its_title(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text(LOG)
    done = CliRunner().invoke(main, ["plot", str(tmp_path / "train.log"), str(tmp_path / "c.svg"), "--title", "a $run"])
    assert (done.exit_code, done.output) == (0, "")
    assert (tmp_path / "c.svg").read_bytes().startswith(b"<?xml")


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text(LOG)
    done = CliRunner().invoke(main, ["plot", str(tmp_path / "train.log"), str(tmp_path / "c.png"), "--what", "roc"])
    assert done.exit_code == 1
    assert "is not JSON" in done.stderr
    assert not (tmp_path / "c.png").exists()


@pytest.mark.slow
def test_a_log_with_a_damaged_line_is_drawn_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text(LOG + "\nIteration 900, loss = 0.0.0\n")
    done = run("plot", "train.log", "c.svg", folder=tmp_path)
    assert done.returncode == 0
    assert done.stderr == (
        "warning: train.log:6: 'Iteration 900, loss = 0.0.0' looks like a result but cannot be read; "
        "lines of this kind that are left out: 1\n"
    )
    assert (tmp_path / "c.svg").exists()
