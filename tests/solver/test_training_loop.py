"""The order of things in a run, what it records, how it ends, and that it goes on where it stood."""

import logging
import math
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from siamese_proto.errors import NetError, SolverError
from siamese_proto.net import Net
from siamese_proto.proto import schema
from siamese_proto.solver import Solver
from siamese_proto.weights import StoredState, read_state, read_weights, write_state


def tensors(solver: Solver) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in solver.net.tensors.items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def events(records: list[logging.LogRecord]) -> list[str]:
    """What happened in which order: `test 0`, `train 0`, `snapshot 5`, ..."""
    found = []
    for record in records:
        text = record.getMessage()
        for pattern, name in (
            (r"Iteration (\d+), Testing", "test"),
            (r"Iteration (\d+) \(", "train"),
            (r"Iteration (\d+), loss", "last"),
            (r"state to .*_iter_(\d+)\.", "snapshot"),
        ):
            if match := re.search(pattern, text):
                found.append(f"{name} {match[1]}")
        if text.startswith("Optimization"):
            found.append(text)
    return found


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
def test_settings_decide_what_happens(
    write_run, caplog: pytest.LogCaptureFixture, fields: dict[str, object], expected: list[str]
) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    usual = {"max_iter": 4, "display": 4, "test_interval": 4, "snapshot": None}
    solver = Solver(write_run(**{**usual, **fields}))
    solver.solve()
    solver.close()
    assert events(caplog.records) == [*expected, "Optimization Done."]


def test_an_update_is_made_from_the_loss_recorded_before_it(write_run) -> None:
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


def test_test_nets_hold_the_parameters_of_the_training_net(write_run) -> None:
    solver = Solver(write_run())
    (test_net,) = solver.test_nets
    for layer, blobs in solver.net.params.items():
        assert all(one is two for one, two in zip(blobs, test_net.params[layer], strict=True))
    solver.close()


def test_a_test_gives_the_mean_over_its_batches(write_run) -> None:
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


def test_the_same_seed_gives_the_same_run_and_another_seed_another(write_run) -> None:
    losses = []
    for seed in (3, 3, 4):
        solver = Solver(write_run(random_seed=seed))
        solver.step(3)
        losses.append(solver.losses)
        solver.close()
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]


@pytest.mark.parametrize("fields", [{}, {"type": '"Adam"'}, {"snapshot_format": "HDF5"}], ids=str)
def test_a_resumed_run_equals_one_that_was_not_interrupted_bit_for_bit(write_run, fields: dict[str, object]) -> None:
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


def test_a_resumed_run_logs_what_the_other_logged(write_run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")

    def run(**how: object) -> list[str]:
        caplog.clear()
        solver = Solver("solver.prototxt", **how)
        solver.solve()
        solver.close()
        texts = [record.getMessage() for record in caplog.records]
        shown = [re.sub(r"\(.* iters\)", "", text) for text in texts if re.search("Iteration|output|lr =", text)]
        return shown[next(i for i, text in enumerate(shown) if text.startswith("Iteration 6 ")) :]

    write_run()  # averages of three losses, and test readers that go on from test to test, must come back too
    assert run() == run(snapshot="snap_iter_5.solverstate")


def test_restoring_into_a_solver_that_has_trained_gives_the_same_run(write_run) -> None:
    solver = Solver(write_run())
    solver.solve()
    losses, final = solver.losses, tensors(solver)
    solver.restore("snap_iter_5.solverstate")
    solver.solve()
    assert solver.losses == losses[5:]
    assert_same(tensors(solver), final)
    solver.close()


def test_a_state_of_caffe_begins_with_the_first_record(write_run) -> None:
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


def test_weights_are_found_beside_a_state_that_was_moved(write_run) -> None:
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


def test_histories_of_the_older_layout_that_counts_sharers_are_taken(write_run) -> None:
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
        "snap_iter_5.solverstate: the solver state holds 4 histories, but Adam over this net has 8; it was written "
        "for another net or by another update rule"
    )


