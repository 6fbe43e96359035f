from __future__ import annotations

import json

import pytest

from siamese_proto import build_graph, parse_net
from siamese_proto.summary import count_text, shape_text, summarize, to_csv, to_json, to_markdown, to_text

NET = """name: "net"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 7 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv" param { name: "w" } param { name: "b" }
        convolution_param { num_output: 4 kernel_h: 3 kernel_w: 2 } }
layer { name: "again" type: "Convolution" bottom: "x" top: "again" param { name: "w" } param { }
        convolution_param { num_output: 4 kernel_h: 3 kernel_w: 2 } }
layer { name: "sum" type: "Eltwise" bottom: "conv" bottom: "again" top: "sum" }
"""


def summary_of(text: str):
    return summarize(build_graph(parse_net(text)))


def test_a_shared_weight_counts_once_and_an_own_bias_for_itself() -> None:
    made = summary_of(NET)
    weight, bias = 4 * 3 * 3 * 2, 4
    assert made.parameters == weight + 2 * bias
    assert made.unshared_parameters == 2 * (weight + bias)
    assert made.multiply_adds == 2 * (2 * 4 * 5 * 4) * (3 * 3 * 2)
    assert made.complete


def test_a_row_says_who_shares_with_the_layer() -> None:
    rows = {row.layer: row for row in summary_of(NET).rows}
    assert rows["conv"].shared_with == ("again",)
    assert rows["again"].shared_with == ("conv",)
    assert rows["sum"].shared_with == ()
    assert rows["again"].outputs == ((2, 4, 5, 4),)
    assert rows["again"].parameters == 76


def test_one_parameter_used_twice_by_one_layer_names_no_other() -> None:
    text = NET.replace('param { name: "w" } param { }', "param { } param { }")
    assert all(row.shared_with == () for row in summary_of(text).rows)


def test_what_is_not_known_is_left_out_of_the_totals_and_said() -> None:
    made = summary_of(NET + 'layer { name: "new" type: "NobodysLayer" bottom: "sum" top: "new" }')
    assert not made.complete
    assert made.rows[-1].parameters is None
    assert made.rows[-1].outputs == (None,)
    assert made.parameters == 80
    assert "Parameters: at least 80" in to_text(made)


def test_json_holds_every_field() -> None:
    read = json.loads(to_json(summary_of(NET)))
    assert read["rows"][1]["shared_with"] == ["again"]
    assert read["parameters"] == 80


def test_names_cannot_break_a_table() -> None:
    made = summary_of(NET.replace('name: "again"', 'name: "a|b,\\"c\\"\\n*d* <b>\\a"'))
    lines = to_text(made).splitlines()
    assert len(lines) == len(to_text(summary_of(NET)).splitlines())
    assert 'a|b,"c"\\n*d* <b>\\x07' in lines[5]
    rows = to_markdown(made).splitlines()[2:6]
    assert 'a\\|b,"c" \\*d\\* \\<b\\>' in rows[2]
    assert '"a|b,""c""\n*d* <b>\a"' in to_csv(made)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (9_996, "10.0 k"),
        (18_432_000, "18.4 M"),
        (999_499, "999 k"),
        (999_600, "1.00 M"),
        (999_999_999, "1.00 G"),
        (1_234_567_890_123, "1.23 T"),
    ],
)
def test_counts_have_three_figures_and_a_unit(count: int, text: str) -> None:
    assert count_text(count) == text


def test_shapes_are_written_with_an_x() -> None:
    assert [shape_text(shape) for shape in ((2, 3), (7,), (), None)] == ["2x3", "7", "scalar", "?"]
