"""Every command and program of the README, the tour and the guide runs, in order, in a copy of a new checkout.

Trainings after the first are cut to a few iterations.
"""

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
README, TOUR, GUIDE = (
    (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/tour.md", "docs/guide.md")
)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
# These have been run before the tests; pytest runs this test itself.
SET_UP = re.compile(r'python -m pip install -c constraints\.txt -e "\.\[[a-z,]+\]" && ')
RUNNING_NOW = "python -m pytest"
SHORTER = {"iter_1000": "iter_12", "iter_500": "iter_6"}


def commands(text: str) -> list[str]:
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [command for line in lines if (command := SET_UP.sub("", line)) != RUNNING_NOW]


def programs(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def shortened(text: str) -> str:
    for name, shorter in SHORTER.items():
        text = text.replace(name, shorter)
    return text


def cut_short(solver: Path) -> None:
    text = re.sub(r"(max_iter|test_interval): \d+", r"\1: 12", solver.read_text())
    solver.write_text(re.sub(r"snapshot: \d+", "snapshot: 6", text))


def run(command: str | list[str], folder: Path) -> None:
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    shell = isinstance(command, str)
    done = subprocess.run(command, shell=shell, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stderr}"


def check_written(folder: Path, *names: str) -> None:
    assert [name for name in names if (folder / name).stat().st_size <= 500] == []


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    for name in ("prototxt", "tools"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def test_the_readme_is_short_and_has_a_command_that_trains_and_one_that_tests() -> None:
    assert len(SET_UP.findall(README)) == 2
    assert len(README.splitlines()) <= 120


@pytest.mark.slow
def test_every_command_of_the_readme_and_the_tour_works(clone: Path) -> None:
    first, *others = commands(README)
    assert first == "python tools/train_mnist_siamese.py"
    run(first, clone)
    pictures = [f"runs/mnist_siamese/{name}" for name in ("features.png", "mnist_siamese.svg", "pairs.png")]
    check_written(clone, *pictures)
    cut_short(clone / "prototxt/mnist_siamese/solver_quick.prototxt")
    assert len(others) > 5
    assert len(commands(TOUR)) > 15
    for command in [*others, *commands(TOUR)]:
        run(shortened(command), clone)
    check_written(
        clone, "twin.svg", "pairs.png", "twin.png", "tower.svg", "train.log", "upgraded.prototxt", "twin.html"
    )
    check_written(clone, "judged.png", "judged.json", "features.npz", "features.png", "my_triplets/train_test.prototxt")
    check_written(clone, "curves.png", "tower.prototxt", "tower.py", "tower.safetensors", "twin.safetensors")
    assert len(programs(README)) == len(programs(TOUR)) == 1
    for program in [*programs(README), *programs(TOUR)]:
        run([sys.executable, "-c", shortened(program)], clone)


@pytest.mark.slow
def test_every_command_of_the_guide_works(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    folder = tmp_path
    assert len(commands(GUIDE)) > 12
    for command in commands(GUIDE):
        if command.startswith("cd "):
            folder /= command.removeprefix("cd ")
            cut_short(folder / "solver.prototxt")
        else:
            run(shortened(command), folder)
    check_written(folder, "net.svg", "train.log", "curves.png", "judged.json", "judged.png", "pair.png", "features.npz")
    check_written(folder, "twin.py", "features.png", "found.png")
    assert 0 <= json.loads((folder / "judged.json").read_text())["judgement"]["verdicts"]["auc"] <= 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_of_the_documentation_is_broken(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_tour_names_every_layer_that_runs() -> None:
    code = "import siamese_proto; from siamese_proto.layers.base import registered; print(*registered())"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert len(names) > 60
    assert [name for name in names if not re.search(rf"\b{name}\b", TOUR)] == []
