"""Runs on batches from the caller, including numbers that are not finite."""

import math
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from solver_runs import PLAIN, PLAIN_SOLVER, assert_same, plain, plain_batches, tensors
from torch.utils.data import DataLoader, Dataset, TensorDataset

from siamese_proto.data.databases.database import create_database
from siamese_proto.errors import NetError, SolverError
from siamese_proto.proto import schema
from siamese_proto.solver import Solver


def test_a_loss_that_is_not_finite_ends_the_run_and_the_last_good_snapshot_stays(in_tmp: Path) -> None:
    solver = plain(in_tmp, "snapshot: 4 display: 5", data={"in": plain_batches(bad=6)})
    with pytest.raises(SolverError) as caught:
        solver.solve()
    place = in_tmp / "plain.prototxt"
    assert str(caught.value) == (
        "the loss of iteration 6 is nan; the first layer whose output is not finite is 'in' "
        f"({os.path.relpath(place)}:2): in the batch of iteration 6 its top 'x' has 1 value that is NaN or infinite, "
        "the first in row 1; correct the data; the last snapshot is plain_iter_4.solverstate"
    )
    assert sorted(os.listdir()) == [
        *("plain.prototxt", "plain_iter_4.caffemodel", "plain_iter_4.solverstate", "plain_solver.prototxt")
    ]


DATA = {"HDF5Data": "row 4 of HDF5 file 'b.h5'", "Data": "record '00000006' of database 'db'"}


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize("display", [1, 5, 0])
@pytest.mark.parametrize("iter_size", [1, 2])
def test_data_that_are_not_finite_are_named_with_their_record(
    kind: str, display: int, iter_size: int, in_tmp: Path
) -> None:
    rows = np.ones((11, 3), np.float32)
    rows[6, 2] = math.inf  # in a batch of 2: batch 3
    if kind == "Data":
        with create_database("db", "LMDB") as writer:
            for number, row in enumerate(rows):
                datum = schema.Datum(channels=3, height=1, width=1, float_data=row)
                writer.put([(b"%08d" % number, datum.SerializeToString())])
        source = 'top: "x" data_param { source: "db" backend: LMDB batch_size: 2 }'
    else:
        for name, part in (("a", rows[:2]), ("b", rows[2:])):
            with h5py.File(f"{name}.h5", "w") as file:
                file["x"] = part
        Path("list.txt").write_text("a.h5\nb.h5\n")
        source = 'top: "x" hdf5_data_param { source: "list.txt" batch_size: 2 }'
    net = f"""
layer {{ name: "read" type: "{kind}" {source} }}
layer {{ name: "y" type: "DummyData" top: "y" dummy_data_param {{ shape {{ dim: 2 dim: 4 }} }} }}"""
    (in_tmp / "plain.prototxt").write_text(net + PLAIN[PLAIN.index('\nlayer { name: "ip"') :])
    settings = f"display: {display} iter_size: {iter_size} snapshot_after_train: false max_iter: 9"
    (in_tmp / "plain_solver.prototxt").write_text(PLAIN_SOLVER.replace("max_iter: 20", "") + settings)
    iteration = 3 // iter_size
    # TanH makes the infinite value finite, but its gradient NaN, so the next loss is NaN.
    with pytest.raises(SolverError, match=rf"^the loss of iteration {iteration + 1} is nan; ") as caught:
        Solver(in_tmp / "plain_solver.prototxt").solve()
    assert (
        f"'read' (plain.prototxt:2): in the batch of iteration {iteration} its top 'x' has 1 value that is NaN or "
        f"infinite, the first in row 0 ({DATA[kind]}); correct the data"
    ) in str(caught.value)
    assert "base_lr" not in str(caught.value)


def test_first_parameters_that_are_not_finite_are_named(in_tmp: Path) -> None:
    solver = plain(in_tmp, "display: 1", data={"in": plain_batches()})
    with torch.no_grad():
        solver.net.params["ip"][0][1, 2] = math.nan
    with pytest.raises(SolverError) as caught:
        solver.step(1)
    assert str(caught.value) == (
        "the loss of iteration 0 is nan; the weight of layer 'ip' is not finite before the first update; give other "
        "weights, or another filler"
    )


def test_a_snapshot_ends_a_run_that_is_not_finite(in_tmp: Path) -> None:
    solver = plain(in_tmp, "snapshot: 4", data={"in": plain_batches(bad=6)})
    with pytest.raises(SolverError, match="the loss of iteration 6 is nan"):
        solver.solve()
    assert solver.iteration == 8