def test_weights_and_a_snapshot_exclude_each_other(write_run) -> None:
    with pytest.raises(SolverError, match="weights and a snapshot were both given"):
        Solver(write_run(), weights="a.caffemodel", snapshot="b.solverstate")


def test_weights_of_the_solver_file_begin_a_run(write_run) -> None:
    first = Solver(write_run())
    first.net.save_weights("begin.caffemodel")
    second = Solver(write_run(weights='"begin.caffemodel"'))
    assert_same(tensors(second), tensors(first))
    for solver in (first, second):
        solver.close()


# Snapshots that cannot be written


@pytest.mark.parametrize("fields", [{}, {"snapshot": None}], ids=["snapshots", "only at the end"])
def test_a_missing_folder_for_snapshots_is_found_before_training(write_run, fields: dict[str, object]) -> None:
    path = write_run(snapshot_prefix='"gone/snap"', **fields)
    with pytest.raises(SolverError) as caught:
        Solver(path).solve()
    assert str(caught.value) == (
        "the folder for snapshots, 'gone', does not exist; create the folder, or give another snapshot_prefix than "
        "'gone/snap'"
    )


def test_a_run_outlives_a_folder_that_vanishes_and_comes_back(write_run, caplog: pytest.LogCaptureFixture) -> None:
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


# Numbers that are not finite


