"""Which layers are included: the table is a hand-written version of net.cpp's StateMeetsRule."""

from __future__ import annotations

import pytest

import siamese_proto as sp
from siamese_proto.graph.ir import Phase


def admitted(rules: str, phase: Phase, level: int = 0, stages: tuple[str, ...] = ()) -> bool:
    text = f"""
    layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
    layer {{ name: "a" type: "Power" bottom: "x" top: "y" {rules} }}
    """
    return len(sp.build_graph(sp.parse_net(text), phase, level, stages).nodes) == 2


@pytest.mark.parametrize(
    ("rules", "phase", "level", "stages", "expected"),
    [
        ("", "TRAIN", 0, (), True),
        ("include { }", "TEST", 0, (), True),
        ("include { phase: TRAIN }", "TRAIN", 0, (), True),
        ("include { phase: TRAIN }", "TEST", 0, (), False),
        ("exclude { phase: TRAIN }", "TEST", 0, (), True),
        ("exclude { phase: TRAIN }", "TRAIN", 0, (), False),
        ("include { min_level: 2 }", "TEST", 1, (), False),
        ("include { min_level: 2 }", "TEST", 2, (), True),
        ("include { max_level: 2 }", "TEST", 3, (), False),
        ("include { min_level: 1 max_level: 2 }", "TEST", 2, (), True),
        ("include { stage: 'a' stage: 'b' }", "TEST", 0, ("a",), False),
        ("include { stage: 'a' stage: 'b' }", "TEST", 0, ("b", "a"), True),
        ("include { not_stage: 'a' not_stage: 'b' }", "TEST", 0, ("b",), False),
        ("include { not_stage: 'a' }", "TEST", 0, ("c",), True),
        ("include { phase: TRAIN stage: 'a' }", "TRAIN", 0, (), False),
        ("include { phase: TRAIN } include { stage: 'a' }", "TEST", 0, ("a",), True),
        ("exclude { phase: TRAIN } exclude { stage: 'a' }", "TEST", 0, ("a",), False),
    ],
)
def test_a_layer_is_included_if_its_rules_match(
    rules: str, phase: Phase, level: int, stages: tuple[str, ...], expected: bool
) -> None:
    assert admitted(rules, phase, level, stages) is expected


def test_stages_of_the_file_are_added() -> None:
    text = """
    state { stage: "deploy" }
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 } } include { stage: "deploy" } }
    """
    assert len(sp.build_graph(sp.parse_net(text)).nodes) == 1


def test_a_node_lists_its_phases() -> None:
    text = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 } } include { phase: TEST } }
    layer { name: "a" type: "Power" bottom: "x" top: "y" }
    """
    graph = sp.build_graph(sp.parse_net(text), "TEST")
    assert [node.phases for node in graph.nodes] == [("TEST",), ("TRAIN", "TEST")]
