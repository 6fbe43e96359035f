"""Which snapshots are kept, which a run resumes from, and which files are removed."""

import logging
import math
import os
from pathlib import Path

import pytest
import torch
from solver_runs import assert_same, tensors

from siamese_proto.errors import SolverError
from siamese_proto.net.net import Net
from siamese_proto.solver import Solver
from siamese_proto.solver.retention import keep_best, keep_last
from siamese_proto.weights import read_state

EVERY = {"snapshot": 2, "test_interval": 3, "random_seed": 4}
UNTESTED = {"test_interval": 100, "test_initialization": "false"}  # by the run itself


def present() -> list[str]:
    return sorted(name for name in os.listdir() if name.startswith(("snap", ".snap")))


def pairs(*stems: str) -> list[str]:
    return sorted(f"snap_{stem}.{kind}" for stem in stems for kind in ("caffemodel", "solverstate"))


def test_only_the_last_snapshots_are_kept(write_run) -> None:
    solver = Solver(write_run(**EVERY))
    keep_last(solver, 2)
    solver.step(3)
    assert present() == pairs("iter_2")
    solver.step(5)
    solver.close()
    assert present() == pairs("iter_6", "iter_8")


def test_files_of_other_runs_are_kept(write_run) -> None:
    write_run(**EVERY)
    strangers = [*pairs("iter_1", "iter_900"), "snap_iter_3.txt", "snap_iter_x.caffemodel", "snapper_iter_2.caffemodel"]
    for name in strangers:
        Path(name).write_text("mine")
    solver = Solver("solver.prototxt")
    keep_last(solver, 1)
    solver.step(6)
    solver.close()
    assert present() == sorted([*strangers, *pairs("iter_6")])
    assert Path("snap_iter_1.caffemodel").read_text() == "mine"


def test_a_resumed_run_removes_snapshots_from_before(write_run) -> None:
    solver = Solver(write_run(**EVERY))
    solver.step(5)
    solver.close()
    resumed = Solver("solver.prototxt", snapshot="auto")
    keep_last(resumed, 1)
    resumed.step(2)
    resumed.close()
    assert present() == pairs("iter_6")


def test_snapshots_of_a_run_resumed_under_another_prefix_are_kept(write_run) -> None:
    solver = Solver(write_run(**EVERY))
    solver.step(4)
    solver.close()
    Path("other_iter_2.caffemodel").write_text("mine")
    other = Solver(write_run(**EVERY, snapshot_prefix='"other"'), snapshot="snap_iter_4.solverstate")
    keep_last(other, 1)
    other.step(4)
    other.close()
    assert present() == pairs("iter_2", "iter_4")
    assert sorted(str(path) for path in Path().glob("other*")) == [
        "other_iter_2.caffemodel",
        "other_iter_8.caffemodel",
        "other_iter_8.solverstate",
    ]


def test_a_snapshot_that_cannot_be_removed_does_not_end_the_run(write_run, caplog: pytest.LogCaptureFixture) -> None:
    solver = Solver(write_run(**EVERY))
    keep_last(solver, 1)
    solver.step(2)
    Path("snap_iter_2.caffemodel").unlink()
    Path("snap_iter_2.caffemodel").mkdir()  # a folder cannot be unlinked
    solver.step(4)
    solver.close()
    assert "snap_iter_2.caffemodel could not be removed" in caplog.text
    assert solver.iteration == 6


def test_the_best_loss_is_the_lowest(write_run) -> None:
    solver = Solver(write_run(**{**EVERY, "snapshot": None}))
    keep_best(solver, "loss")
    tests: list[tuple[float, int, dict[str, torch.Tensor]]] = []
    solver.test_callbacks.append(
        lambda solver, scores: tests.append((scores[0]["loss"].item(), solver.iteration, tensors(solver)))
    )
    solver.solve()
    solver.close()
    value, iteration, weights = min(tests, key=lambda entry: entry[0])
    assert [len(tests), solver.best_scores] == [5, {"loss:min": value}]
    state = read_state("snap_best.solverstate")
    assert (state.iteration, state.learned_net) == (iteration, "snap_best.caffemodel")
    assert_same(dict(Net("net.prototxt", "TRAIN", weights="snap_best.caffemodel").tensors.items()), weights)
    resumed = Solver("solver.prototxt", snapshot="snap_best.solverstate")
    assert (resumed.iteration, resumed.best_scores) == (iteration, {"loss:min": value})
    resumed.close()


