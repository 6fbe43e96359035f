"""Labels of pairs other than 0 and 1: one rule wherever they enter, and a mapping that says what they mean."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import siamese_proto as sp
from siamese_proto.check.net import check_net
from siamese_proto.cli import main
from siamese_proto.data.databases.database import create_database, open_database
from siamese_proto.data.databases.datum import parse_datum
from siamese_proto.errors import DataError, NetError
from siamese_proto.layers.pair_labels import odd_labels, read_pair_labels
from siamese_proto.proto import schema

CASES = {"pm": [1, -1, -1, -1], "frac": [0.9, 0.1, 0.1, 0.1]}
MAPPINGS = {"pm": "same=1,different=-1", "frac": "same=0.5:,different=:0.5"}
SAID = {
    "pm": "the labels of its pairs are -1 (3 times), 1 (once), expected 0 and 1; a label whose whole part is not 0 "
    "counts as same, as in Caffe, so 4 of 4 pairs count as same and 0 as different",
    "frac": "the labels of its pairs are 0.1 (3 times), 0.9 (once), expected 0 and 1; a label whose whole part is not "
    "0 counts as same, as in Caffe, so 0 of 4 pairs count as same and 4 as different",
}
PAIR_DATA = (
    'layer { name: "p" type: "PairData" top: "a" top: "b" top: "y" transform_param { scale: 0.01 } '
    'pair_data_param { source: "%s.csv" is_color: false batch_size: 4 %s } }'
)
TOWERS = "".join(
    f"""
layer {{ name: "ip_{side}" type: "InnerProduct" bottom: "{side}" top: "f{side}" param {{ name: "w" }}
        inner_product_param {{ num_output: 2 bias_term: false weight_filler {{ type: "xavier" }} }} }}"""
    for side in "ab"
)
LOSS = '\nlayer { name: "l" type: "ContrastiveLoss" bottom: "fa" bottom: "fb" bottom: "y" top: "l" }\n'
SOLVER = 'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 2 random_seed: 1 snapshot_after_train: false'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(random.integers(0, 256, (3, 2)).astype(np.uint8)).save(f"i{number}.png")
    for name, labels in CASES.items():
        lines = [f"i{number}.png,i{number + 1}.png,{label}\n" for number, label in enumerate(labels)]
        Path(f"{name}.csv").write_text("".join(lines))
    return tmp_path


def hdf5_source(labels: Iterable[float]) -> str:
    labels = list(labels)
    with h5py.File("0.h5", "w") as file:
        file["a"], file["b"] = np.random.default_rng(1).normal(size=(2, len(labels), 3)).astype(np.float32)
        file["y"] = np.array(labels, np.float32)
    Path("list.txt").write_text("0.h5\n")
    return (
        'layer { name: "p" type: "HDF5Data" top: "a" top: "b" top: "y" '
        'hdf5_data_param { source: "list.txt" batch_size: 4 } }'
    )


def database_source(labels: Iterable[int]) -> str:
    with create_database("db", "LMDB") as writer:
        for number, label in enumerate(labels):
            datum = schema.Datum(channels=2, height=1, width=2, label=label, data=bytes(4))
            writer.put([(b"%03d" % number, datum.SerializeToString())])
    return (
        'layer { name: "p" type: "Data" top: "ab" top: "y" data_param { source: "db" backend: LMDB batch_size: 4 } }'
        'layer { name: "cut" type: "Slice" bottom: "ab" top: "a" top: "b" }'
    )


def net(source: str) -> str:
    Path("net.prototxt").write_text(source + TOWERS + LOSS)
    Path("solver.prototxt").write_text(SOLVER)
    return "net.prototxt"


def findings(path: str) -> list[tuple[str, str, str]]:
    return [(found.severity, found.code, found.text) for found in check_net(path)]


@pytest.mark.parametrize("case", CASES)
def test_pair_data_refuses_labels_that_its_loss_would_take_for_another_task(case: str, folder: Path) -> None:
    path = net(PAIR_DATA % (case, ""))
    text = f'{SAID[case]}; map them: pair_labels: "{MAPPINGS[case]}"'
    assert findings(path) == [("error", "pair-labels", f"layer 'p': {text}")]
    with pytest.raises(NetError, match=r"^net.prototxt:1: layer 'p': the labels of its pairs are") as caught:
        sp.Solver("solver.prototxt")
    assert text in str(caught.value)


@pytest.mark.parametrize("case", CASES)
def test_pair_data_delivers_mapped_labels_as_1_and_0(case: str, folder: Path) -> None:
    path = net(PAIR_DATA % (case, f'pair_labels: "{MAPPINGS[case]}"'))
    assert findings(path) == []
    running = sp.Net(path)
    assert running.pull()["y"].tolist() == [1, 0, 0, 0]
    running.close()
    sp.Solver("solver.prototxt").solve()


def test_a_measured_likeness_is_delivered_as_it_is_where_no_pair_loss_reads_it(folder: Path) -> None:
    Path("net.prototxt").write_text(
        PAIR_DATA % ("frac", "")
        + TOWERS
        + """
