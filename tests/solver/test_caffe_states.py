"""Runs that continue from solver states of current and old versions of Caffe."""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from siamese_proto.errors import NetError
from siamese_proto.solver import Solver
from siamese_proto.weights import StoredState, read_state, write_state

READER = """
layer { name: "read" type: "HDF5Data" top: "x" top: "y" include { phase: %s }
  hdf5_data_param { source: "list.txt" batch_size: 2 } }
"""
LINE = """
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
layer { name: "mean" type: "Reduction" bottom: "x" top: "mean" include { phase: TEST }
  reduction_param { operation: MEAN } }
"""
SETTINGS = """net: "net.prototxt" base_lr: 0.001 lr_policy: "fixed" max_iter: 6 snapshot: 4 snapshot_prefix: "snap"
test_iter: 1 test_interval: 1
"""


@pytest.fixture
def counting_run(in_tmp: Path) -> Path:
    """A run over x = 0..9, two per batch, with a snapshot at iteration 4."""
    with h5py.File("numbers.h5", "w") as file:
        file["x"] = np.arange(10, dtype=np.float32).reshape(10, 1)
        file["y"] = np.ones((10, 1), np.float32)
    Path("list.txt").write_text("numbers.h5\n")
    Path("net.prototxt").write_text(READER % "TRAIN" + READER.replace('"read"', '"read_test"') % "TEST" + LINE)
    Path("solver.prototxt").write_text(SETTINGS)
    solver = Solver("solver.prototxt")
    solver.step(4)
    solver.close()
    return in_tmp


def means_of_tests(snapshot: str) -> list[float]:
    """The mean of x over each test of a run that is resumed at iteration 4."""
    solver = Solver("solver.prototxt", snapshot=snapshot)
    means: list[float] = []
    solver.test_callbacks.append(lambda _, scores: means.append(scores[0]["mean"].item()))
    solver.solve()
    solver.close()
    return means


def test_test_nets_start_at_the_first_record_after_a_state_of_caffe(counting_run: Path) -> None:
    state = read_state("snap_iter_4.solverstate")
    write_state("caffe.solverstate", StoredState(4, state.learned_net, 0, state.history, None))
    assert means_of_tests("caffe.solverstate") == [0.5, 2.5, 4.5]  # as real Caffe prints them
    # after four tests, our run is at the fifth of five batches
    assert means_of_tests("snap_iter_4.solverstate") == [8.5, 0.5, 2.5]


def test_the_training_net_starts_at_the_first_record_after_a_state_of_caffe(counting_run: Path) -> None:
    state = read_state("snap_iter_4.solverstate")
    write_state("caffe.solverstate", StoredState(4, state.learned_net, 0, state.history, None))
    for snapshot, first in (("caffe.solverstate", [0, 1]), ("snap_iter_4.solverstate", [8, 9])):
        solver = Solver("solver.prototxt", snapshot=snapshot)
        assert solver.batches.next_batch()["x"].flatten().tolist() == first
        solver.close()


TWIN = """
layer { name: "in" type: "Input" top: "x" top: "x_p" top: "y" top: "y_p" input_param {
  shape { dim: 5 dim: 3 } shape { dim: 5 dim: 3 } shape { dim: 5 dim: 4 } shape { dim: 5 dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" param { name: "w" } param { name: "b" lr_mult: 2 }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "ip_p" type: "InnerProduct" bottom: "x_p" top: "ip_p" param { name: "w" } param { name: "b" lr_mult: 2 }
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
layer { name: "loss_p" type: "EuclideanLoss" bottom: "ip_p" bottom: "y_p" top: "loss_p" }
"""
MOMENTUM = 0.8


class TwoCopies:
    """A twin as Caffe trained it before 2015: every copy has a history, and all copies move by the sum of the steps."""

    def __init__(self, rule: str, weight: np.ndarray, bias: np.ndarray) -> None:
        self.rule = rule
        self.params = [weight.astype(np.float64), bias.astype(np.float64)]
        self.histories = [[np.zeros_like(param) for param in self.params] for _ in range(2)]

    def step(self, batch: dict[str, np.ndarray], rate: float) -> None:
        weight, bias = self.params
        steps = [np.zeros_like(param) for param in self.params]
        for history, (x, y) in zip(self.histories, (("x", "y"), ("x_p", "y_p")), strict=True):
            error = (batch[x] @ weight.T + bias - batch[y]) / len(batch[x])  # (N, 4)
            for index, (gradient, rate_here) in enumerate(((error.T @ batch[x], rate), (error.sum(0), 2 * rate))):
                before = history[index]
                history[index] = MOMENTUM * before + rate_here * gradient
                ahead = (1 + MOMENTUM) * history[index] - MOMENTUM * before
                steps[index] += ahead if self.rule == "Nesterov" else history[index]
        self.params = [param - step for param, step in zip(self.params, steps, strict=True)]


