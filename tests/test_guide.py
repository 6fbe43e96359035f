"""Every command of the guide is carried out, in its order; the training is cut short."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import paths
import pytest

ROOT = paths.ROOT
GUIDE = (ROOT / "docs" / "guide.md").read_text()


def commands() -> list[str]:
    return [line for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()]


def cut_short(solver: Path) -> None:
    solver.write_text(re.sub(r"(max_iter|snapshot|test_interval): \d+", r"\1: 12", solver.read_text()))


def test_every_command_of_the_guide_works(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    folder = tmp_path
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    assert len(commands()) > 12
    for command in commands():
        if command.startswith("cd "):
            folder /= command.removeprefix("cd ")
            cut_short(folder / "solver.prototxt")
            continue
        shorter = command.replace("iter_1000", "iter_12")
        done = subprocess.run(shorter, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    written = {"net.svg", "train.log", "curves.png", "judged.json", "judged.png", "pair.png", "features.npz", "twin.py"}
    assert all((folder / name).stat().st_size > 500 for name in written | {"features.png", "found.png"})
    assert 0 <= json.loads((folder / "judged.json").read_text())["judgement"]["verdicts"]["auc"] <= 1


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_the_documentation_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []
