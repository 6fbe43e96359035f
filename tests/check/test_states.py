"""States in which a net is checked: those of its solver, and findings that differ only between phases."""

from __future__ import annotations

from pathlib import Path

import pytest

from siamese_proto.check.net import check_net
from siamese_proto.check.solver import check_solver

DATA = (
    'layer {{ name: "d" type: "Input" top: "x" top: "y" include {{ {} }}\n'
    "  input_param {{ shape {{ dim: 8 dim: 3 }} shape {{ dim: 8 }} }} }}\n"
)
HEAD = """\
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
ACCURACY = (
    'layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "y" top: "accuracy" include { phase: TEST } }\n'
)
FIT = 'base_lr: 0.01\nlr_policy: "fixed"\nmax_iter: 10\n'
TESTED = "test_iter: 1\ntest_interval: 5\n"


def findings(folder: Path, net: str, solver: str) -> list[str]:
    (folder / "net.prototxt").write_text(net)
    (folder / "solver.prototxt").write_text('net: "net.prototxt"\n' + FIT + solver)
    return [str(finding).replace(f"{folder}/", "") for finding in check_solver(folder / "solver.prototxt")]


@pytest.mark.parametrize(
    ("rules", "solver"),
    [
        (("phase: TRAIN", 'phase: TEST stage: "on-test"'), 'test_state { stage: "on-test" }\n' + TESTED),
        (('phase: TRAIN stage: "fit"', "phase: TEST"), 'train_state { stage: "fit" }\n' + TESTED),
        (("phase: TRAIN min_level: 2", "phase: TEST"), "train_state { level: 2 }\n" + TESTED),
        (("phase: TRAIN", "phase: TEST max_level: -1"), "test_state { level: -1 }\n" + TESTED),
        (("phase: TRAIN", 'phase: TEST stage: "never built"'), ""),
    ],
)
def test_only_the_solver_determines_which_states_of_its_net_are_checked(
    rules: tuple[str, str], solver: str, tmp_path: Path
) -> None:
    net = "".join(map(DATA.format, rules)) + HEAD + ACCURACY
    assert findings(tmp_path, net, solver) == []


def test_each_of_several_test_nets_is_checked_in_its_state(tmp_path: Path) -> None:
    stages = ("phase: TRAIN", 'phase: TEST stage: "one"', 'phase: TEST stage: "two"')
    two = 'layer { name: "r" type: "ReLU" bottom: "ipp" top: "r" include { stage: "two" } }\n'
    solver = 'test_state { stage: "one" }\ntest_state { stage: "STAGE" }\ntest_iter: 1\n' + TESTED
    net = "".join(map(DATA.format, stages)) + HEAD + two
    assert findings(tmp_path, net, solver.replace("STAGE", "one")) == []
    assert findings(tmp_path, net, solver.replace("STAGE", "two")) == [
        "net.prototxt:9: error[net]: layer 'r': unknown bottom blob 'ipp' (index 0); did you mean 'ip'?"
    ]


def test_a_phase_written_in_a_solvers_state_counts(tmp_path: Path) -> None:
    net = DATA.format("phase: TRAIN") + HEAD
    assert findings(tmp_path, net, "test_state { phase: TRAIN }\n" + TESTED) == []


def test_a_net_written_inside_the_solver_is_checked_too(tmp_path: Path) -> None:
    layer = 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 2 } }'
    (tmp_path / "solver.prototxt").write_text(f"net_param {{\n{layer}\n}}\n{FIT}")
    findings = [(finding.location.line, finding.text) for finding in check_solver(tmp_path / "solver.prototxt")]
    assert findings == [(2, "layer 'ip': unknown bottom blob 'x' (index 0)")]


def test_findings_that_differ_only_in_the_phase_are_one() -> None:
    wide = 'layer { name: "cut" type: "Slice" bottom: "x" top: "a" top: "b" }\n'
    train, test = DATA.format("phase: TRAIN"), DATA.format("phase: TEST").replace("dim: 8", "dim: 5")
    assert [str(finding) for finding in check_net(train + test + wide)] == [
        "<text>:5: error[net]: layer 'cut': 2 tops do not divide axis 1 of size 3 into equal parts: set slice_point"
    ]
    concat = 'layer { name: "join" type: "Concat" bottom: "x" bottom: "y" top: "j" }\n'
    (finding,) = check_net(train + test + concat)
    assert "(8,)" in finding.text
    assert finding.text.endswith(" (phases TRAIN and TEST; the numbers are for TRAIN)")