layer { name: "d" type: "Distance" bottom: "fa" bottom: "fb" top: "d" }
layer { name: "l" type: "EuclideanLoss" bottom: "d" bottom: "y" top: "l" }"""
    )
    assert findings("net.prototxt") == []
    running = sp.Net("net.prototxt")
    assert running.pull()["y"].tolist() == pytest.approx([0.9, 0.1, 0.1, 0.1])
    running.close()


@pytest.mark.parametrize("case", CASES)
def test_hdf5_labels_are_trained_on_as_caffe_does_and_told(
    case: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = net(hdf5_source(CASES[case]))
    text = f"{SAID[case]}; write 0 and 1, or map them with a Power layer before the loss"
    assert findings(path) == [("warning", "pair-labels", f"layer 'p': {text}")]
    with caplog.at_level(logging.WARNING):
        solver = sp.Solver("solver.prototxt")
        solver.step(1)
    messages = [record.getMessage() for record in caplog.records]
    assert [message for message in messages if "pairs" in message] == [f"net.prototxt:1: layer 'p': {text}"]
    with h5py.File("0.h5") as file:
        difference = (file["a"][:] - file["b"][:]) @ solver_weight(path).T
    squared = (difference**2).sum(1)
    similar = np.abs(CASES[case]) >= 1
    terms = np.where(similar, squared, np.maximum(1 - np.sqrt(squared), 0) ** 2)
    assert solver.losses[0] == pytest.approx(terms.sum() / 8, rel=1e-5)


def solver_weight(path: str) -> np.ndarray:
    """The weights that a solver with seed 1 begins with."""
    weight: np.ndarray = sp.Net(path, "TRAIN", seed=1).params["ip_a"][0].detach().numpy()
    return weight


def test_class_numbers_of_a_database_are_told_where_pairs_are_expected(folder: Path) -> None:
    path = net(database_source([3, 0, 1, 7, 2, 2, 5, 1, 0, 4]))
    (found,) = findings(path)
    assert found[:2] == ("warning", "pair-labels")
    assert "are 0 (twice" not in found[2]
    assert "0 (2 times), 1 (2 times), 2 (2 times), 3 (once), 4 (once) and 2 other values, expected 0 and 1" in found[2]
    assert "8 of 10 pairs count as same and 2 as different" in found[2]


@pytest.mark.parametrize("source", [[0, 1, 1, 0], [1], [0]])
def test_labels_0_and_1_are_told_nowhere(source: list[int], folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = net(hdf5_source(source))
    assert findings(path) == []
    with caplog.at_level(logging.WARNING):
        sp.Solver("solver.prototxt").step(1)
    assert not [record for record in caplog.records if "pairs" in record.getMessage()]


INPUTS = (
    'layer { name: "in" type: "Input" top: "a" top: "b" top: "y" input_param { shape { dim: 4 dim: 3 } '
    "shape { dim: 4 dim: 3 } shape { dim: 4 } } }"
)


@pytest.mark.parametrize("how", ["solver", "net"])
def test_labels_given_from_python_are_told_once_at_the_loss(
    how: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = net(INPUTS)
    batch = {"a": torch.randn(4, 3), "b": torch.randn(4, 3), "y": torch.tensor(CASES["pm"]).float()}
    with caplog.at_level(logging.WARNING):
        if how == "solver":
            sp.Solver("solver.prototxt", data={"in": [batch]}).step(2)
        else:
            running = sp.Net(path)
            running(**batch)
            running(**batch)
    told = [record.getMessage() for record in caplog.records if "pairs" in record.getMessage()]
    assert told == [f"layer 'l': in its first batch {SAID['pm']}"]


def test_labels_of_a_source_that_is_not_read_do_not_matter(folder: Path) -> None:
    net(PAIR_DATA % ("pm", ""))
    batch = {"a": torch.randn(4, 1, 3, 2), "b": torch.randn(4, 1, 3, 2), "y": torch.tensor([1.0, 0, 0, 1])}
    solver = sp.Solver("solver.prototxt", data={"p": [batch]})
    solver.step(1)
    assert solver.iteration == 1


def test_labels_that_a_layer_has_mapped_are_not_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    power = 'layer { name: "map" type: "Power" bottom: "pm" top: "y" power_param { scale: 0.5 shift: 0.5 } }'
    path = net(INPUTS.replace('"y"', '"pm"') + power)
    with caplog.at_level(logging.WARNING):
        sp.Net(path)(a=torch.randn(4, 3), b=torch.randn(4, 3), pm=torch.tensor(CASES["pm"]).float())
    assert caplog.records == []


# Commands


def run(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, arguments)
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("case", CASES)
def test_data_pairs_writes_labels_only_as_they_are_mapped(case: str, folder: Path) -> None:
    status, _, problem = run("data", "pairs", f"{case}.csv", "out", "--gray")
    values = {"pm": "-1 (3 times)", "frac": "0.1 (3 times), 0.9 (once)"}[case]
    assert status == 1
    assert problem == (
        f"'{case}.csv' has labels {values}, expected those of 'same=1,different=0'; specify their meaning, for example "
        f"{MAPPINGS[case]} (--pair-labels for a command, pair_labels in a PairData layer)\n"
    )
    assert not Path("out").exists()
    done = run("data", "pairs", f"{case}.csv", "out", "--gray", "--pair-labels", MAPPINGS[case])
    assert done == (0, "out: 4 pairs, 1 same and 3 different\n", "")
    with open_database("out") as database:
        assert [parse_datum(*record).label for record in database.records()] == [1, 0, 0, 0]


@pytest.mark.parametrize("case", CASES)
def test_evaluate_judges_labels_as_they_are_mapped(case: str, folder: Path) -> None:
    path = net(hdf5_source(CASES[case] * 5))
    sp.Net(path).save_weights("w.caffemodel")
    twin = ("evaluate", "--model", path, "--weights", "w.caffemodel", "--threshold", "1")
    status, _, problem = run(*twin)
    assert status == 1  # all of one kind, as the loss takes them
    assert problem.endswith("expected at least 1; give pairs of both kinds\n")
    assert "\n20 pairs, 5 same and 15 different: the net's own" in run(*twin, "--pair-labels", MAPPINGS[case])[1]

    Path("tower.prototxt").write_text(
        'layer { name: "in" type: "Input" top: "a" input_param { shape { dim: 1 dim: 1 dim: 3 dim: 1 } } }'
        + TOWERS.partition('\nlayer { name: "ip_b"')[0]
    )
    csv = (
        "evaluate",
        "--model",
        "tower.prototxt",
        "--weights",
        "w.caffemodel",
        "--threshold",
        "1",
        "--pairs",
        f"{case}.csv",
    )
    status, _, problem = run(*csv)
    assert status == 1
    assert problem.startswith(f"{3 if case == 'pm' else 4} labels of '{case}.csv' are neither 0 nor 1: ")
    assert f"with --pair-labels, for example {MAPPINGS[case]} " in problem
    mapped = run(*csv, "--pair-labels", MAPPINGS[case])[1]
    assert f"\n4 pairs, 1 same and 3 different: pairs of {case}.csv, labels {MAPPINGS[case]}\n" in mapped
    assert run(*csv, "--pair-labels", MAPPINGS[case], "--same-label", "1")[0] == 2


# The mapping


@pytest.mark.parametrize(
    ("text", "labels", "same"),
    [
        ("same=1,different=-1", [1, -1, 1], [True, False, True]),
        ("different=0.1, same=0.9", [0.9, 0.1], [True, False]),
        ("same=2,same=1,different=0", [0, 1, 2], [False, True, True]),
        ("same=:-0.5,different=-0.5:", [-1, -0.5, 0.5], [True, False, False]),
        ("same=1,different=0", [], []),
    ],
)
def test_a_mapping_says_which_labels_are_the_same(text: str, labels: list[float], same: list[bool]) -> None:
    mapped = read_pair_labels(text).are_same(np.array(labels, np.float32), "it")
    assert mapped.tolist() == same


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1",
            "pair labels '1': '1' is not 'same=NUMBER' or 'different=NUMBER'; write, for example, "
            "'same=1,different=-1'",
        ),
        ("same=x,different=0", "'same=x' is not 'same=NUMBER'"),
        ("same=nan,different=0", "'same=nan' is not 'same=NUMBER'"),
        ("same=2:1,different=0", "'same=2:1' is not"),
        ("same=1", "pair labels 'same=1' do not specify which labels mean 'different'; add different=NUMBER"),
        ("same=0.5:,different=:0.6", "list a label as both 'same' and 'different'; list it once"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_one_line(text: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_pair_labels(text)
    assert message in str(caught.value)


def test_a_mapping_that_pair_data_cannot_use_is_told_with_its_place(folder: Path) -> None:
    path = net(PAIR_DATA % ("pm", '\npair_labels: "same=1"'))
    assert "net.prototxt:2: error[net]: layer 'p': pair labels 'same=1' do not specify which" in str(check_net(path)[0])
    drawn = 'layer { name: "p" type: "PairData" top: "a" top: "b" top: "y" pair_data_param { source: "digits" %s } }'
    path = net(drawn % 'batch_size: 4\npair_labels: "same=1,different=0"')
    assert "net.prototxt:2: error[net]: layer 'p': pair_labels says what the labels of a CSV mean" in str(
        check_net(path)[0]
    )


def test_a_loss_whose_label_1_means_different_is_told_the_other_way_round() -> None:
    told = odd_labels(np.array([1, 2, 0]), one_is_same=False)
    assert "counts as different, as in Caffe, so 1 of 3 pairs count as same and 2 as different" in told
