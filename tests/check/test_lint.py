"""Near-misses of twins: each net, and the exact lines that check prints."""

# ruff: noqa: E501  # one finding per line

from __future__ import annotations

import pytest

from siamese_proto.check.net import check_net

HEAD = """layer { name: "in" type: "Input" top: "x" top: "y" top: "sim"
  input_param { shape { dim: 2 dim: 7 } shape { dim: 2 dim: 7 } shape { dim: 2 } } }
"""


def dense(name: str, bottom: str, params: str = "", outputs: int = 5, more: str = "") -> str:
    settings = f"inner_product_param {{ num_output: {outputs} {more} }}"
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}"\n  {params}\n  {settings} }}\n'
    )


def relu(name: str) -> str:
    return f'layer {{ name: "{name}_relu" type: "ReLU" bottom: "{name}" top: "{name}" }}\n'


def loss(first: str, second: str, label: str = "sim") -> str:
    return (
        f'layer {{ name: "loss" type: "ContrastiveLoss"\n  bottom: "{first}"\n  bottom: "{second}"\n'
        f'  bottom: "{label}"\n  top: "loss" }}\n'
    )


def named(*names: str) -> str:
    return " ".join(f'param {{ name: "{name}" }}' if name else "param { }" for name in names)


BOTH = named("w", "b")
DEEP = named("w2", "b2")
TWIN = dense("one", "x", BOTH) + relu("one") + dense("two", "one", DEEP, 3)
OTHER = dense("one_p", "y", BOTH) + relu("one_p") + dense("two_p", "one_p", DEEP, 3)