def test_a_bad_record_is_named_with_its_data_layer(in_tmp: Path) -> None:
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


def test_batches_may_be_mappings_sequences_or_one_array(in_tmp: Path) -> None:
    losses = []
    for data in (plain_batches(), [{"y": y, "x": torch.from_numpy(x)} for x, y in plain_batches()]):
        solver = plain(in_tmp, "random_seed: 5", data={"in": data})
        solver.step(25)  # more than the list has: it starts again
        losses.append(solver.losses)
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inn": []}, "data for 'inn', which is no data layer of the training net ('in'); did you mean 'in'?"),
        (
            {"in": []},
            "the batches given for layer 'in' are used up; give more, or an iterable that can be iterated again, "
            "such as a list",
        ),
        (
            {"in": [np.ones((2, 3))]},
            "a batch given for layer 'in' does not have one array for each of its tops, 'x', 'y'; it has 1",
        ),
        (
            {"in": [{"x": np.ones((2, 3)), "yy": np.ones((2, 4))}]},
            "a batch given for layer 'in' does not have one array for each of its tops, 'x', 'y'; it has 'x', 'yy'; "
            "did you mean 'y'?",
        ),
        (
            {"in": [{}]},
            "a batch given for layer 'in' does not have one array for each of its tops, 'x', 'y'; it has none",
        ),
        (
            {"in": [(np.ones((2, 3)), "text")]},
            "top 'y' of a batch given for layer 'in' is a str; give a tensor or an array of numbers",
        ),
        (
            {"in": [(np.ones((2, 3)), 7)]},
            "top 'y' of a batch given for layer 'in' is a single number, but a batch has one per row; if it is an item "
            "of a dataset, give a DataLoader, which makes batches of items",
        ),
        (
            {"in": [(np.ones((2, 3)), np.ones((5, 4)))]},
            "the tops of a batch given for layer 'in' differ in their number of rows: 'x' 2, 'y' 5",
        ),
        (
            {"in": 7},
            "data for 'in' is given as int; give a Dataset, a DataLoader, or another iterable of batches, "
            "such as a list",
        ),
        (
            {"in": [(np.ones((2, 3)), torch.ones(2, 4).cfloat())]},
            "top 'y' of a batch given for layer 'in' is complex numbers; give a dense tensor of real numbers",
        ),
        (
            {"in": [(torch.ones(2, 3).to_sparse(), np.ones((2, 4)))]},
            "top 'x' of a batch given for layer 'in' is a sparse tensor; give a dense tensor of real numbers",
        ),
        (
            {"in": [(np.ones((0, 3)), np.ones((0, 4)))]},
            "top 'x' of a batch given for layer 'in' has no rows; leave the batch out",
        ),
        ({"in": TensorDataset(torch.ones(1, 3))}, "the Dataset given for 'in' has 1 items, but a batch takes 2"),
    ],
    ids=[
        *("another name", "none", "one of two", "another top", "empty mapping", "text", "item", "rows", "number"),
        *("complex", "sparse", "empty", "few items"),
    ],
)
def test_batches_that_do_not_fit_are_refused(in_tmp: Path, data: dict[str, list[object]], message: str) -> None:
    with pytest.raises(SolverError) as caught:
        plain(in_tmp, "", data=data)
    assert str(caught.value) == message


def test_batches_may_differ_in_rows_but_in_nothing_else(in_tmp: Path) -> None:
    batches = [(np.ones((rows, 3)), np.ones((rows, 4))) for rows in (2, 5)]
    plain(in_tmp, "", data={"in": batches}).step(4)
    solver = plain(in_tmp, "", data={"in": [*batches, (np.ones((2, 6)), np.ones((2, 4)))]})
    with pytest.raises(SolverError) as caught:
        solver.step(3)
    assert str(caught.value) == (
        "a batch given for layer 'in' has shape (2, 6) for top 'x', but the first one had (2, 3): only the number "
        "of rows may change"
    )


