"""Runs of the small twin."""

import shutil
from pathlib import Path

import paths
import pytest
from small_twin import NET, SOLVER, WriteRun

GOLDEN = paths.GOLDEN


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteRun:
    """Write net, solver and pairs to the working directory; `fields` replace those of the solver."""
    monkeypatch.chdir(tmp_path)
    for database in ("pairs_leveldb", "pairs_lmdb"):
        shutil.copytree(GOLDEN / "flagship" / database, tmp_path / database)

    def write(net: str = NET, **fields: object) -> Path:
        text = SOLVER
        for name, value in fields.items():
            lines = [part for part in _fields(text) if part.split(":")[0] != name]
            text = "\n".join(lines if value is None else [*lines, f"{name}: {value}"])
        (tmp_path / "net.prototxt").write_text(net)
        (tmp_path / "solver.prototxt").write_text(text + "\n")
        return tmp_path / "solver.prototxt"

    return write


def _fields(text: str) -> list[str]:
    words = text.split()
    return [f"{name} {value}" for name, value in zip(words[::2], words[1::2], strict=True)]