CASES = {
    "a twin that shares all": (TWIN + OTHER + loss("two", "two_p"), []),
    "a plain net": (dense("one", "x", BOTH) + dense("two", "one", DEEP), []),
    "a name that one layer uses": (
        TWIN + OTHER.replace("b2", "b2_right") + loss("two", "two_p"),
        [
            "15: warning[shared-once]: layer 'two_p': param name 'b2_right' is used by this layer only, so its bias is not shared; did you mean 'b2', as in layer 'two'?",
        ],
    ),
    "a bias without a name": (
        (TWIN + OTHER).replace(DEEP, named("w2")) + loss("two", "two_p"),
        ["14: warning[partly-shared]: layer 'two_p': shares parameters with layer 'two', but not its bias"],
    ),
    "a weight without a name": (
        (TWIN + OTHER).replace(DEEP, named("", "b2")) + loss("two", "two_p"),
        ["15: warning[partly-shared]: layer 'two_p': shares parameters with layer 'two', but not its weight"],
    ),
    "only the last layers share": (
        (TWIN + OTHER).replace(BOTH, "") + loss("two", "two_p"),
        [
            "10: warning[unshared-twin]: layer 'one_p': is the counterpart of layer 'one' in another tower, but shares no parameters with it, unlike other layers of these towers; give both the same param names"
        ],
    ),
    "a half-twin whose upper layers have unshared names": (
        TWIN + dense("three", "two", named("l3", "m3"))
        + (OTHER + dense("three_p", "two_p", named("r3", "s3"))).replace(DEEP, named("r2", "s2"))
        + loss("three", "three_p"),
        [],
    ),
    "a half-twin whose lower layers have unshared names": (
        (TWIN + dense("three", "two", named("w3", "b3"))).replace(BOTH, named("l1", "m1")).replace(DEEP, named("l2", "m2"))
        + (OTHER + dense("three_p", "two_p", named("w3", "b3"))).replace(BOTH, named("r1", "s1")).replace(DEEP, named("r2", "s2"))
        + loss("three", "three_p"),
        [],
    ),
    "a single layer with unshared names": (
        TWIN + OTHER.replace(DEEP, named("w3", "b3")) + loss("two", "two_p"),
        [
            "14: warning[unshared-twin]: layer 'two_p': is the counterpart of layer 'two' in another tower, but shares no parameters with it, unlike other layers of these towers; give both the same param names",
        ],
    ),
    "three towers, one of them separate": (
        dense("a", "x", BOTH) + dense("b", "y", BOTH) + dense("c", "x")
        + "".join(dense(f"{name}2", name, DEEP, 3) for name in "abc"),
        [
            "9: warning[unshared-twin]: layer 'c': is the counterpart of layer 'a' in another tower, but shares no parameters with it, unlike other layers of these towers; give both the same param names"
        ],
    ),
    "equal towers without a name": (
        TWIN.replace(BOTH, "").replace(DEEP, "") + OTHER.replace(BOTH, "").replace(DEEP, "") + loss("two", "two_p"),
        [
            "10: warning[unshared-towers]: layer 'one_p': the tower of 2 layers that starts here has the same structure as the tower of layer 'one', but they share no parameters and will learn different weights; give their layers the same param names"
        ],
    ),
    "equal towers that do not learn": (
        (TWIN + OTHER).replace(BOTH, "param { lr_mult: 0 } param { lr_mult: 0 }").replace(DEEP, "param { lr_mult: 0 } param { lr_mult: 0 }")
        + loss("two", "two_p"),
        [],
    ),
    "lr_mult in one tower": (
        TWIN.replace('"w"', '"w" lr_mult: 3 decay_mult: 0') + OTHER + loss("two", "two_p"),
        [
            "11: warning[one-sided-multiplier]: layer 'one_p': has no lr_mult for param 'w', but layer 'one' has lr_mult 3; Caffe uses that value for both: write it here too",
            "11: warning[one-sided-multiplier]: layer 'one_p': has no decay_mult for param 'w', but layer 'one' has decay_mult 0; Caffe uses that value for both: write it here too",
        ],
    ),
    "lr_mult in the second tower alone": (
        TWIN + OTHER.replace('"b"', '"b" lr_mult: 2') + loss("two", "two_p"),
        [
            "4: warning[one-sided-multiplier]: layer 'one': has no lr_mult for param 'b', but layer 'one_p' has lr_mult 2; Caffe uses that value for both: write it here too"
        ],
    ),
    "the default multiplier written out": (TWIN + OTHER.replace('"b"', '"b" lr_mult: 1') + loss("two", "two_p"), []),
    "other fillers": (
        dense("one", "x", BOTH, more='weight_filler { type: "gaussian" std: 0.01 }')
        + dense("one_p", "y", BOTH, more='weight_filler {\n    type: "xavier" }')
        + loss("one", "one_p"),
        [
            "8: warning[other-filler]: layer 'one_p': the filler of the shared param 'w' (xavier) has no effect: its owner, layer 'one', fills it (gaussian std 0.01)"
        ],
    ),
    "a filler only in the second tower": (
        dense("one", "x", BOTH) + dense("one_p", "y", BOTH, more='weight_filler { type: "xavier" }') + loss("one", "one_p"),
        [
            "8: warning[other-filler]: layer 'one_p': the filler of the shared param 'w' (xavier) has no effect: its owner, layer 'one', fills it (constant)"
        ],
    ),
    "a filler only in the first tower": (
        dense("one", "x", BOTH, more='weight_filler { type: "xavier" }') + dense("one_p", "y", BOTH) + loss("one", "one_p"),
        [],
    ),
    "one feature twice": (
        TWIN + OTHER + loss("two", "two"),
        ["19: warning[pair-bottoms]: layer 'loss': both features are 'two', so all distances are 0; use one of each tower"],
    ),
    "a feature and its bottom": (
        (TWIN + OTHER).replace("num_output: 3", "num_output: 5") + loss("one", "two"),
        ["19: warning[pair-bottoms]: layer 'loss': the feature 'two' is computed from the other feature, 'one'; use one of each tower"],
    ),
    "two features of one tower": (
        TWIN + OTHER
        + dense("side", "one", named("w3", "b3"), 3) + dense("side_p", "one_p", named("w3", "b3"), 3) + loss("two", "side"),
        ["25: warning[pair-bottoms]: layer 'loss': the features 'two' and 'side' come from the same tower; use one of each tower"],
    ),
    "features of different depth": (
        (TWIN + OTHER).replace("num_output: 3", "num_output: 5") + loss("one", "two_p"),
        ["19: warning[pair-bottoms]: layer 'loss': the features 'one' and 'two_p' are outputs of different layers of their towers; use the same layer of each"],
    ),
    "a feature and an input": (
        (TWIN + OTHER).replace("num_output: 3", "num_output: 7") + loss("two", "y"),
        ["19: warning[pair-bottoms]: layer 'loss': the feature 'y' comes from no tower, but 'two' does; use one of each tower"],
    ),
    "a label that is a feature": (
        (TWIN + OTHER).replace("num_output: 3", "num_output: 1") + loss("two", "two_p", "two_p"),
        ["20: warning[pair-bottoms]: layer 'loss': the label 'two_p' is also one of the features; use the labels of the pairs"],
    ),
    "a label that a tower computes": (
        (TWIN + OTHER).replace("num_output: 3", "num_output: 1") + dense("to_one", "two", outputs=1)
        + loss("two", "two_p", "to_one"),
        ["23: warning[pair-bottoms]: layer 'loss': the label 'to_one' is computed by a tower; the bottoms must be feature, feature, label"],
    ),
    "features of different widths": (
        TWIN.replace(DEEP, "") + OTHER.replace("num_output: 3", "num_output: 4").replace(DEEP, "") + loss("two", "two_p"),
        [
            "19: error[net]: layer 'loss': bottom 0 of shape (2, 3) has 3 features and bottom 1 of shape (2, 4) has 4: they must be equal",
        ],
    ),
    "an unknown layer, whose fields are not reported too, and a field that does nothing": (
        'layer { name: "p" type: "PermMatrix" bottom: "x" top: "z"\n  k: 3 }\n'
        'layer { name: "r" type: "ReLU" bottom: "x" top: "r"\n  pooling_param { pool: MAX } }\n',
        [
            "3: error[unknown-layer]: layer 'p': unknown layer type 'PermMatrix'",
            "6: warning[no-effect]: layer 'r': pooling_param has no effect on a layer of type ReLU, which reads relu_param",
        ],
    ),
    "an unknown field, twice": (
        'layer { name: "r" type: "ReLU" bottom: "x" top: "r" relu_param {\n  negative_slop: 1 } }\n',
        ["4: error[unknown-field]: layer 'r': unknown field 'negative_slop' in relu_param; did you mean 'negative_slope'?"],
    ),
}  # fmt: skip  # one finding per line