def test_batches_in_another_form_than_the_first_are_checked_again(in_tmp: Path) -> None:
    first = {"x": torch.ones(2, 3), "y": torch.ones(2, 4)}
    others: list[object] = [{**first}, {"x": np.ones((2, 3)), "y": torch.ones(2, 4).double()}, [*first.values()]]
    solver = plain(in_tmp, "random_seed: 5", data={"in": [first, *others]})
    solver.step(4)
    same = plain(in_tmp, "random_seed: 5", data={"in": [first]})
    same.step(4)
    assert solver.losses == same.losses
    bad = {"x": first["x"].to_sparse(), "y": torch.ones(2, 4)}
    for batch, message in ((bad, "is a sparse tensor"), ({**first, "z": first["x"]}, "it has 'x', 'y', 'z'")):
        solver = plain(in_tmp, "", data={"in": [first, batch]})
        with pytest.raises(SolverError, match=message):
            solver.step(2)


class Numbered(Dataset):
    """Items of one type of number, or dicts by top."""

    def __init__(self, kind: type, named: bool = False) -> None:
        self.kind, self.named = kind, named

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> object:
        x, y = np.full(3, index, self.kind), torch.full((4,), 2 * index)
        return {"y": y, "x": x} if self.named else (x, y)


@pytest.mark.parametrize("kind", [np.uint8, np.float64, np.int64, np.float32])
@pytest.mark.parametrize("named", [False, True])
def test_datasets_and_loaders_train_like_lists_of_their_batches(in_tmp: Path, kind: type, named: bool) -> None:
    rows = [(np.full(3, index, np.float32), np.full(4, 2 * index, np.float32)) for index in range(6)]
    written = [tuple(np.stack(column) for column in zip(*rows[at : at + 2], strict=True)) for at in (0, 2, 4)]
    losses = []
    dataset = Numbered(kind, named)
    for data in (written, dataset, DataLoader(dataset, batch_size=2, drop_last=True)):
        solver = plain(in_tmp, "random_seed: 5", data={"in": data})
        solver.step(8)  # more than the list has: it starts again
        losses.append(solver.losses)
    assert losses[0] == losses[1] == losses[2]


def test_a_dataset_is_read_with_the_batch_size_of_its_layer(in_tmp: Path) -> None:
    data_layer = (
        'layer { name: "in" type: "PairData" top: "x" top: "y" pair_data_param { source: "no" batch_size: 5 } }'
    )
    (in_tmp / "plain.prototxt").write_text("\n".join([data_layer, *PLAIN.splitlines()[2:]]))
    (in_tmp / "plain_solver.prototxt").write_text(PLAIN_SOLVER)
    solver = Solver(in_tmp / "plain_solver.prototxt", data={"in": Numbered(np.uint8)})
    assert solver.net.blobs(**solver.batches.next_batch())["x"].shape == (5, 3)


def test_a_shuffling_loader_with_a_seeded_generator_is_resumed_at_its_position(in_tmp: Path) -> None:
    def loader() -> DataLoader:
        return DataLoader(Numbered(np.float32), 2, shuffle=True, generator=torch.Generator().manual_seed(3))

    whole = plain(in_tmp, "random_seed: 5 snapshot: 5", data={"in": loader()})
    whole.step(11)
    resumed = Solver(in_tmp / "plain_solver.prototxt", snapshot="plain_iter_5.solverstate", data={"in": loader()})
    resumed.step(6)
    assert_same(tensors(resumed), tensors(whole))


def test_batches_can_replace_a_missing_database(in_tmp: Path) -> None:
    data_layer = 'layer { name: "in" type: "Data" top: "x" top: "y" data_param { source: "gone" batch_size: 2 } }'
    (in_tmp / "plain.prototxt").write_text("\n".join([data_layer, *PLAIN.splitlines()[2:]]))
    (in_tmp / "plain_solver.prototxt").write_text(PLAIN_SOLVER)
    solver = Solver(in_tmp / "plain_solver.prototxt", data={"in": plain_batches()})
    solver.step(2)
    assert len(solver.losses) == 2


def test_a_net_with_nothing_to_learn_runs_and_does_not_change(in_tmp: Path) -> None:
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


def test_a_net_without_a_loss_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = """
    layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 dim: 3 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 4 } }
    """
    (tmp_path / "net.prototxt").write_text(text)
    (tmp_path / "solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 1')
    Solver(tmp_path / "solver.prototxt").close()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [f"{tmp_path}/net.prototxt: no layer of the training net has a loss, so nothing is learned"]


def test_input_layers_without_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(NetError) as caught:
        plain(tmp_path, "").step(1)
    assert str(caught.value) == (
        f"{tmp_path}/plain.prototxt:2: layer 'in': its blobs have no data; pass them when the net is called ('x', "
        "'y'), or use a data layer"
    )
