"""The commands train and test, as a user runs them."""

import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paths
import pytest
from click.testing import CliRunner, Result
from problem_lines import problem_lines

from siamese_proto.cli import main
from siamese_proto.cli.train import answering_signals
from siamese_proto.solver import Solver
from siamese_proto.weights import read_state, read_weights

GOLDEN = paths.GOLDEN / "flagship"
NET = """
name: "tiny"
layer { name: "pairs" type: "Data" top: "pair" top: "sim" transform_param { scale: 0.00390625 }
  data_param { source: "pairs_lmdb" batch_size: 5 backend: LMDB } }
layer { name: "slice" type: "Slice" bottom: "pair" top: "data" top: "data_p" slice_param { axis: 1 } }
layer { name: "feat" type: "InnerProduct" bottom: "data" top: "feat" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "feat_p" type: "InnerProduct" bottom: "data_p" top: "feat_p" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "ContrastiveLoss" bottom: "feat" bottom: "feat_p" bottom: "sim" top: "loss" }
layer { name: "staged" type: "Power" bottom: "sim" top: "staged" include { stage: "extra" min_level: 2 } }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 max_iter: 6 display: 2 snapshot_prefix: "snap"
random_seed: 3 solver_mode: CPU
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(GOLDEN / "pairs_lmdb", "pairs_lmdb")
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def train(*arguments: str) -> Result:
    return run("train", "--solver", "solver.prototxt", *arguments)


def test_train_logs_as_caffe_does() -> None:
    result = train()
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert re.match(r"I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ solver\.cpp:45\] Initializing solver", lines[0])
    assert re.search(r"solver\.cpp:239\] Iteration 4 \(\S+ iter/s, \S+s/2 iters\), loss = \d", result.stderr)
    assert lines[-1].endswith("] Optimization Done.")
    assert read_state("snap_iter_6.solverstate").iteration == 6


@pytest.mark.parametrize(
    "arguments",
    [
        ("-solver", "solver.prototxt", "-sigint_effect", "none"),
        ("--solver=solver.prototxt", "--sighup_effect=stop"),
        ("-solver=solver.prototxt", "--sigint-effect", "snapshot", "-level", "0"),
    ],
    ids=" ".join,
)
def test_flags_have_several_spellings(arguments: tuple[str, ...]) -> None:
    result = run("train", *arguments)
    assert result.exit_code == 0, result.output


def test_a_log_file_gets_the_lines_with_prefix_at_its_end() -> None:
    for _ in range(2):
        assert train("--log", "run.log").exit_code == 0
    text = Path("run.log").read_text()
    assert len(re.findall(r"^I\d{4} .*\] Solving tiny$", text, re.MULTILINE)) == 2


def test_snapshot_resumes_a_run() -> None:
    Path("solver.prototxt").write_text(SOLVER.replace("max_iter: 6", "max_iter: 4"))
    assert train().exit_code == 0
    Path("solver.prototxt").write_text(SOLVER)
    result = train("--snapshot", "snap_iter_4.solverstate")
    assert result.exit_code == 0, result.output
    assert "Iteration 4 (" in result.stderr
    assert "Iteration 2 (" not in result.stderr
    assert read_state("snap_iter_6.solverstate").iteration == 6


def test_weights_of_several_files_are_loaded() -> None:
    assert train().exit_code == 0
    shutil.copy("snap_iter_6.caffemodel", "begin.caffemodel")
    Path("solver.prototxt").write_text(SOLVER.replace("base_lr: 0.01", "base_lr: 0").replace("seed: 3", "seed: 4"))
    assert train("--weights", "begin.caffemodel, begin.caffemodel").exit_code == 0
    blobs = [
        {layer.name: [np.asarray(blob) for blob in layer.blobs] for layer in read_weights(name).layers}["feat"]
        for name in ("begin.caffemodel", "snap_iter_6.caffemodel")
    ]
    assert all(np.array_equal(one, two) for one, two in zip(*blobs, strict=True))


def test_level_and_stage_select_layers_of_the_training_net() -> None:
    assert "staged" not in train("--stage", "other,extra").stderr
    result = train("--stage", "other,extra", "--level", "2")
    assert "    Train net output #1: staged = 1" in result.stderr or "#1: staged = 0" in result.stderr


def test_weights_and_snapshot_together_are_wrong_usage() -> None:
    result = train("--weights", "a", "--snapshot", "b")
    assert result.exit_code == 2
    assert "--weights and --snapshot exclude each other" in result.stderr


def test_auto_resumes_from_the_newest_snapshot_or_starts_with_the_weights() -> None:
    assert "No complete snapshot of snap exists; starting from iteration 0" in train("--snapshot", "auto").stderr
    shutil.copy("snap_iter_6.caffemodel", "begin.caffemodel")
    Path("solver.prototxt").write_text(SOLVER.replace("max_iter: 6", "max_iter: 8"))
    result = train("--snapshot", "auto", "--weights", "begin.caffemodel")
    assert result.exit_code == 0, result.output
    assert "Resuming from snap_iter_6.solverstate" in result.stderr
    assert "Finetuning from" not in result.stderr
    for name in ("snap_iter_6.solverstate", "snap_iter_8.solverstate"):
        Path(name).unlink()
    assert "Finetuning from begin.caffemodel" in train("--snapshot", "auto", "--weights", "begin.caffemodel").stderr


def test_the_last_and_the_best_are_kept_and_events_written() -> None:
    if not os.environ.get("CI"):
        pytest.importorskip("tensorboard")
    Path("solver.prototxt").write_text(SOLVER + "snapshot: 1 test_iter: 2 test_interval: 2")
    result = train("--keep", "2", "--keep-best", "loss", "--tensorboard", "events")
    assert result.exit_code == 0, result.output
    assert sorted(str(path) for path in Path().glob("snap*.solverstate")) == [
        "snap_best.solverstate",
        "snap_iter_5.solverstate",
        "snap_iter_6.solverstate",
    ]
    assert list(Path("events").iterdir())


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--keep-best", "accuracy"), 1, "no test net has an output 'accuracy' to keep the best by"),
        (("--keep", "0"), 2, "0 is not in the range x>=1"),
    ],
)
def test_invalid_keep_options_are_errors_before_training(arguments: tuple[str, ...], status: int, message: str) -> None:
    Path("solver.prototxt").write_text(SOLVER + "test_iter: 2 test_interval: 2")
    result = train(*arguments)
    assert result.exit_code == status
    assert message in result.stderr.replace("\n", " ")
    assert "Traceback" not in result.output
    assert not list(Path().glob("snap*"))


def test_a_missing_flag_is_wrong_usage() -> None:
    result = run("train")
    assert result.exit_code == 2
    assert "--solver" in result.stderr


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        (SOLVER + "momentun: 1", "solver.prototxt:4: unknown field 'momentun'; did you mean 'momentum'?"),
        (SOLVER.replace("net.prototxt", "nett.prototxt"), "solver.prototxt:2: net file 'nett.prototxt' not found"),
        (
            SOLVER.replace('"snap"', '"gone/snap"'),
            "the folder for snapshots, 'gone', does not exist; create the folder",
        ),
    ],
    ids=["field", "net", "folder"],
)
def test_an_error_in_a_file_is_one_line_and_exit_status_1(solver: str, message: str) -> None:
    Path("solver.prototxt").write_text(solver)
    result = train()
    assert result.exit_code == 1
    assert message in problem_lines(result.stderr)[-1]
    assert "Traceback" not in result.output


def test_a_missing_solver_file_is_one_error_line() -> None:
    result = run("train", "--solver", "gone.prototxt")
    assert result.exit_code == 1
    assert "gone.prototxt" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_writes_a_snapshot_and_stops(ended_by: signal.Signals) -> None:
    Path("solver.prototxt").write_text(SOLVER.replace("max_iter: 6", "max_iter: 1000000"))
    code = "from siamese_proto.cli import main; main()"
    command = [sys.executable, "-c", code, "train", "--solver", "solver.prototxt"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "Iteration 2 (" in line:
                process.send_signal(signal.SIGHUP)
            if "solverstate" in line and "Snapshotting" in line:
                break
        time.sleep(0.1)  # so that the iterations of both snapshots differ
        process.send_signal(ended_by)
        lines += process.stderr.readlines()
    assert process.returncode == 128 + ended_by
    assert "Optimization stopped early." in "".join(lines)
    assert "Traceback" not in "".join(lines)
    pattern = r"stopped at iteration (\d+); continue with --snapshot (snap_iter_\1.solverstate)\n"
    stopped = re.fullmatch(pattern, lines[-1])
    assert stopped
    assert read_state(stopped[2]).iteration == int(stopped[1])
    assert len(list(Path().glob("snap_iter_*.solverstate"))) == 2  # the hang-up wrote one and did not stop


def test_a_second_ctrl_c_stops_immediately() -> None:
    solver = Solver("solver.prototxt")
    before = signal.getsignal(signal.SIGINT)
    with answering_signals(solver, "stop", "none"):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGINT)
        solver.step(5)
        assert (solver.iteration, solver.stopped) == (1, True)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    solver.close()


@pytest.mark.slow
def test_a_terminal_shows_a_bar_instead_of_training_lines() -> None:
    ours, theirs = pty.openpty()
    code = "from siamese_proto.cli import main; main()"
    command = [sys.executable, "-c", code, "train", "--solver", "solver.prototxt", "--log", "run.log"]
    with subprocess.Popen(command, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "120"}) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # on Linux, reading a closed terminal is an error
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "iteration 6/6" in text
    assert re.search(r"loss 0\.\d+", text)
    assert "Snapshotting solver state to binary proto file snap_iter_6.solverstate" in text
    assert "Train net output" not in text
    assert "Train net output" in Path("run.log").read_text()


def test_test_prints_batches_and_means_as_caffe_does() -> None:
    assert train().exit_code == 0
    result = run("test", "-model", "net.prototxt", "-weights", "snap_iter_6.caffemodel", "-iterations", "3")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "Running for 3 iterations."
    batches = [float(re.fullmatch(rf"Batch {index}, loss = (\S+)", lines[1 + index])[1]) for index in range(3)]
    mean = float(re.fullmatch(r"Loss: (\S+)", lines[4])[1])
    assert mean == pytest.approx(sum(batches) / 3, rel=1e-5)
    assert lines[5:] == [f"loss = {mean:g} (* 1 = {mean:g} loss)"]


def test_test_reproduces_the_scores_of_weights_trained_by_caffe() -> None:
    shutil.copytree(GOLDEN, "flagship")
    result = run(
        *("test", "--model", "flagship/net.prototxt", "--weights", "flagship/snap_iter_100.caffemodel"),
        *("--iterations", "6", "--log", "test.log"),
    )
    assert result.exit_code == 0, result.output
    # Caffe's training log of this run has no test at iteration 100; the loss of the 600 pairs is near that of training.
    loss = float(re.search(r"^Loss: (\S+)$", result.stdout, re.MULTILINE)[1])
    assert 0.005 < loss < 0.03
    assert re.search(r"^I\d{4} .* caffe\.cpp:309\] Loss: ", Path("test.log").read_text(), re.MULTILINE)


def test_test_needs_matching_weights() -> None:
    result = run("test", "--model", "net.prototxt", "--weights", str(GOLDEN / "init.caffemodel"))
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