@pytest.mark.parametrize("case", CASES)
def test_check_reports_each_near_miss(case: str) -> None:
    text, expected = CASES[case]
    assert [str(finding).removeprefix("<text>:") for finding in check_net(HEAD + text)] == expected


def test_old_formats_are_reported_with_the_command_that_upgrades_them() -> None:
    inputs = 'input: "x"\ninput_dim: 2 input_dim: 3\ninput_dim: 7 input_dim: 5\n\n'
    command = ". To upgrade the file: siamese-proto upgrade '<text>' '<text>_new.prototxt'"
    v1 = 'layers { name: "r" type: RELU bottom: "x" top: "r" }\n'
    v0 = 'layers { layer { name: "r" type: "relu" } bottom: "x" top: "r" }\n'
    norm = 'layer { name: "n" type: "BatchNorm" bottom: "x" top: "n"\n param { lr_mult: 1 } param { } param { } }\n'
    assert [str(finding) for finding in check_net(inputs + v1)] == [
        "<text>:1: warning[old-dialect]: layers upgraded from V1 to the current format (1); "
        "input fields replaced by the layer 'input' of type Input" + command
    ]
    assert [str(finding) for finding in check_net(inputs + v0)] == [
        "<text>:1: warning[old-dialect]: layers upgraded from V0 to V1 (1); layers upgraded from V1 to the "
        "current format (1); input fields replaced by the layer 'input' of type Input" + command
    ]
    assert [str(finding) for finding in check_net(HEAD + norm)] == [
        "<text>:4: warning[old-dialect]: layer 'n': lr_mult and decay_mult of BatchNorm statistics set to 0" + command
    ]
