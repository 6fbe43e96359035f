from __future__ import annotations

import csv
import io
import json
import unicodedata
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from siamese_proto import build_graph, parse_net
from siamese_proto.export.summary import (
    TITLES,
    bytes_text,
    cells,
    columns_that_fit,
    count_text,
    shape_text,
    summarize,
    to_csv,
    to_json,
    to_markdown,
    to_text,
)

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


def test_a_shared_weight_counts_once_and_an_unshared_bias_separately() -> None:
    summary = summary_of(NET)
    weight, bias = 4 * 3 * 3 * 2, 4
    assert summary.parameters == weight + 2 * bias
    assert summary.unshared_parameters == 2 * (weight + bias)
    assert summary.multiply_adds == 2 * (2 * 4 * 5 * 4) * (3 * 3 * 2)
    assert summary.complete


def test_a_row_lists_the_layers_that_share_its_parameters() -> None:
    rows = {row.layer: row for row in summary_of(NET).rows}
    assert rows["conv"].shared_with == ("again",)
    assert rows["again"].shared_with == ("conv",)
    assert rows["sum"].shared_with == ()
    assert rows["again"].outputs == ((2, 4, 5, 4),)
    assert rows["again"].parameters == 76


def test_one_parameter_used_twice_by_one_layer_names_no_other() -> None:
    text = NET.replace('param { name: "w" } param { }', "param { } param { }")
    assert all(row.shared_with == () for row in summary_of(text).rows)


def test_unknown_values_are_left_out_of_the_totals_and_reported() -> None:
    summary = summary_of(NET + 'layer { name: "new" type: "NobodysLayer" bottom: "sum" top: "new" }')
    assert not summary.complete
    assert summary.rows[-1].parameters is None
    assert summary.rows[-1].outputs == (None,)
    assert summary.parameters == 80
    assert "Parameters: at least 80" in to_text(summary)


def test_json_contains_every_field() -> None:
    read = json.loads(to_json(summary_of(NET)))
    assert read["rows"][1]["shared_with"] == ["again"]
    assert read["parameters"] == 80


def row_of(text: str, layer: str):
    return next(row for row in summary_of(text).rows if row.layer == layer)


def test_a_row_shows_trained_parameters_and_their_multipliers() -> None:
    text = NET.replace('param { name: "b" }', 'param { name: "b" lr_mult: 0 }').replace(
        'layer { name: "sum"', 'layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "bn" } layer { name: "sum"'
    )
    conv, bn = row_of(text, "conv"), row_of(text, "bn")
    assert (conv.trainable, conv.lr_mults) == (72, (1, 0))
    assert [blob.trainable for blob in conv.blobs] == [True, False]
    assert (bn.parameters, bn.trainable, bn.lr_mults) == (4 + 4 + 1, 0, (0, 0, 0))
    summary = summary_of(text)
    assert summary.trainable_parameters == 72 + 4  # the weight of both, and the second layer's own bias
    shown = {row.layer: dict(zip(TITLES, cells(row), strict=True))["Trainable"] for row in summary.rows}
    assert shown == {"x": "", "conv": "72", "again": "yes", "bn": "no", "sum": ""}
    assert "Trainable parameters: 76" in to_text(summary)


def test_a_multiplier_set_by_one_sharing_layer_applies_to_all() -> None:
    text = NET.replace('param { name: "w" } param { }', 'param { name: "w" lr_mult: 0.25 } param { }')
    assert row_of(text, "conv").lr_mults == (0.25, 1)


def test_a_layer_that_shares_some_of_its_blobs_lists_them() -> None:
    shown = dict(zip(TITLES, cells(row_of(NET, "again")), strict=True))
    assert shown["Shared with"] == "w: conv"
    twin = NET.replace("param { }", 'param { name: "b" }')
    assert dict(zip(TITLES, cells(row_of(twin, "again")), strict=True))["Shared with"] == "conv"


def test_many_sharing_layers_are_counted_in_tables_and_listed_in_data() -> None:
    conv = "\n".join(NET.splitlines()[2:4])
    text = "\n".join([NET, *(conv.replace('"conv"', f'"conv{number}"') for number in range(8))])
    row = row_of(text, "conv5")
    assert "w: conv, again, conv0 and 6 more; b: conv, conv0, conv1 and 5 more" in cells(row)
    assert row.shared_with == ("conv", "again", "conv0", "conv1", "conv2", "conv3", "conv4", "conv6", "conv7")


