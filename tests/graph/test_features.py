"""Which blobs towers hand on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from graph.nets import net

from siamese_proto import build_graph, parse_net
from siamese_proto.graph.features import Ancestry, twin_features

TWIN = """
    in Input > x y ; ; 2x3 2x3
    a InnerProduct x ; w b ; num_output: 5
    b InnerProduct y ; w b ; num_output: 5
"""
RECTIFIED = TWIN + "ra ReLU a\n rb ReLU b\n l EuclideanLoss ra rb\n"
WITHOUT_NAMES = """    in2 Input > u v ; ; 2x4 2x4
    c InnerProduct u ; ; num_output: 6
    d InnerProduct v ; ; num_output: 6
    j Concat c d
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (RECTIFIED, [["ra"], ["rb"]]),
        (RECTIFIED + "q Silence a > -", [["ra"], ["rb"]]),
        (RECTIFIED + "q Power a", [["a", "ra"], ["b", "rb"]]),
        (TWIN + "q Silence a > -\n r Silence b > -", [["a"], ["b"]]),
        (TWIN + WITHOUT_NAMES, [["a"], ["b"]]),
        (WITHOUT_NAMES, [["c"], ["d"]]),
        ("in Input > x ; ; 2x3\n a InnerProduct x ; ; num_output: 5", []),
    ],
)
def test_towers_hand_on_what_others_read_or_nobody_does(text: str, expected: list[list[str]]) -> None:
    features = twin_features(build_graph(parse_net(net(text))))
    assert [[blob.name for blob in tower] for tower in features] == expected


def test_a_blob_is_learned_when_one_of_its_bottoms_is() -> None:
    text = "in Input > x y ; ; 2x5 2x3\n a InnerProduct y ; ; num_output: 5\n s Eltwise x a\n t Eltwise x x"
    assert sorted(Ancestry(build_graph(parse_net(net(text)))).learned) == ["a", "s"]


def test_layers_before_a_blob_end_where_no_layer_makes_one() -> None:
    graph = build_graph(parse_net(net("in Input > x ; ; 2x3\n a ReLU x\n b Eltwise a x\n c ReLU x")))
    ancestry = Ancestry(replace(graph, nodes=graph.nodes[1:]))
    assert ancestry.nodes_before(graph.nodes[2].tops[0]) == {"a", "b"}
