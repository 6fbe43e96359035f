"""Snapshots, and runs that are resumed from them."""

import logging
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from solver_runs import assert_same, plain, tensors

from siamese_proto.errors import SolverError
from siamese_proto.proto import schema
from siamese_proto.solver import Solver
from siamese_proto.weights import StoredState, read_state, read_weights, write_state


@pytest.mark.parametrize("fields", [{}, {"type": '"Adam"'}, {"snapshot_format": "HDF5"}], ids=str)
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(write_run, fields: dict[str, object]) -> None:
    first = Solver(write_run(**fields))
    first.solve()
    path = Path(f"snap_iter_5.solverstate{'.h5' if 'snapshot_format' in fields else ''}")
    resumed = Solver("solver.prototxt", snapshot=path)
    assert (resumed.iteration, resumed.losses) == (5, [])
    resumed.solve()
    assert resumed.losses == first.losses[5:]
    assert_same(tensors(resumed), tensors(first))
    for one, two in zip(first.rule.export_history(), resumed.rule.export_history(), strict=True):
        assert torch.equal(one, two)
    for solver in (first, resumed):
        solver.close()


def test_a_resumed_run_logs_the_same_lines(write_run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")

    def run(**how: object) -> list[str]:
        caplog.clear()
        solver = Solver("solver.prototxt", **how)
        solver.solve()
        solver.close()
        texts = [record.getMessage() for record in caplog.records]
        shown = [re.sub(r"\(.* iters\)", "", text) for text in texts if re.search("Iteration|output|lr =", text)]
        return shown[next(i for i, text in enumerate(shown) if text.startswith("Iteration 6 ")) :]

    write_run()  # averages of three losses, and the positions of test nets, must be restored too
    assert run() == run(snapshot="snap_iter_5.solverstate")


def test_restoring_a_solver_that_has_trained_gives_the_same_run(write_run) -> None:
    solver = Solver(write_run())
    solver.solve()
    losses, final = solver.losses, tensors(solver)
    solver.restore("snap_iter_5.solverstate")
    solver.solve()
    assert solver.losses == losses[5:]
    assert_same(tensors(solver), final)
    solver.close()


def test_a_run_resumed_from_caffe_begins_with_the_first_record(write_run) -> None:
    solver = Solver(write_run())
    solver.step(5)
    solver.close()
    state = read_state("snap_iter_5.solverstate")
    assert state.resume is not None
    assert [(place.layer, place.batches) for place in state.resume.data] == [("pairs", 10)]
    write_state("caffe.solverstate", StoredState(state.iteration, state.learned_net, 1, state.history, None))
    resumed = Solver("solver.prototxt", snapshot="caffe.solverstate")
    assert (resumed.iteration, resumed.current_step) == (5, 1)
    resumed.batches.next_batch()
    assert resumed.batches.positions() == {"pairs": 1}
    resumed.close()


def test_weights_are_found_next_to_a_state_that_was_moved(write_run) -> None:
    solver = Solver(write_run())
    solver.step(5)
    expected = tensors(solver)
    solver.close()
    moved = Path("elsewhere")
    moved.mkdir()
    for name in ("snap_iter_5.caffemodel", "snap_iter_5.solverstate"):
        shutil.move(name, moved / name)
    resumed = Solver("solver.prototxt", snapshot=moved / "snap_iter_5.solverstate")
    assert_same(tensors(resumed), expected)
    resumed.close()


def test_histories_for_every_use_are_accepted(write_run) -> None:
    solver = Solver(write_run())
    solver.step(5)
    expected = [history.clone() for history in solver.rule.export_history()]
    solver.close()
    state = read_state("snap_iter_5.solverstate")
    w, b, fw, fb = state.history
    zeros = [np.zeros_like(array) for array in state.history]
    old = StoredState(state.iteration, state.learned_net, state.current_step, (w, b, fw, fb, *zeros), None)
    write_state("old.solverstate", old)
    resumed = Solver("solver.prototxt", snapshot="old.solverstate")
    assert all(torch.equal(one, two) for one, two in zip(expected, resumed.rule.export_history(), strict=True))
    resumed.close()


def test_a_state_of_another_update_rule_is_refused(write_run) -> None:
    solver = Solver(write_run())
    solver.step(5)
    solver.close()
    with pytest.raises(SolverError) as caught:
        Solver(write_run(type='"Adam"'), snapshot="snap_iter_5.solverstate")
    assert str(caught.value) == (
        "snap_iter_5.solverstate: was written by the update rule SGD, but the solver has type: 'Adam'; to continue "
        "with its weights alone, give them to --weights: snap_iter_5.caffemodel"
    )


def test_weights_and_a_snapshot_exclude_each_other(write_run) -> None:
    with pytest.raises(SolverError, match="both weights and a snapshot are given"):
        Solver(write_run(), weights="a.caffemodel", snapshot="b.solverstate")


def test_a_run_begins_with_the_weights_of_the_solver_file(write_run) -> None:
    first = Solver(write_run())
    first.net.save_weights("begin.caffemodel")
    second = Solver(write_run(weights='"begin.caffemodel"'))
    assert_same(tensors(second), tensors(first))
    for solver in (first, second):
        solver.close()


@pytest.mark.parametrize("fields", [{}, {"snapshot": None}], ids=["snapshots", "only at the end"])
def test_a_missing_folder_for_snapshots_is_an_error_before_training(write_run, fields: dict[str, object]) -> None:
    path = write_run(snapshot_prefix='"gone/snap"', **fields)
    with pytest.raises(SolverError) as caught:
        Solver(path).solve()
    assert str(caught.value) == (
        "the folder for snapshots, 'gone', does not exist; create the folder, or give another snapshot_prefix than "
        "'gone/snap'"
    )


def test_a_run_continues_while_the_snapshot_folder_is_missing(write_run, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path("kept")
    folder.mkdir()
    solver = Solver(write_run(snapshot_prefix='"kept/snap"'))
    solver.step(2)
    folder.rmdir()
    solver.step(4)
    assert "SNAPSHOT FAILED" in caplog.text
    assert solver.last_snapshot is None
    folder.mkdir()
    solver.step(4)
    assert sorted(os.listdir(folder)) == ["snap_iter_10.caffemodel", "snap_iter_10.solverstate"]
    solver.close()


def test_given_batches_continue_after_a_snapshot(in_tmp: Path) -> None:
    rows = np.random.default_rng(3).normal(size=(20, 2, 7)).astype(np.float32)
    data = {"in": [(row[:, :3], row[:, 3:]) for row in rows]}
    first = plain(in_tmp, "snapshot: 7", data=data)
    first.solve()
    resumed = Solver(in_tmp / "plain_solver.prototxt", snapshot="plain_iter_7.solverstate", data=data)
    resumed.solve()
    assert resumed.losses == first.losses[7:]


def test_a_snapshot_holds_what_caffe_writes(write_run) -> None:
    solver = Solver(write_run(random_seed=11))
    solver.step(5)
    solver.close()
    message = schema.SolverState.FromString(Path("snap_iter_5.solverstate").read_bytes())
    assert (message.iter, message.learned_net, message.current_step) == (5, "snap_iter_5.caffemodel", 1)
    assert [tuple(blob.shape.dim) for blob in message.history] == [(6, 784), (6,), (3, 6), (3,)]
    for blob, history in zip(message.history, solver.rule.export_history(), strict=True):
        assert list(blob.data) == history.flatten().tolist()
    assert message.resume.random_seed == 11
    stored = {layer.name: layer.blobs for layer in read_weights("snap_iter_5.caffemodel").layers}
    for name, blobs in solver.net.params.items():
        for ours, theirs in zip(blobs, stored[name], strict=True):
            assert np.array_equal(ours.detach().numpy(), np.asarray(theirs).reshape(ours.shape))


RECURRENT = """
layer { name: "in" type: "Input" top: "x" top: "cont" top: "y" input_param {
  shape { dim: 3 dim: 2 dim: 5 } shape { dim: 3 dim: 2 } shape { dim: 3 dim: 2 dim: 4 } } }
layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "h" recurrent_param { num_output: 4
  weight_filler { type: "uniform" min: -0.5 max: 0.5 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "h" bottom: "y" top: "loss" }
"""


def test_the_state_of_recurrent_layers_is_restored(in_tmp: Path) -> None:
    (in_tmp / "net.prototxt").write_text(RECURRENT)
    settings = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 6 snapshot: 3 snapshot_prefix: "snap"'
    (in_tmp / "solver.prototxt").write_text(settings)
    draw = np.random.default_rng(1)
    shapes = {"x": (3, 2, 5), "cont": (3, 2), "y": (3, 2, 4)}
    batches = [{name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(6)]
    for batch in batches:
        batch["cont"][:] = 1  # every sequence continues that of the previous batch
    first = Solver("solver.prototxt", data={"in": batches})
    first.solve()
    resumed = Solver("solver.prototxt", snapshot="snap_iter_3.solverstate", data={"in": batches})
    resumed.solve()
    assert resumed.losses == first.losses[3:]
    assert_same(tensors(resumed), tensors(first))
    stateless = Solver("solver.prototxt", snapshot="snap_iter_3.solverstate", data={"in": batches})
    stateless.net.run_state.carried.clear()
    stateless.step(1)
    assert stateless.losses != first.losses[3:4]


@pytest.mark.parametrize("fields", [{"type": '"AdamW"'}, {"lr_policy": '"cosine"', "warmup_iter": 4}], ids=str)
def test_adamw_and_cosine_are_resumed_bit_for_bit(write_run, fields: dict[str, object]) -> None:
    first = Solver(write_run(**fields))
    first.solve()
    resumed = Solver("solver.prototxt", snapshot="snap_iter_5.solverstate")
    resumed.solve()
    assert resumed.losses == first.losses[5:]
    assert_same(tensors(resumed), tensors(first))
    for solver in (first, resumed):
        solver.close()