LENET = """name: "LeNet"
layer { name: "mnist" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 64 dim: 1 dim: 28 dim: 28 } shape { dim: 64 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 20 kernel_size: 5 } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2"
        convolution_param { num_output: 50 kernel_size: 5 } }
layer { name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool2" top: "ip1" inner_product_param { num_output: 500 } }
layer { name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""


def test_lenet_has_the_numbers_in_the_log_of_caffe() -> None:
    """Caffe's log says `Memory required for data: 5169924`; it includes the in-place output of ReLU."""
    summary = summary_of(LENET)
    assert summary.parameters == summary.unshared_parameters == summary.trainable_parameters == 431_080
    assert summary.activation_bytes == 5_169_924 - 4 * 64 * 500
    assert "unshared" not in to_text(summary)
    assert "Trainable parameters" not in to_text(summary)


def alexnet() -> str:
    text = """layer { name: "data" type: "Input" top: "data"
                      input_param { shape { dim: 1 dim: 3 dim: 227 dim: 227 } } }"""
    bottom = "data"
    for number, (outputs, kernel, more, pooled) in enumerate(
        [
            (96, 11, "stride: 4", True),
            (256, 5, "pad: 2 group: 2", True),
            (384, 3, "pad: 1", False),
            (384, 3, "pad: 1 group: 2", False),
            (256, 3, "pad: 1 group: 2", True),
        ],
        1,
    ):
        text += f"""layer {{ name: "conv{number}" type: "Convolution" bottom: "{bottom}" top: "conv{number}"
                    convolution_param {{ num_output: {outputs} kernel_size: {kernel} {more} }} }}"""
        bottom = f"conv{number}"
        if pooled:
            text += f"""layer {{ name: "pool{number}" type: "Pooling" bottom: "{bottom}" top: "pool{number}"
                        pooling_param {{ kernel_size: 3 stride: 2 }} }}"""
            bottom = f"pool{number}"
    for number, outputs in ((6, 4096), (7, 4096), (8, 1000)):
        text += f"""layer {{ name: "fc{number}" type: "InnerProduct" bottom: "{bottom}" top: "fc{number}"
                    inner_product_param {{ num_output: {outputs} }} }}"""
        bottom = f"fc{number}"
    return text


def test_alexnet_has_its_published_numbers() -> None:
    """60,965,224 parameters and 724 million multiply-adds per image."""
    summary = summary_of(alexnet())
    assert summary.parameters == 60_965_224
    assert summary.multiply_adds == 724_406_816
    assert summary.complete


def test_memory_counts_outputs_but_not_in_place_layers() -> None:
    text = NET + 'layer { name: "relu" type: "ReLU" bottom: "sum" top: "sum" }'
    assert row_of(text, "conv").activation_bytes == 4 * (2 * 4 * 5 * 4)
    assert row_of(text, "relu").activation_bytes == 0
    assert summary_of(text).activation_bytes == 4 * (2 * 3 * 7 * 5) + 3 * 4 * (2 * 4 * 5 * 4)


NASTY = [
    'a|b,"c"\n*d* <b>\a',
    "a\\|b",
    "`code` ``more|``",
    "[x](javascript:alert(1)) ![y](http://example.org/z.png)",
    "www.example.org http://example.org a@example.org",
    "<script>alert(1)</script> &lt;b&gt; &copy;",
    "trailing \\",
    "~~gone~~ __bold__ $x^2$ #1",
    "\u202egnp.exe\u2028 next\x00",
    "return\rhere \r\nand \x1b[1mthere",
]


@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_plain_text_in_markdown(name: str) -> None:
    """Read by a Markdown reader that knows GitHub's tables."""
    summary = summary_of(NET)
    rows = (summary.rows[0], replace(summary.rows[1], layer=name), *summary.rows[2:])
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(to_markdown(replace(summary, rows=rows)))
    in_lines = [token for token in tokens if token.type == "inline"]
    assert len(in_lines) == 5 * len(TITLES) + 1
    tokens = in_lines[2 * len(TITLES)].children
    assert {token.type for token in tokens} <= {"text", "text_special"}
    visible = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    assert "".join(token.content for token in tokens) == visible.strip()


