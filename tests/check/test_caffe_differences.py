"""Nets for which real Caffe computes something else, or which it refuses: each rule finds only its case.

The losses and gradients named in comments are those of BVLC Caffe 1.0.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from siamese_proto.check.net import check_net
from siamese_proto.check.solver import check_solver

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 } } }\n'
DENSE = "inner_product_param { num_output: 4 bias_term: false }"
NET = INPUT + f'layer {{ name: "a" type: "InnerProduct" bottom: "x" top: "a" {DENSE} }}\n'


def one(kind: str, bottom: str, top: str, more: str = "") -> str:
    """A layer named after its top, or after its type if it works in place."""
    name = kind.lower() if bottom == top else top
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {more} }}\n'


def total(bottom: str, top: str = "s") -> str:
    """The sum of a blob as a loss."""
    return one("Reduction", bottom, top, "loss_weight: 1")


def caffe_findings(text: str) -> list[str]:
    return [
        f"{finding.location.line} {finding.code.removeprefix('caffe-')} {finding.text}"
        for finding in check_net(text)
        if finding.code.startswith("caffe-")
    ]


SPLIT = 'layer { name: "k" type: "Split" bottom: "a" top: "p" top: "q" }\n'
SLICE = one("Slice", "a", "p", 'top: "q" loss_weight: 2 loss_weight: 3')
RESHAPE = one("Reshape", "a", "r", "reshape_param { shape { dim: 1 dim: 2 dim: 2 } }")
LABEL = 'layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 1 } } }\n'
SOFTMAX = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "a" bottom: "y" top: "loss" MORE }\n'
ACCURACY = 'layer { name: "acc" type: "Accuracy" bottom: "a" bottom: "y" top: "acc" }\n'
SEQUENCE = (
    'layer { name: "x" type: "Input" top: "x" top: "c" '
    "input_param { shape { dim: 3 dim: 1 dim: 2 } shape { dim: 3 dim: 1 } } }\n"
)


def recurrent(name: str, kind: str = "LSTM", param: str = 'param { name: "w" }') -> str:
    settings = "recurrent_param { num_output: 2 }"
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "x" bottom: "c" top: "{name}" {param} {settings} }}\n'


DISTANCE = 'layer { name: "d" type: "EuclideanLoss" bottom: "l" bottom: "m" top: "d" }\n'
FIRST_STEP = (
    "3 differs layer 'm': shares parameters with layer 'l'; in TRAIN, Caffe uses the shared ones at the first time "
    "step only, and separate values after that"
)


def loses(line: int, maker: str, kind: str) -> str:
    return (
        f"{line} differs layer 'f': flattens the top of layer '{maker}' ({kind}); Caffe loses the gradient between the "
        "two, so nothing before them learns from this path"
    )


def shared(line: int, layer: str, changed: str, other: str, reader: str) -> str:
    return (
        f"{line} differs layer '{layer}': changes '{changed}' in place; in Caffe, '{other}' uses the same memory, so "
        f"layer '{reader}' reads the changed values"
    )


def computed(line: int, layer: str, changed: str, maker: str, kind: str) -> str:
    return (
        f"{line} differs layer '{layer}': changes '{changed}' in place; in Caffe, layer '{maker}' ({kind}) computes "
        f"its gradient from the changed values"
    )


def refused(line: int, layer: str, why: str) -> str:
    return (
        f"{line} refuses layer '{layer}': changes 'a' in place, but {why}; Caffe stops (produced by multiple "
        f"sources): rename the top"
    )


def without(line: int, layer: str, name: str) -> str:
    return (
        f"{line} differs layer '{layer}': works in place; Caffe computes the gradient from '{name}', which is "
        f"overwritten by then"
    )


FLAT = one("Flatten", "a", "f")
RELU_F = one("ReLU", "f", "f")
DROPS = (
    "3 differs layer 'p': has several tops with a loss_weight, and other layers read 'p'; Caffe then ignores the "
    "loss_weight of 'q'"
)
FORCED = "force_backward: true\n"

CASES = {
    # In TRAIN the second LSTM of Caffe gives a loss of 6.7e-5 with equal inputs; ours 0. In TEST both give 0.
    "recurrent twins": (SEQUENCE + recurrent("l") + recurrent("m") + DISTANCE, [FIRST_STEP]),
    "recurrent twins of RNN": (SEQUENCE + recurrent("l", "RNN") + recurrent("m", "RNN") + DISTANCE, [FIRST_STEP]),
    "recurrent layers apart": (SEQUENCE + recurrent("l", param="") + recurrent("m", param="") + DISTANCE, []),
    "recurrent twins of one step": (
        (SEQUENCE + recurrent("l") + recurrent("m") + DISTANCE).replace("dim: 3", "dim: 1"),
        [],
    ),
    "recurrent twins in TEST": (
        (SEQUENCE + recurrent("l") + recurrent("m") + DISTANCE).replace(
            "recurrent_param", "include { phase: TEST } recurrent_param"
        ),
        [],
    ),
    # The first column of the gradient of a's weights: Caffe 0 0 0 0, ours 1 1 1 1.
    "reshape, flatten": (NET + RESHAPE + one("Flatten", "r", "f") + total("f"), [loses(4, "r", "Reshape")]),
    "reshape, in place, flatten": (
        NET + RESHAPE + one("ReLU", "r", "r") + one("Flatten", "r", "f") + total("f"),
        [loses(5, "r", "Reshape")],
    ),
    "recurrent, flatten": (SEQUENCE + recurrent("l") + one("Flatten", "l", "f") + total("f"), [loses(3, "l", "LSTM")]),
    "reshape, flatten of a copy": (NET + RESHAPE + one("Flatten", "r", "f") + total("f") + total("r", "t"), []),
    "reshape, flatten of data": (INPUT + RESHAPE.replace('"a"', '"x"') + one("Flatten", "r", "f") + total("f"), []),
    "flatten, flatten": (NET + FLAT + one("Flatten", "f", "g") + total("g"), []),
    "flatten, reshape": (NET + FLAT + RESHAPE.replace('"a"', '"f"') + total("r"), []),
    # The loss: Caffe 0, ours -20.
    "flatten alias": (
        NET + FLAT + RELU_F + total("a") + total("f", "t"),
        [shared(4, "relu", "f", "a", "s")],
    ),
    "split alias": (
        NET + SPLIT + one("ReLU", "p", "p") + total("q") + total("p", "t"),
        [shared(4, "relu", "p", "q", "s")],
    ),
    "split alias, read before": (NET + SPLIT + total("q") + one("ReLU", "p", "p") + total("p", "t"), []),
    "split alias, learned before": (
        NET + SPLIT + one("InnerProduct", "q", "i", DENSE) + one("ReLU", "p", "p") + total("p", "t") + total("i", "u"),
        [computed(5, "relu", "p", "i", "InnerProduct")],
    ),
    "split alias, frozen before": (
        NET
        + SPLIT
        + one("InnerProduct", "q", "i", "param { lr_mult: 0 } " + DENSE)
        + one("ReLU", "p", "p")
        + total("p", "t")
        + total("i", "u"),
        [],
    ),
    "alias that no other layer reads": (NET + FLAT + RELU_F + total("f"), []),
    "alias of the changed numbers": (NET + FLAT + RELU_F + one("Flatten", "f", "g") + total("g"), []),
    "dropout in TEST changes nothing": (
        NET.replace('bottom: "x"', 'bottom: "x" include { phase: TEST }')
        + (FLAT + one("Dropout", "f", "f") + total("a") + total("f", "t")).replace(
            "top:", "include { phase: TEST } top:"
        ),
        [],
    ),
    # The loss and the gradient: Caffe 20 and 2 2 0 0, ours 50 and 2 2 3 3.
    "several weighted tops": (NET + SLICE + one("Reduction", "p", "s"), [DROPS]),
    "several weighted tops, unread": (NET + SLICE, []),
    "several weighted tops, all read": (NET + SLICE + one("Reduction", "p", "s") + one("Reduction", "q", "t"), []),
    "weighted, then in place": (
        NET.replace('top: "a"', 'top: "a" loss_weight: 2') + one("TanH", "a", "a") + total("a"),
        [refused(3, "tanh", "it has a loss_weight")],
    ),
    "read, then in place": (
        NET + one("Reduction", "a", "t") + one("ReLU", "a", "a") + total("a"),
        [refused(4, "relu", "layer 't' reads it too")],
    ),
    "learned from, then in place": (
        NET + one("InnerProduct", "a", "i", DENSE) + one("ReLU", "a", "a") + total("a") + total("i", "t"),
        [refused(4, "relu", "layer 'i' reads it too")],
    ),
    "in place, then read": (NET + one("ReLU", "a", "a") + total("a") + total("a", "t"), []),
    **{
        f"in place after {kind}": (
            NET + one(kind, "a", "b") + one("Dropout", "b", "b") + total("b"),
            [computed(4, "dropout", "b", "b", kind)],
        )
        for kind in ("Sigmoid", "TanH", "ELU", "Swish", "Exp", "Softmax", "MVN")
    },
    "in place after Sigmoid in place": (
        NET + one("Sigmoid", "a", "a") + one("Dropout", "a", "a") + total("a"),
        [computed(4, "dropout", "a", "sigmoid", "Sigmoid")],
    ),
    # Its numbers are positive: ReLU leaves them as they are.
    "ReLU after Sigmoid in place": (NET + one("Sigmoid", "a", "a") + one("ReLU", "a", "a") + total("a"), []),
    "ReLU and Dropout after Sigmoid": (
        NET + one("Sigmoid", "a", "b") + one("ReLU", "b", "b") + one("Dropout", "b", "b") + total("b"),
        [computed(5, "dropout", "b", "b", "Sigmoid")],
    ),
    # Where ReLU writes zeros, it has made the gradient zero as well.
    **{
        f"ReLU after {kind}": (NET + one(kind, "a", "b") + one("ReLU", "b", "b") + total("b"), [])
        for kind in ("Sigmoid", "TanH", "ELU", "Swish", "Exp", "Softmax")
    },
    "ReLU after LRN": (
        NET.replace(DENSE, "convolution_param { num_output: 4 kernel_size: 1 }")
        .replace("InnerProduct", "Convolution")
        .replace("dim: 1 dim: 4", "dim: 1 dim: 4 dim: 2 dim: 3")
        + one("LRN", "a", "b")
        + one("ReLU", "b", "b")
        + total("b"),
        [],
    ),
    "ReLU after MVN": (
        NET + one("MVN", "a", "b") + one("ReLU", "b", "b") + total("b"),
        [computed(4, "relu", "b", "b", "MVN")],
    ),
    "leaky ReLU after TanH": (
        NET + one("TanH", "a", "b") + one("ReLU", "b", "b", "relu_param { negative_slope: 0.1 }") + total("b"),
        [computed(4, "relu", "b", "b", "TanH")],
    ),
    "ReLU and Dropout after TanH": (
        NET + one("TanH", "a", "b") + one("ReLU", "b", "b") + one("Dropout", "b", "b") + total("b"),
        [computed(4, "relu", "b", "b", "TanH")],
    ),
    "in place after Sigmoid and Flatten": (
        NET + one("Sigmoid", "a", "b") + FLAT.replace('"a"', '"b"') + one("Dropout", "f", "f") + total("f"),
        [computed(5, "dropout", "f", "b", "Sigmoid")],
    ),
    "in place after a Sigmoid without gradient": (INPUT + one("Sigmoid", "x", "b") + one("ReLU", "b", "b"), []),
    **{
        f"in place after a product, stable_prod_grad {stable}": (
            NET
            + one("InnerProduct", "x", "c", DENSE)
            + one("Eltwise", "a", "b", f'bottom: "c" eltwise_param {{ operation: PROD stable_prod_grad: {stable} }}')
            + one("Dropout", "b", "b")
            + total("b"),
            expected,
        )
        for stable, expected in (("true", []), ("false", [computed(5, "dropout", "b", "b", "Eltwise")]))
    },
    "in place after ReLU": (NET + one("ReLU", "a", "a") + one("Dropout", "a", "a") + total("a"), []),
    "in place after Power 1": (NET + one("Power", "a", "b") + one("ReLU", "b", "b") + total("b"), []),
    "Power in place": (
        NET + one("Power", "a", "a", "power_param { power: 3 }") + total("a"),
        [without(3, "power", "a")],
    ),
    "Power 1 in place": (NET + one("Power", "a", "a", "power_param { scale: 3 }") + total("a"), []),
    "Log in place": (NET + one("Log", "a", "a") + total("a"), [without(3, "log", "a")]),
    "Eltwise in place": (
        NET + one("Eltwise", "a", "a", 'bottom: "x"') + total("a"),
        ["3 differs layer 'eltwise': works in place; Caffe overwrites 'a' before it has read all of it"],
    ),
    "Softmax with two weighted tops": (
        NET + LABEL + SOFTMAX.replace("MORE", 'top: "prob" loss_weight: 1 loss_weight: 2'),
        [
            "4 refuses layer 'loss': has two tops with a loss_weight each; Caffe stops: the inner Softmax has one "
            "top. Remove one"
        ],
    ),
    "Softmax with two tops": (
        NET + LABEL + SOFTMAX.replace("MORE", 'top: "prob"'),
        ["4 refuses layer 'loss': has several tops and no loss_weight; Caffe stops: write a loss_weight for each top"],
    ),
    "Softmax with one top": (NET + LABEL + SOFTMAX.replace("MORE", "loss_weight: 2"), []),
    "force_backward through Accuracy": (
        FORCED + NET + LABEL + SOFTMAX.replace("MORE", "") + ACCURACY,
        [
            "6 refuses layer 'acc': stops Caffe's backward pass: force_backward needs a gradient of Accuracy, which "
            "has none"
        ],
    ),
    "Accuracy without force_backward": (NET + LABEL + SOFTMAX.replace("MORE", "") + ACCURACY, []),
    "force_backward, Accuracy in TEST": (
        FORCED + NET + LABEL + SOFTMAX.replace("MORE", "") + ACCURACY.replace("top:", "include { phase: TEST } top:"),
        [],
    ),
    "layers of one name": (
        NET + one("InnerProduct", "a", "b", DENSE).replace('name: "b"', 'name: "a"') + total("b"),
        [
            "3 differs layer 'a': has the same name as the layer in line 2, but other parameters; Caffe loads every "
            "entry of this name in a weights file into the first of these layers (here: each its own)"
        ],
    ),
    "layers of one name that share": (
        (NET + one("InnerProduct", "a", "b", DENSE).replace('name: "b"', 'name: "a"') + total("b")).replace(
            "inner_product_param", 'param { name: "w" } inner_product_param'
        ),
        [],
    ),
    "layers of one name without parameters": (
        NET + one("ReLU", "a", "b") + one("ReLU", "b", "c").replace("c", "b", 1),
        [],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_differences_from_caffe_are_reported_with_the_reason(case: str) -> None:
    text, expected = CASES[case]
    assert [finding for finding in check_net(text) if finding.severity == "error"] == []
    assert caffe_findings(text) == expected


def test_a_difference_from_caffe_is_a_warning_at_the_field() -> None:
    text, _ = CASES["several weighted tops"]
    (finding,) = (finding for finding in check_net(text) if finding.code == "caffe-differs")
    assert finding.severity == "warning"
    assert text.splitlines()[finding.location.line - 1][finding.location.column - 1 :].startswith("loss_weight: 3")


TWO_ONES = NET + one("ReLU", "a", "b").replace('name: "b"', 'name: "a"') + total("b")
HDF5 = 'base_lr: 0.01\nlr_policy: "fixed"\nmax_iter: 10\nsnapshot: 5\nsnapshot_format: HDF5\n'


@pytest.mark.parametrize(
    ("net", "solver", "expected"),
    [
        (TWO_ONES, HDF5, "layers in lines 2 and 3 of NET are named 'a'"),
        (TWO_ONES, HDF5.replace("snapshot: 5\n", ""), "layers in lines 2 and 3 of NET are named 'a'"),
        (TWO_ONES, HDF5.replace("snapshot: 5", "snapshot_after_train: false"), None),
        (TWO_ONES, HDF5.replace("HDF5", "BINARYPROTO"), None),
        (NET + total("a"), HDF5, None),
        (NET + total("a").replace('name: "s"', 'name: "s/1"'), HDF5, "layer 's/1' (line 3 of NET) has a / in its name"),
        (NET + total("a").replace('name: "s"', 'name: "a/1"'), HDF5, None),  # a group "a" exists by then
    ],
)
def test_snapshots_that_caffe_cannot_write_as_hdf5_are_reported(
    net: str, solver: str, expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / "net.prototxt").write_text(net)
    (tmp_path / "solver.prototxt").write_text('net: "net.prototxt"\n' + solver)
    line = 1 + solver.partition("snapshot_format")[0].count("\n") + 1
    findings = [(f.location.line, f.text) for f in check_solver(tmp_path / "solver.prototxt") if "caffe-" in f.code]
    end = "; Caffe stops at the first snapshot; rename them or use BINARYPROTO"
    full = f"snapshot_format HDF5: {expected}{end}".replace("NET", str(tmp_path / "net.prototxt"))
    assert findings == ([(line, full)] if expected else [])
