"""One line for one problem: kinds of fields without effect, layers of unknown types, files of other kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from problem_lines import problem_lines

from siamese_proto.check.net import check_net
from siamese_proto.cli.check import findings
from siamese_proto.errors import edits
from siamese_proto.layers.base import find_layer

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'


def dense(name: str, settings: str) -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "x" top: "{name}"\n'
        f"  inner_product_param {{ num_output: 5 {settings} }} }}\n"
    )


def test_fields_without_effect_are_one_line_for_each_kind_with_a_count() -> None:
    std = 'weight_filler { type: "xavier" std: 0.1 }'
    bias = 'bias_term: false bias_filler { type: "constant" }'
    text = INPUT + dense("a", std) + dense("b", f"{std} {bias}") + dense("c", std) + dense("d", bias)
    assert [str(finding) for finding in check_net(text)] == [
        "<text>:3: warning[no-effect]: layer 'a': inner_product_param.weight_filler.std has no effect on a filler of "
        "type 'xavier' (and in 2 more places of this file)",
        "<text>:5: warning[no-effect]: layer 'b': inner_product_param.bias_filler has no effect: bias_term is false "
        "(and in 1 more place of this file)",
    ]
    gaussian = 'weight_filler { type: "gaussian" value: 2 }'
    kinds = [finding.text for finding in check_net(INPUT + dense("a", std) + dense("b", gaussian))]
    assert len(kinds) == 2  # another field of another filler is a different kind
    assert not any("more place" in kind for kind in kinds)


def test_a_refused_filler_is_reported_at_every_place() -> None:
    text = INPUT + dense("a", 'weight_filler { type: "xaver" }') + dense("b", 'weight_filler { type: "xaver" }')
    assert [finding.location.line for finding in check_net(text)] == [3, 5]


def test_the_unknown_fields_of_a_layer_of_unknown_type_are_not_reported_again() -> None:
    layer = 'layer {{ name: "r" {} bottom: "x" top: "r" {} {{ pooled_w: 7 }} }}\n'
    text = INPUT + layer.format('type: "ROIPooling"', "roi_pooling_param")
    assert [str(finding) for finding in check_net(text)] == [
        "<text>:2: error[unknown-layer]: layer 'r': unknown layer type 'ROIPooling'"
    ]
    # A known type may have a misspelt field; if it has none, the type itself may be misspelt.
    codes = [finding.code for finding in check_net(INPUT + layer.format('type: "ReLU"', "relo_param"))]
    assert codes == ["unknown-field"]
    assert "unknown-field" in [f.code for f in check_net(INPUT + layer.format('tipe: "ReLU"', "relu_param"))]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Convolutional", "Convolution"),
        ("Relu", "ReLU"),
        ("InnerProdct", "InnerProduct"),
        ("InnerProduct_p", "InnerProduct"),
        ("Contrastive", "ContrastiveLoss"),
        ("SoftmaxLoss", "SoftmaxWithLoss"),
        ("Slise", "Slice"),
        ("ROIPooling", None),
        ("DepthwiseConvolution", None),
        ("ConvolutionDepthwise", None),
        ("Convolution3D", None),
        ("ReLU6", None),
        ("SELU", None),
        ("PairwiseLoss", None),
        ("Quux", None),
    ],
)
def test_a_type_is_suggested_only_when_it_is_close(name: str, hint: str | None) -> None:
    with pytest.raises(Exception, match="unknown layer type") as caught:
        find_layer(name)
    expected = f"unknown layer type '{name}'" + (f"; did you mean '{hint}'?" if hint else "")
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("one", "other", "count"), [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)]
)
def test_edits_are_counted(one: str, other: str, count: int) -> None:
    assert edits(one, other) == edits(other, one) == count


PAGE = "\n\n<!DOCTYPE html>\n<html><body>layer {</body></html>"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (PAGE, 3, "expected a prototxt, got an HTML page; download the raw file instead of the web page"),
        ("<!-- saved -->\n<HTML lang='en'>", 2, "expected a prototxt, got an HTML page"),
        ('<?xml version="1.0"?>\n<layer/>', 1, "expected a prototxt, got an XML file"),
        (
            '\nitem { name: "cat" label: 1 }\nitem { name: "dog" label: 2 }',
            2,
            "expected a net or a solver file, got a label map (2 items with",
        ),
        (
            'layer { name: "a" type: "Input" top: "x" input_param { shape { dim: 2 } } }\nitem { name: "dog" }',
            2,
            "unknown field 'item'",
        ),
    ],
)
def test_a_file_of_another_kind_is_named_in_one_line(text: str, line: int, message: str, tmp_path: Path) -> None:
    file = tmp_path / "net.prototxt"
    file.write_text(text)
    (finding, *_) = (each for each in findings(file) if each.severity == "error")
    assert (finding.location.line, finding.severity) == (line, "error")
    assert finding.text.startswith(message)


def test_angle_brackets_of_the_text_format_are_no_page() -> None:
    assert check_net('layer < name: "in" type: "Input" top: "x" input_param < shape < dim: 2 > > >') == []
    assert problem_lines("a: b\n    source\n    ^") == ["a: b"]
