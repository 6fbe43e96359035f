"""`--layers FILE` and Python layers on the command line; the examples of docs/custom_layers.md are what is run."""

from __future__ import annotations

import re
from pathlib import Path

import paths
import pytest
from cli_runner import run
from problem_lines import problem_lines

GUIDE = (paths.ROOT / "docs" / "custom_layers.md").read_text()
TRAINED = """
layer {{ name: "d" type: "DummyData" top: "x" dummy_data_param {{ shape {{ dim: 4 dim: 5 }} data_filler {{
  type: "gaussian" }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "score" inner_product_param {{ num_output: 3
  weight_filler {{ type: "xavier" }} }} }}
layer {{ {loss} bottom: "score" top: "loss" }}
"""
SOLVER = 'net: "trained.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 2 snapshot_prefix: "s" random_seed: 1'
FOCAL = 'name: "loss" type: "FocalLoss" focal_param { gamma: 1.5 reduction: SUM }'
PYTHON = 'name: "loss" type: "Python" python_param { module: "half" layer: "Half" } loss_weight: 1'
HALF = """
import caffe

open("it_ran", "w").close()

class Half(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(1)
    def forward(self, bottom, top): top[0].data[...] = bottom[0].data.sum() / 2
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = top[0].diff / 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "focal.py").write_text(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)[0])
    (tmp_path / "net.prototxt").write_text(re.findall(r"```prototxt\n(.*?)```", GUIDE, re.DOTALL)[0])
    (tmp_path / "trained.prototxt").write_text(TRAINED.format(loss=FOCAL))
    (tmp_path / "python.prototxt").write_text(TRAINED.format(loss=PYTHON))
    (tmp_path / "half.py").write_text(HALF)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


@pytest.mark.slow
def test_the_commands_of_the_guide_work(folder: Path) -> None:
    commands = re.findall(r"^    siamese-proto (.* --layers .*)$", GUIDE, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        done = run(*command.split(), folder=folder)
        assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "net.svg").stat().st_size > 500


def test_without_its_file_a_layer_is_unknown(folder: Path) -> None:
    done = run("check", "net.prototxt", folder=folder)
    assert done.returncode == 1
    assert "unknown layer type 'FocalLoss'" in done.stdout
    assert "focal_param" not in done.stdout  # its fields are unknown because the layer is


@pytest.mark.slow
def test_a_net_with_custom_layers_is_summarized_trained_and_tested(folder: Path) -> None:
    done = run("summary", "trained.prototxt", "--layers", "focal.py", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "FocalLoss" in done.stdout
    done = run("train", "--solver", "solver.prototxt", "--layers", "focal.py", folder=folder)
    assert done.returncode == 0, done.stderr
    model = ("--model", "trained.prototxt", "--weights", "s_iter_2.caffemodel", "--iterations", "1")
    done = run("test", *model, "--layers", "focal.py", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "loss = " in done.stdout


@pytest.mark.parametrize("command", ["train", "test", "draw", "summary", "check", "port", "deploy"])
def test_every_command_that_builds_nets_documents_that_the_file_is_run(command: str) -> None:
    text = " ".join(run(command, "--help").stdout.split())
    assert "--layers FILE" in text
    assert "Its code runs with your rights" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = 1 / 0\n", "layer file 'bad.py' failed: ZeroDivisionError: division by zero ({file}:2)\n"),
        ("def f(:\n", "layer file 'bad.py' failed: SyntaxError: invalid syntax (bad.py, line 1) ({file}:1)\n"),
        (None, "layer file 'bad.py' does not exist\n"),
    ],
)
def test_a_file_of_layers_that_fails_is_one_line(folder: Path, text: str | None, message: str) -> None:
    if text is not None:
        (folder / "bad.py").write_text(text)
    done = run("check", "net.prototxt", "--layers", "bad.py", folder=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.replace("(bad.py, line 1) ", "") == message.replace("(bad.py, line 1) ", "").format(
        file=(folder / "bad.py").resolve()
    )


@pytest.mark.slow
def test_python_layers_are_shown_and_not_run_unless_allowed(folder: Path) -> None:
    solver = folder / "solver.prototxt"
    solver.write_text(SOLVER.replace("trained", "python"))
    for command in (["check", "python.prototxt"], ["summary", "python.prototxt"], ["draw", "python.prototxt", "x.svg"]):
        done = run(*command, folder=folder)
        assert done.returncode == 0, done.stderr
    done = run("train", "--solver", "solver.prototxt", folder=folder)
    assert done.returncode == 1
    assert problem_lines(done.stderr)[-1] == (
        "python.prototxt:6: layer 'loss': the Python layer 'half.Half' is user code, which does not run "
        "without permission; allow it with allow_python_layers=True, or --allow-python-layers, if you trust it"
    )
    assert not (folder / "it_ran").exists()
    done = run("summary", "python.prototxt", "--allow-python-layers", "--format", "csv", folder=folder)
    assert done.returncode == 0, done.stderr
    assert "half.Half" in done.stdout.splitlines()[3]
    assert (folder / "it_ran").exists()
    done = run("train", "--solver", "solver.prototxt", "--allow-python-layers", folder=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "it_ran").exists()
