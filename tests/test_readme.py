"""Every command of the README is carried out, in its order, in a copy of what a newcomer has."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import paths
import pytest

ROOT = paths.ROOT
README = (ROOT / "README.md").read_text()
# What stands before && in these is setting up, which has happened where tests run; pytest runs this very test.
SET_UP = re.compile(r"python -m pip install -c constraints\.txt -e (\.|\"\.\[test\]\") && ")
RUNNING_NOW = "python -m pytest"


def commands() -> list[str]:
    lines = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    return [command for line in lines if (command := SET_UP.sub("", line)) != RUNNING_NOW]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    for name in ("prototxt", "tools"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def test_the_readme_has_commands_that_set_up_and_then_train_or_test() -> None:
    assert len(SET_UP.findall(README)) == 2
    assert len(commands()) >= 10


def test_every_command_of_the_readme_works(clone: Path) -> None:
    search = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    for command in commands():
        done = subprocess.run(
            command, shell=True, cwd=clone, env={"PATH": search, "LC_ALL": "C.UTF-8"}, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    written = {"pairs.png", "twin.png", "tower.svg", "train.log", "upgraded.prototxt"}
    written |= {"twin.html", "judged.png", "judged.json", "features.npz", "features.png"}
    written |= {"my_triplets/train_test.prototxt"}
    written |= {"curves.png", "tower.prototxt", "tower.py", "tower.safetensors", "twin.safetensors"}
    written |= {f"runs/mnist_siamese/{name}" for name in ("features.png", "mnist_siamese.svg", "pairs.png")}
    assert all((clone / name).stat().st_size > 500 for name in written)
    (script,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    subprocess.run([sys.executable, "-c", script], cwd=clone, check=True, capture_output=True)


def test_every_link_of_the_readme_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_the_readme_names_every_layer_that_runs() -> None:
    from siamese_proto.layers.base import registered

    assert [name for name in registered() if not re.search(rf"\b{name}\b", README)] == []
