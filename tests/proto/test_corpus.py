"""Files as people have them: each is read, checked and drawn, or refused in the words of the table beside them.

`tests/golden/corpus/findings.txt` has a section a file: what check says of it, and how many layers and parameters
it has in each phase. A line that ends in `...` holds for what begins like it.
"""

from __future__ import annotations

import re
from pathlib import Path

import paths
import pytest
from google.protobuf import text_format

from siamese_proto.check.net import check_net
from siamese_proto.check.solver import check_solver
from siamese_proto.compiler import build_graph
from siamese_proto.errors import NetError
from siamese_proto.export.drawing import draw
from siamese_proto.export.summary import summarize
from siamese_proto.graph.select import PHASES
from siamese_proto.proto import schema
from siamese_proto.proto.load import kind_of
from siamese_proto.proto.reader import parse_net, read_message, unknown_problems
from siamese_proto.proto.writer import write_net

FOLDER = paths.GOLDEN / "corpus"
SECTION = re.compile(r"^== (\S+)\n((?:(?!== ).*\n)*)", re.MULTILINE)
EXPECTED = dict(SECTION.findall((FOLDER / "findings.txt").read_text(encoding="utf-8")))
NETS = sorted(path.name for path in FOLDER.glob("*.prototxt"))

# The same net in other words: what they all mean.
PLAIN = """
name: "plain"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 9 dim: 11 } } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "ip1" type: "InnerProduct" bottom: "pool1" top: "ip1" inner_product_param { num_output: 5 } }
"""
SAME = [
    *(
        "angle_brackets",
        "bom",
        "colon_before_brace",
        "comments",
        "crlf",
        "dos_end_of_file",
        "latin_1_comment",
        "lone_cr",
    ),
    *("mixed_line_ends", "no_break_spaces", "single_quotes", "tabs_and_no_last_newline", "utf_16"),
]


def described(name: str) -> list[str]:
    """What the table should say of a file."""
    try:
        solver = kind_of(name) == "solver"
        lines = [str(finding) for finding in (check_solver(name) if solver else check_net(Path(name)))]
    except NetError as refused:
        return [f"refused: {refused}"]
    try:
        parsed = None if solver else parse_net(Path(name))
    except NetError as refused:
        return [f"refused: {refused}"]
    for phase in PHASES if parsed is not None else ():
        graph = build_graph(parsed, phase, on_problem=lambda problem: None)
        pictured = draw(graph).source
        assert all(node.name.split("/")[0].split('"')[0] in pictured for node in graph.nodes)
        assert len(summarize(graph).rows) == len(graph.nodes)
        numbers = sum(_count(param.shape) for param in graph.params if param.shape is not None)
        unknown = sum(param.shape is None for param in graph.params)
        more = f" and {unknown} of unknown shape" if unknown else ""
        known = f"{len(graph.params) - unknown} parameters of {numbers} numbers"
        lines.append(f"{phase}: {len(graph.nodes)} layers, {known}{more}")
    return lines


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def test_the_corpus_is_large_and_the_table_complete() -> None:
    assert len(NETS) >= 100
    assert sorted(EXPECTED) == NETS


@pytest.mark.parametrize("name", NETS)
def test_a_file_is_read_checked_and_drawn_or_refused_as_the_table_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FOLDER)
    actual, expected = described(name), EXPECTED[name].splitlines()
    assert len(actual) == len(expected), "\n".join(actual)
    for line, expected_line in zip(actual, expected, strict=True):
        if expected_line.endswith("..."):
            assert line.startswith(expected_line.removesuffix("..."))
        else:
            assert line == expected_line


@pytest.mark.parametrize("name", NETS)
def test_what_is_read_is_written_and_read_again_as_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    if EXPECTED[name].startswith("refused: ") or name.startswith("solver_"):
        return
    parsed = parse_net(Path(name))
    again = parse_net(write_net(parsed))
    assert again.message == parsed.message
    assert len(unknown_problems(again)) == len(unknown_problems(parsed))
    assert write_net(again) == write_net(parsed)


@pytest.mark.parametrize("name", SAME)
def test_one_net_in_many_ways_of_writing_is_one_message(name: str) -> None:
    expected = text_format.Parse(PLAIN, schema.NetParameter())
    assert parse_net(FOLDER / f"{name}.prototxt").message == expected


def test_what_protobuf_can_read_too_is_the_same_message() -> None:
    """Without the upgrades: protobuf knows no dialects."""
    agreed = []
    for name in NETS:
        content = (FOLDER / name).read_bytes()
        try:
            text = content.decode()
            message = text_format.Parse(text, schema.NetParameter())
        except (UnicodeDecodeError, text_format.ParseError):
            continue
        assert read_message(text, schema.NetParameter)[0] == message, name
        agreed.append(name)
    assert len(agreed) > 40
