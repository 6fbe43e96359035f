"""Every update rule and policy against 40 iterations of real Caffe, from the start and from Caffe's own snapshots."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import paths
import pytest

from siamese_proto.errors import SolverError
from siamese_proto.solver import Solver
from siamese_proto.weights import StoredState, read_state, write_state

GOLDEN = paths.GOLDEN / "solver"
CASES = sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir())


@pytest.fixture(autouse=True)
def _beside_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(GOLDEN, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def make_solver(case: str, **how: Any) -> Solver:
    return Solver(Path(case) / "solver.prototxt", **how)


def follow(solver: Solver, case: str) -> None:
    """Train to iteration 40 and compare every loss and the parameters of iterations 10, 20 and 40."""
    expected = np.load(GOLDEN / case / "trajectory.npz")
    while solver.iteration < 40:
        solver.step(1)
        assert solver.outputs["loss"].item() == pytest.approx(expected["loss"][solver.iteration - 1], abs=1e-6)
        for key in expected.files:
            iteration, layer, index = key.split("/") if "/" in key else ("", "", "")
            if iteration == f"iter{solver.iteration}":
                values = solver.net.params[layer][int(index)].detach().numpy()
                np.testing.assert_allclose(values, expected[key], rtol=0, atol=2e-6, err_msg=key)
    solver.close()


def test_the_folder_holds_all_cases() -> None:
    assert len(CASES) == 13


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "one by one"])
@pytest.mark.parametrize("case", CASES)
def test_training_from_the_start_follows_caffe(case: str, fuse: bool) -> None:
    # The bias of feat has a gradient of exactly zero: fused towers must keep it, or Adam and RMSProp diverge.
    follow(make_solver(case, weights="init.caffemodel", fuse=fuse), case)


@pytest.mark.parametrize(
    ("case", "file"),
    [(case, path.name) for case in CASES for path in sorted((GOLDEN / case).iterdir()) if ".solverstate" in path.name],
)
def test_training_resumed_from_a_snapshot_of_caffe_follows_caffe(case: str, file: str) -> None:
    # A snapshot of Caffe does not store the position of the data; here 20 iterations end with the last record.
    follow(make_solver(case, snapshot=Path(case) / file), case)


@pytest.mark.parametrize("sharers", ["equal", "empty", "apart"])
@pytest.mark.parametrize("case", ["sgd_fixed", "nesterov", "adagrad", "rmsprop", "adam", "adadelta"])
def test_a_snapshot_with_a_history_for_every_use_is_resumed(
    case: str, sharers: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="siamese_proto.solver")
    state = read_state(Path(case) / "snap_iter_20.solverstate")
    runs = [state.history[first : first + 4] for first in range(0, len(state.history), 4)]
    # The histories of the four owners come first in this net. Caffe 1.0 has the sum over the uses.
    share = np.float32({"equal": 0.5, "empty": 0.0, "apart": 0.25}[sharers])
    history = [
        array for run in runs for array in (*(array * (1 - share) for array in run), *(array * share for array in run))
    ]
    path = Path(case) / "old.solverstate"
    write_state(path, StoredState(20, state.learned_net, state.current_step, tuple(history)))
    follow(make_solver(case, snapshot=path), case)
    assert f"{path}: has a history for every use of a shared parameter, as older versions of Caffe" in caplog.text


@pytest.mark.parametrize(
    ("case", "other", "message"),
    [
        ("sgd_fixed", "adam", "the solver state holds 8 histories, but SGD over this net has 4; it was written for "),
        ("nesterov", "adadelta", "the solver state holds 8 histories, but Nesterov over this net has 4; it was "),
        ("adam", "sgd_fixed", "the solver state holds 4 histories, but Adam over this net has 8; it was written for "),
        (
            "adagrad",
            "sgd_fixed",
            "the solver state has negative numbers where AdaGrad has squares; it was written by ",
        ),
        ("rmsprop", "adam", "the solver state has negative numbers where RMSProp has squares; it was written by "),
        ("sgd_fixed", "adagrad", "the solver state has only squares where SGD has none; it was written by another "),
        ("nesterov", "rmsprop", "the solver state has only squares where Nesterov has none; it was written by "),
        ("adam", "adadelta", "the solver state has only squares where Adam has none; it was written by another "),
        ("adadelta", "adam", "the solver state has negative numbers where AdaDelta has squares; it was written by "),
    ],
)
def test_a_state_of_another_update_rule_of_caffe_is_refused(case: str, other: str, message: str) -> None:
    path = Path(other) / "snap_iter_20.solverstate"
    with pytest.raises(SolverError) as caught:
        make_solver(case, snapshot=path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_the_recorded_loss_is_the_mean_of_the_accumulated_passes() -> None:
    solver = make_solver("sgd_iter_size", weights="init.caffemodel")
    solver.step(1)
    once = make_solver("sgd_fixed", weights="init.caffemodel")
    passes = [once.net.loss(once.net()).item() for _ in range(3)]
    assert solver.losses == pytest.approx([sum(passes) / 3], rel=1e-6)
    solver.close()
    once.close()