@pytest.mark.parametrize("name", NASTY)
def test_a_name_cannot_break_a_line_of_the_plain_table(name: str) -> None:
    summary = summary_of(NET)
    lines = to_text(replace(summary, rows=(replace(summary.rows[0], layer=name), *summary.rows[1:]))).split("\n")
    assert len(lines) == len(to_text(summary).split("\n"))
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("name", [*NASTY, "a;b", "plain"])
def test_a_name_without_a_formula_is_unchanged_in_csv(name: str) -> None:
    summary = summary_of(NET)
    text = to_csv(replace(summary, rows=(replace(summary.rows[0], layer=name),)))
    assert next(csv.DictReader(io.StringIO(text, newline="")))["layer"] == name


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t'=1"),
        ("  =1", "  '=1"),
        ("\uff1d1", "'\uff1d1"),
        ("a;=1", "a;'=1"),
        ("a\n=1", "a\n'=1"),
        ("a\r=1", "a\r'=1"),
        ("a=1-2", "a=1-2"),
    ],
)
def test_a_formula_is_plain_text_in_csv_for_layers_and_lists_of_layers(name: str, written: str) -> None:
    summary = summary_of(NET)
    row = replace(summary.rows[1], layer=name, shared_with=("again", name))
    read = next(csv.DictReader(io.StringIO(to_csv(replace(summary, rows=(row,))), newline="")))
    assert read["layer"] == written
    assert read["shared_with"] == f"again;{written}"


def test_wide_characters_keep_the_columns_aligned() -> None:
    name = "畳み込み層"
    lines = to_text(summary_of(NET.replace('name: "again"', f'name: "{name}"'))).splitlines()
    head, row = lines[2], next(line for line in lines if line.startswith(name))

    def place(line: str, word: str) -> int:
        return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line[: line.index(word)])

    assert place(head, "Type") == place(row, "Convolution")


def test_columns_shrink_if_there_is_no_room() -> None:
    lines = [cells(row) for row in summary_of(NET).rows]
    everything, none = columns_that_fit(lines, 500)
    assert [TITLES[column] for column in everything] == list(TITLES)
    assert none == []
    least, left_out = columns_that_fit(lines, 1)
    assert [TITLES[column] for column in least] == ["Layer", "Type", "Outputs", "Parameters", "Shared with"]
    assert left_out == ["Settings", "lr_mult", "Memory", "Trainable", "Multiply-adds"]
    for width in range(40, 140):
        columns, left_out = columns_that_fit(lines, width)
        total_width = sum(max(len(TITLES[column]), *(len(line[column]) for line in lines)) + 2 for column in columns)
        assert total_width <= width or len(left_out) == 5
    plain = [cells(row) for row in summary_of(NET.replace('param { name: "w" }', "param { }")).rows]
    assert "Shared with" not in [TITLES[column] for column in columns_that_fit(plain, 500)[0]]


def test_a_net_with_only_unknown_values_is_reported() -> None:
    summary = summary_of('layer { name: "new" type: "NobodysLayer" top: "new" }')
    assert "Parameters: not known" in to_text(summary)
    assert (summary.rows[0].trainable, summary.rows[0].activation_bytes) == (None, None)
    assert to_csv(summary).splitlines()[1] == "new,NobodysLayer,,,,,,,,"


def test_a_net_without_layers_is_an_empty_table() -> None:
    summary = summary_of('name: "empty"')
    assert to_text(summary).splitlines()[0] == "empty (TRAIN)"
    assert to_csv(summary).count("\n") == 1
    assert len(to_markdown(summary).splitlines()) == 2 + 1 + 3


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (512, "512 B"), (2_560, "2.56 kB"), (5_041_924, "5.04 MB")])
def test_bytes_have_a_unit(count: int, text: str) -> None:
    assert bytes_text(count) == text


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


def test_a_layer_of_unknown_type_is_listed_as_sharing_its_parameters() -> None:
    text = 'layer { name: "odd" type: "Odd" bottom: "sum" top: "odd" param { name: "b" } }'
    rows = {row.layer: row.shared_with for row in summary_of(NET + text).rows}
    assert (rows["conv"], rows["odd"]) == (("again", "odd"), ("conv",))