def scored(solver: Solver, values: list[float]) -> None:
    """Report these values as the losses of tests, in order."""
    for value in values:
        for callback in solver.test_callbacks:
            callback(solver, [{"loss": torch.tensor(value)}])
        solver.step(1)


@pytest.mark.parametrize(
    ("criterion", "values", "best"),
    [
        ("loss", [3.0, 2.0, 2.0, 5.0], 1),
        ("loss:min", [3.0, 4.0, 5.0, 6.0], 0),
        ("loss:max", [3.0, 4.0, 2.0, 4.0], 1),
        ("loss", [math.nan, 3.0, math.nan, 2.0], 3),
    ],
)
def test_the_direction_decides_and_the_first_of_equals_is_kept(
    write_run, criterion: str, values: list[float], best: int
) -> None:
    solver = Solver(write_run(**UNTESTED))
    keep_best(solver, criterion)
    scored(solver, values)
    solver.close()
    assert read_state("snap_best.solverstate").iteration == best


def test_a_resumed_run_remembers_the_best_score(write_run) -> None:
    solver = Solver(write_run(**UNTESTED, snapshot=2))
    keep_best(solver, "loss")
    keep_last(solver, 1)
    scored(solver, [3.0, 1.0])
    solver.close()
    resumed = Solver("solver.prototxt", snapshot="auto")
    keep_best(resumed, "loss")
    keep_last(resumed, 1)
    scored(resumed, [2.0, 2.0, 2.0])
    resumed.close()
    assert read_state("snap_best.solverstate").iteration == 1
    assert present() == pairs("best", "iter_4")


NOT_FOUND = [
    ("lost", "no test net has an output 'lost' to keep the best by; did you mean 'loss'?"),
    ("x", "no test net has an output 'x' to keep the best by; there are 'loss'"),
    ("loss:maximum", "'loss:maximum': unknown direction 'maximum'; it is one of min, max"),
]


@pytest.mark.parametrize(("criterion", "message"), NOT_FOUND)
def test_an_unknown_output_is_an_error_before_training(write_run, criterion: str, message: str) -> None:
    solver = Solver(write_run())
    with pytest.raises(SolverError) as caught:
        keep_best(solver, criterion)
    assert str(caught.value) == message
    solver.close()


def test_an_output_that_is_not_a_loss_needs_a_direction(write_run) -> None:
    net = Path(write_run()).with_name("net.prototxt").read_text()
    net += 'layer { name: "mean" type: "Reduction" bottom: "feat" top: "mean" }\n'
    net += (
        'layer { name: "two" type: "InnerProduct" bottom: "feat_p" top: "two" inner_product_param { num_output: 2 } }\n'
    )
    solver = Solver(write_run(net))
    with pytest.raises(SolverError, match="specify mean:max or mean:min: output 'mean' is not a loss"):
        keep_best(solver, "mean")
    with pytest.raises(
        SolverError, match=r"output 'two' to keep the best by has shape \(7, 2\); it must be one number"
    ):
        keep_best(solver, "two:max")
    keep_best(solver, "mean:max")
    solver.step(1)
    assert set(solver.best_scores) == {"mean:max"}
    solver.close()


def test_without_a_test_net_keep_best_is_refused(write_run) -> None:
    solver = Solver(write_run(test_iter=None, test_interval=None))
    with pytest.raises(SolverError, match="the best 'loss' cannot be kept: the solver has no test net"):
        keep_best(solver, "loss")
    solver.close()


def test_a_best_pair_that_cannot_be_written_is_tried_again(write_run, caplog: pytest.LogCaptureFixture) -> None:
    solver = Solver(write_run(**UNTESTED, snapshot=None))
    keep_best(solver, "loss")
    scored(solver, [3.0])
    Path("snap_best_new.solverstate").mkdir()  # the state of the new pair cannot be written
    scored(solver, [2.0])
    assert "SNAPSHOT FAILED" in caplog.text
    assert read_state("snap_best.solverstate").iteration == 0
    Path("snap_best_new.solverstate").rmdir()
    scored(solver, [2.5])
    solver.close()
    assert read_state("snap_best.solverstate").iteration == 2


