"""The order of steps in a run, what it records, and how it ends."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from solver_runs import tensors

from siamese_proto.errors import SolverError
from siamese_proto.net.net import Net
from siamese_proto.solver import Solver
from siamese_proto.solver.state import Losses
from siamese_proto.weights import read_state


def events(records: list[logging.LogRecord]) -> list[str]:
    """The steps of a run, in order: `test 0`, `train 0`, `snapshot 5`, ..."""
    steps = []
    for record in records:
        text = record.getMessage()
        for pattern, name in (
            (r"Iteration (\d+), Testing", "test"),
            (r"Iteration (\d+) \(", "train"),
            (r"Iteration (\d+), loss", "last"),
            (r"state to .*_iter_(\d+)\.", "snapshot"),
        ):
            if match := re.search(pattern, text):
                steps.append(f"{name} {match[1]}")
        if text.startswith("Optimization"):
            steps.append(text)
    return steps


def test_a_run_tests_displays_and_snapshots_in_caffes_order(write_run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    solver = Solver(write_run())
    solver.solve()
    assert events(caplog.records) == [
        *("test 0", "train 0", "train 2", "test 4", "train 4", "snapshot 5", "train 6", "test 8", "train 8"),
        *("snapshot 10", "train 10", "snapshot 12", "last 12", "test 12", "Optimization Done."),
    ]
    assert (solver.iteration, len(solver.losses), solver.stopped) == (12, 12, False)
    solver.close()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ["test 0", "train 0", "snapshot 4", "last 4", "test 4"]),
        ({"test_initialization": "false"}, ["train 0", "snapshot 4", "last 4", "test 4"]),
        ({"snapshot": 4}, ["test 0", "train 0", "snapshot 4", "last 4", "test 4"]),
        ({"snapshot_after_train": "false"}, ["test 0", "train 0", "last 4", "test 4"]),
        ({"display": 3}, ["test 0", "train 0", "train 3", "snapshot 4", "test 4"]),
        ({"display": None}, ["test 0", "snapshot 4", "test 4"]),
        ({"test_interval": 3}, ["test 0", "train 0", "test 3", "snapshot 4", "last 4"]),
    ],
    ids=str,
)
def test_settings_decide_which_steps_happen(
    write_run, caplog: pytest.LogCaptureFixture, fields: dict[str, object], expected: list[str]
) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    usual = {"max_iter": 4, "display": 4, "test_interval": 4, "snapshot": None}
    solver = Solver(write_run(**{**usual, **fields}))
    solver.solve()
    solver.close()
    assert events(caplog.records) == [*expected, "Optimization Done."]


def test_the_loss_of_an_iteration_is_recorded_before_its_update(write_run) -> None:
    solver = Solver(write_run(iter_size=1, weight_decay=0, test_iter=None, test_interval=None))
    before = tensors(solver)
    solver.step(1)
    (loss,) = solver.losses
    assert loss == pytest.approx(solver.net.loss(solver.outputs).item())
    for name, tensor in solver.net.tensors.items():
        param = next(param for param in solver.net.graph.params if param.id == name)
        expected = before[name] - 0.01 * param.lr_mult * tensor.grad
        torch.testing.assert_close(tensor.detach(), expected)
    solver.close()


def test_a_solver_without_max_iter_can_step_but_not_solve(write_run) -> None:
    solver = Solver(write_run(max_iter=None))
    solver.step(2)
    assert solver.iteration == 2
    with pytest.raises(SolverError, match=r"^.*solver\.prototxt:1: max_iter is missing: the number of iterations"):
        solver.solve()
    solver.close()


def test_test_nets_share_the_parameters_of_the_training_net(write_run) -> None:
    solver = Solver(write_run())
    (test_net,) = solver.test_nets
    for layer, blobs in solver.net.params.items():
        assert all(one is two for one, two in zip(blobs, test_net.params[layer], strict=True))
    solver.close()


def test_a_test_returns_the_mean_over_its_batches(write_run) -> None:
    solver = Solver(write_run())
    solver.step(1)
    net = Net("net.prototxt", share_with=solver.net)
    net.pull()  # the test at iteration 0 has read three batches; this net reads from the start
    net.close()
    batches = [net.pull() for _ in range(6)][3:]
    expected = np.mean([net(**batch)["loss"].item() for batch in batches])
    (scores,) = solver.test_all()
    assert scores["loss"].item() == pytest.approx(expected, rel=1e-6)
    net.close()
    solver.close()


def test_random_layers_know_the_iteration_and_the_pass(write_run) -> None:
    solver = Solver(write_run(iter_size=3))
    passes = []
    run = solver.net.run_state
    solver.net.register_forward_pre_hook(lambda net, args: passes.append((run.iteration, run.draw)))
    solver.step(2)
    assert passes == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    solver.close()


def test_the_same_seed_gives_the_same_run_and_another_seed_another(write_run) -> None:
    losses = []
    for seed in (3, 3, 4):
        solver = Solver(write_run(random_seed=seed))
        solver.step(3)
        losses.append(solver.losses)
        solver.close()
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


def test_nets_inside_the_solver_file_are_trained_and_tested(write_run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    write_run()
    net = Path("net.prototxt").read_text()
    Path("net.prototxt").unlink()
    Path("solver.prototxt").write_text(
        f"train_net_param {{ {net} }}\ntest_net_param {{ {net} }}\ntest_iter: 2 test_interval: 2 max_iter: 2\n"
        'base_lr: 0.01 lr_policy: "fixed" test_compute_loss: true snapshot_after_train: false'
    )
    solver = Solver("solver.prototxt")
    before = solver.net.params["hidden"][0].detach().clone()
    solver.solve()
    solver.close()
    assert not torch.equal(solver.net.params["hidden"][0], before)
    texts = [record.getMessage() for record in caplog.records]
    (total, scores), *_ = [(texts[i], texts[i + 1]) for i, text in enumerate(texts) if text.startswith("Test loss: ")]
    assert scores == f"    Test net output #0: loss = {total[11:]} (* 1 = {total[11:]} loss)"


def test_a_requested_stop_ends_the_run_with_a_snapshot(write_run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    solver = Solver(write_run(snapshot_after_train="false"))
    solver.callbacks.append(lambda solver: solver.request_stop() if solver.iteration == 3 else None)
    solver.solve()
    solver.close()
    assert (solver.iteration, solver.stopped) == (3, True)
    assert solver.last_snapshot == Path("snap_iter_3.solverstate")
    assert read_state(solver.last_snapshot).iteration == 3
    assert caplog.records[-1].getMessage() == "Optimization stopped early."


def test_a_stop_during_a_test_ends_it(write_run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    solver = Solver(write_run())
    solver.request_stop()
    solver.solve()
    solver.close()
    assert solver.iteration == 0
    assert "Test interrupted." in caplog.text
    assert "Test net output" not in caplog.text


def test_a_requested_snapshot_does_not_change_the_run(write_run) -> None:
    plain_run, requested = (
        Solver(write_run(random_seed=1)),
        Solver(write_run(random_seed=1, snapshot_prefix='"requested"')),
    )
    requested.callbacks.append(lambda solver: solver.request_snapshot() if solver.iteration == 3 else None)
    for solver in (plain_run, requested):
        solver.solve()
        solver.close()
    assert read_state("requested_iter_3.solverstate").iteration == 3
    assert requested.losses == plain_run.losses


def test_a_missing_gpu_is_warned_about_only_if_the_solver_names_it(
    write_run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for mode, warned in (("GPU", True), (None, False)):
        caplog.clear()
        solver = Solver(write_run(solver_mode=mode))
        assert ("solver_mode is GPU, but torch finds no GPU here; training on the CPU" in caplog.text) == warned
        solver.step(1)
        solver.close()


def test_losses_of_several_types_are_recorded() -> None:
    losses = Losses()
    for loss in (torch.tensor(1.0), torch.tensor(1e300, dtype=torch.float64), torch.tensor(0.5)):
        losses.append(loss)
    assert losses.floats() == [1.0, 1e300, 0.5]
    assert losses.first_not_finite() is None


def test_train_and_eval_called_in_between_do_not_change_a_run(write_run) -> None:
    """Training nets train and test nets evaluate, by their phases; the net has dropout."""
    runs = []
    for meddles in (False, True):
        solver = Solver(write_run(random_seed=1, snapshot_prefix=f'"run_{meddles}"'))
        if meddles:
            solver.callbacks.append(lambda solver: solver.net.eval() and solver.test_nets[0].train())
        scores: list[float] = []
        solver.test_callbacks.append(lambda solver, means, scores=scores: scores.append(means[0]["loss"].item()))
        solver.solve()
        solver.close()
        runs.append((solver.losses, scores))
    assert runs[0] == runs[1]