def twin_batches(count: int) -> list[dict[str, np.ndarray]]:
    draw = np.random.default_rng(8)
    return [
        {name: draw.normal(size=(5, size)).astype(np.float32) for name, size in zip(NAMES, (3, 3, 4, 4), strict=True)}
        for _ in range(count)
    ]


NAMES = ("x", "x_p", "y", "y_p")


def resumed_from_copies(old: TwoCopies, iteration: int, rule: str, batches: list[dict[str, np.ndarray]]) -> Solver:
    """Our solver, resumed from a state as old Caffe would have written it."""
    Path("twin.prototxt").write_text(TWIN)
    momentum = MOMENTUM if rule in ("SGD", "Nesterov") else 0
    Path("twin_solver.prototxt").write_text(
        'net: "twin.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 7 snapshot_prefix: "s" '
        f'type: "{rule}" momentum: {momentum}'
    )
    solver = Solver("twin_solver.prototxt", data={"in": batches})
    for tensor, value in zip(solver.net.tensors.values(), old.params, strict=True):
        tensor.detach().copy_(torch.from_numpy(value))
    solver.net.save_weights("old.caffemodel")
    histories = tuple(array.astype(np.float32) for history in old.histories for array in history)
    write_state("old.solverstate", StoredState(iteration, "old.caffemodel", 0, histories, None))
    for tensor in solver.net.tensors.values():
        tensor.detach().zero_()
    solver.restore("old.solverstate")
    return solver


@pytest.mark.parametrize("rule", ["SGD", "Nesterov"])
def test_a_run_resumed_from_a_history_of_every_copy_equals_the_run_with_copies(in_tmp: Path, rule: str) -> None:
    before, after = twin_batches(7)[:4], twin_batches(7)[4:]
    draw = np.random.default_rng(2)
    old = TwoCopies(rule, draw.normal(size=(4, 3)), draw.normal(size=4))
    for batch in before:
        old.step(batch, 0.1)
    assert not np.allclose(old.histories[0][0], old.histories[1][0])
    solver = resumed_from_copies(old, 4, rule, after)
    for batch in after:
        old.step(batch, 0.1)
        solver.step(1)
        for tensor, expected in zip(solver.net.tensors.values(), old.params, strict=True):
            np.testing.assert_allclose(tensor.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("rule", "is_exact"), [("SGD", True), ("Nesterov", True), ("AdaGrad", False)])
def test_the_log_says_whether_a_sum_of_histories_is_an_estimate(
    in_tmp: Path, caplog: pytest.LogCaptureFixture, rule: str, is_exact: bool
) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    old = TwoCopies(rule, np.ones((4, 3)), np.ones(4))
    half = -0.5 if is_exact else 0.5  # squares are never negative
    old.histories = [[np.full((4, 3), 1.0), np.full(4, 2.0)], [np.full((4, 3), 4.0), np.full(4, half)]]
    solver = resumed_from_copies(old, 4, rule, twin_batches(1))
    assert [float(tensor.flatten()[0]) for tensor in solver.rule.export_history()] == [5.0, 2.0 + half]
    text = (
        "old.solverstate: has a history for every use of a shared parameter, as older versions of Caffe wrote them; "
        "the histories of each parameter are added up"
    )
    assert text + ("" if is_exact else f"; for {rule} this is an estimate (it is exact for SGD and Nesterov)") in (
        record.getMessage() for record in caplog.records
    )


def test_histories_of_copies_that_differ_in_size_are_refused(in_tmp: Path) -> None:
    old = TwoCopies("SGD", np.ones((4, 3)), np.ones(4))
    old.histories[1][1] = np.zeros(3)
    with pytest.raises(NetError) as caught:
        resumed_from_copies(old, 4, "SGD", twin_batches(1))
    assert str(caught.value) == (
        "old.solverstate: the histories of one shared parameter have the shapes (4,) and (3,); their sizes must agree"
    )
