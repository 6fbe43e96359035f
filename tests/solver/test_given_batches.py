"""Runs over batches that the caller gives, numbers that are not finite among them."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from solver_runs import PLAIN, PLAIN_SOLVER, assert_same, plain, plain_batches, tensors

from siamese_proto.errors import NetError, SolverError
from siamese_proto.solver import Solver


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


def test_a_snapshot_that_falls_due_ends_a_run_that_is_not_finite(in_tmp: Path) -> None:
    solver = plain(in_tmp, "snapshot: 4", data={"in": plain_batches(bad=6)})
    with pytest.raises(SolverError, match="the loss of iteration 6 is nan"):
        solver.solve()
    assert solver.iteration == 8


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


def test_batches_may_be_mappings_sequences_or_the_only_top(in_tmp: Path) -> None:
    losses = []
    for data in (plain_batches(), [{"y": y, "x": torch.from_numpy(x)} for x, y in plain_batches()]):
        solver = plain(in_tmp, "random_seed: 5", data={"in": data})
        solver.step(25)  # more than there are: they begin again
        losses.append(solver.losses)
    assert losses[0] == losses[1]


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


def test_a_net_with_nothing_to_learn_runs_and_stays_as_it_is(in_tmp: Path) -> None:
    frozen = PLAIN.replace('top: "ip" inner', 'top: "ip" param { lr_mult: 0 } param { lr_mult: 0 } inner')
    (in_tmp / "plain.prototxt").write_text(frozen)
    (in_tmp / "frozen.prototxt").write_text(PLAIN_SOLVER + "weight_decay: 0.1 momentum: 0.9")
    solver = Solver(in_tmp / "frozen.prototxt", data={"in": plain_batches()})
    before = tensors(solver)
    solver.step(2)
    assert_same(tensors(solver), before)
    assert solver.losses[0] == solver.losses[1]


def test_a_net_without_parameters_cannot_be_trained(in_tmp: Path) -> None:
    (in_tmp / "plain.prototxt").write_text(
        'layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: 2 } } }\n'
        'layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "y" top: "loss" }'
    )
    (in_tmp / "plain_solver.prototxt").write_text(PLAIN_SOLVER)
    with pytest.raises(NetError, match="the net has no parameters, so there is nothing to train"):
        Solver(in_tmp / "plain_solver.prototxt")


def test_a_net_without_a_loss_trains_nothing_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = """
    layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 dim: 3 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 4 } }
    """
    (tmp_path / "net.prototxt").write_text(text)
    (tmp_path / "solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 1')
    Solver(tmp_path / "solver.prototxt").close()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"{tmp_path}/net.prototxt: no layer of the training net has a loss, so nothing is learned"]


def test_input_layers_that_nobody_feeds_are_named(tmp_path: Path) -> None:
    with pytest.raises(NetError) as caught:
        plain(tmp_path, "").step(1)
    assert str(caught.value) == (
        f"{tmp_path}/plain.prototxt:2: layer 'in': nothing feeds its blobs; give them when the net is called ('x', "
        "'y'), or let a data layer read them"
    )