def test_auto_resumes_from_the_newest_snapshot(write_run) -> None:
    solver = Solver(write_run(snapshot=4, random_seed=3))
    solver.solve()
    solver.close()
    for name in pairs("iter_12"):
        Path(name).unlink()
    Path("snap_iter_9.caffemodel").touch()  # weights without a state are not a snapshot
    resumed = Solver("solver.prototxt", snapshot="auto")
    assert (resumed.iteration, resumed.last_snapshot) == (8, Path("snap_iter_8.solverstate"))
    resumed.solve()
    assert resumed.losses == solver.losses[8:]
    assert_same(tensors(resumed), tensors(solver))
    resumed.close()


@pytest.mark.parametrize("damage", ["state cut", "weights cut", "weights gone", "state empty"])
@pytest.mark.parametrize("snapshot_format", ["BINARYPROTO", "HDF5"])
def test_auto_skips_incomplete_snapshots(
    write_run, caplog: pytest.LogCaptureFixture, damage: str, snapshot_format: str
) -> None:
    solver = Solver(write_run(snapshot=4, snapshot_format=snapshot_format))
    solver.step(8)
    solver.close()
    what, how = damage.split()
    suffix = ".h5" if snapshot_format == "HDF5" else ""
    file = Path(f"snap_iter_8.{'solverstate' if what == 'state' else 'caffemodel'}{suffix}")
    content = file.read_bytes()
    file.unlink()
    if how != "gone":
        file.write_bytes(content[: len(content) // 2] if how == "cut" else b"")
    resumed = Solver("solver.prototxt", snapshot="auto")
    assert resumed.iteration == 4
    assert f"Snapshot snap_iter_8.solverstate{suffix} is not complete, so the one before it is tried" in caplog.text
    resumed.close()


def test_auto_without_a_snapshot_starts_with_the_weights(write_run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    first = Solver(write_run())
    first.net.save_weights("begin.caffemodel")
    first.close()
    solver = Solver("solver.prototxt", weights="begin.caffemodel", snapshot="auto")
    assert solver.iteration == 0
    assert_same(tensors(solver), tensors(first))
    assert "No complete snapshot of snap exists; starting from iteration 0" in caplog.text
    solver.close()


def test_the_newest_snapshot_has_the_highest_iteration_of_this_prefix(write_run) -> None:
    solver = Solver(write_run(snapshot=None, max_iter=20))
    for iteration in (9, 10):
        solver.step(iteration - solver.iteration)
        solver.snapshot()
    solver.close()
    for name in ("snap_iter_30.solverstate.old", "snap_best.solverstate", "mysnap_iter_11.solverstate"):
        Path(name).write_bytes(Path("snap_iter_9.solverstate").read_bytes())
    resumed = Solver("solver.prototxt", snapshot="auto")
    assert resumed.iteration == 10
    resumed.close()


def test_unfinished_files_of_killed_runs_are_removed_when_a_run_starts(write_run) -> None:
    ours = [
        ".snap_iter_5.caffemodel.0123abcd.partial",
        ".snap_iter_5.solverstate.h5.0123abcd.partial",
        ".snap_best_new.caffemodel.0123abcd.partial",
        "snap_best_new.caffemodel",
    ]
    others = [".snapper_iter_5.caffemodel.0123abcd.partial", ".snap_iter_5.log.0123abcd.partial", ".snap.partial"]
    solver = Solver(write_run(max_iter=1, snapshot=None))
    for name in ours + others:
        Path(name).touch()
    solver.solve()
    solver.close()
    assert [name for name in present() if "iter_1." not in name] == sorted(others)


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be synced there")
def test_the_best_pair_is_on_the_disk_before_it_is_renamed(write_run, monkeypatch: pytest.MonkeyPatch) -> None:
    solver = Solver(write_run(max_iter=1, snapshot=0, snapshot_after_train="false", test_interval=1))
    keep_best(solver, "loss")
    events: list[str] = []
    replace, fsync = os.replace, os.fsync

    def replacing(source: str, target: str) -> None:
        replace(source, target)
        events.append(f"{Path(target).name} is there")

    def syncing(handle: int) -> None:
        fsync(handle)
        events.append("folder synced" if os.path.samestat(os.fstat(handle), os.stat(".")) else "file synced")

    monkeypatch.setattr(os, "replace", replacing)
    monkeypatch.setattr(os, "fsync", syncing)
    solver.step(1)
    solver.close()
    names = ("snap_best_new.caffemodel", "snap_best_new.solverstate", "snap_best.caffemodel", "snap_best.solverstate")
    for name in names:
        assert events[events.index(f"{name} is there") + 1] == "folder synced"