PLAIN = """
layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 4
  weight_filler { type: "xavier" } } }
layer { name: "tanh" type: "TanH" bottom: "ip" top: "ip" }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
PLAIN_SOLVER = 'net: "plain.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 20 snapshot_prefix: "plain" '


def plain_batches(bad: int = -1) -> list[tuple[np.ndarray, np.ndarray]]:
    batches = [(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)) for _ in range(20)]
    if bad >= 0:
        batches[bad][0][1, 2] = math.nan
    return batches


def plain(tmp_path: Path, settings: str, **how: object) -> Solver:
    (tmp_path / "plain.prototxt").write_text(PLAIN)
    (tmp_path / "plain_solver.prototxt").write_text(PLAIN_SOLVER + settings)
    return Solver(tmp_path / "plain_solver.prototxt", **how)


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_snapshot(in_tmp: Path) -> None:
    solver = plain(in_tmp, "snapshot: 4 display: 5", data={"in": plain_batches(bad=6)})
    with pytest.raises(SolverError) as caught:
        solver.solve()
    place = in_tmp / "plain.prototxt"
    assert str(caught.value) == (
        "the loss of iteration 6 is nan; the first layer whose output is not finite is 'ip' "
        f"({os.path.relpath(place)}:3); a lower base_lr or clip_gradients may help; "
        "the last snapshot is plain_iter_4.solverstate"
    )
    assert sorted(os.listdir()) == [
        *("plain.prototxt", "plain_iter_4.caffemodel", "plain_iter_4.solverstate", "plain_solver.prototxt")
    ]


def test_a_bad_record_is_named_where_it_comes_in(in_tmp: Path) -> None:
    solver = plain(in_tmp, "display: 1", data={"in": plain_batches(bad=2)})
    with pytest.raises(SolverError, match=r"the loss of iteration 2 is nan; the first layer .* is 'in' "):
        solver.solve()


def test_parameters_that_are_not_finite_are_not_saved(in_tmp: Path) -> None:
    solver = plain(in_tmp, "snapshot: 3", data={"in": plain_batches()})
    solver.step(2)
    with torch.no_grad():
        solver.net.params["ip"][1][0] = math.inf
    with pytest.raises(SolverError, match="after iteration 1 the bias of layer 'ip' is not finite; the first layer"):
        solver.snapshot()
    assert not list(in_tmp.glob("*.solverstate"))


# Batches that the caller gives


def test_batches_may_be_mappings_sequences_or_the_only_top(in_tmp: Path) -> None:
    losses = []
    for data in (plain_batches(), [{"y": y, "x": torch.from_numpy(x)} for x, y in plain_batches()]):
        solver = plain(in_tmp, "random_seed: 5", data={"in": data})
        solver.step(25)  # more than there are: they begin again
        losses.append(solver.losses)
    assert losses[0] == losses[1]


def test_batches_given_go_on_after_a_snapshot(in_tmp: Path) -> None:
    rows = np.random.default_rng(3).normal(size=(20, 2, 7)).astype(np.float32)
    data = {"in": [(row[:, :3], row[:, 3:]) for row in rows]}
    first = plain(in_tmp, "snapshot: 7", data=data)
    first.solve()
    resumed = Solver(in_tmp / "plain_solver.prototxt", snapshot="plain_iter_7.solverstate", data=data)
    resumed.solve()
    assert resumed.losses == first.losses[7:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inn": []}, "data for 'inn', which is no data layer of the training net ('in'); did you mean 'in'?"),
        (
            {"in": []},
            "the batches given for layer 'in' have come to an end; give more, or something that can be iterated "
            "again, such as a list",
        ),
        (
            {"in": [np.ones((2, 3))]},
            "a batch given for layer 'in' does not have one array for each of its tops, 'x', 'y'",
        ),
    ],
    ids=["another name", "none", "one array of two"],
)
def test_batches_that_do_not_fit_are_refused(in_tmp: Path, data: dict[str, list[object]], message: str) -> None:
    with pytest.raises(SolverError) as caught:
        plain(in_tmp, "", data=data)
    assert str(caught.value) == message


def test_batches_serve_where_a_database_is_missing(in_tmp: Path) -> None:
    data_layer = 'layer { name: "in" type: "Data" top: "x" top: "y" data_param { source: "gone" batch_size: 2 } }'
    (in_tmp / "plain.prototxt").write_text("\n".join([data_layer, *PLAIN.splitlines()[2:]]))
    (in_tmp / "plain_solver.prototxt").write_text(PLAIN_SOLVER)
    solver = Solver(in_tmp / "plain_solver.prototxt", data={"in": plain_batches()})
    solver.step(2)
    assert len(solver.losses) == 2


# Requests


def test_a_stop_asked_for_ends_the_run_with_a_snapshot(write_run, caplog: pytest.LogCaptureFixture) -> None:
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


def test_a_snapshot_asked_for_does_not_change_the_run(write_run) -> None:
    plain_run, asked = Solver(write_run(random_seed=1)), Solver(write_run(random_seed=1, snapshot_prefix='"asked"'))
    asked.callbacks.append(lambda solver: solver.request_snapshot() if solver.iteration == 3 else None)
    for solver in (plain_run, asked):
        solver.solve()
        solver.close()
    assert read_state("asked_iter_3.solverstate").iteration == 3
    assert asked.losses == plain_run.losses


# The files


def test_a_snapshot_holds_what_caffe_would_write(write_run) -> None:
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


def test_a_gpu_that_is_not_there_is_warned_of_only_where_it_was_asked_for(
    write_run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for mode, warned in (("GPU", True), (None, False)):
        caplog.clear()
        solver = Solver(write_run(solver_mode=mode))
        assert ("solver_mode is GPU, but there is none here; training on the CPU" in caplog.text) == warned
        solver.step(1)
        solver.close()


def test_a_net_without_parameters_cannot_be_trained(in_tmp: Path) -> None:
    (in_tmp / "plain.prototxt").write_text(
        'layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: 2 } } }\n'
        'layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "y" top: "loss" }'
    )
    (in_tmp / "plain_solver.prototxt").write_text(PLAIN_SOLVER)
    with pytest.raises(NetError, match="the net has no parameters, so there is nothing to train"):
        Solver(in_tmp / "plain_solver.prototxt")
