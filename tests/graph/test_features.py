"""Features of towers and predictions."""

from __future__ import annotations

import pytest
from nets import net

from siamese_proto import build_graph, parse_net
from siamese_proto.graph.features import predictions, twin_features
from siamese_proto.graph.traversal import Ancestry

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
def test_features_are_read_outside_the_towers_or_by_no_layer(text: str, expected: list[list[str]]) -> None:
    features = twin_features(build_graph(parse_net(net(text))))
    assert [[blob.name for blob in tower] for tower in features] == expected


def test_a_blob_is_learned_when_one_of_its_bottoms_is() -> None:
    text = "in Input > x y ; ; 2x5 2x3\n a InnerProduct y ; ; num_output: 5\n s Eltwise x a\n t Eltwise x x"
    assert sorted(Ancestry(build_graph(parse_net(net(text))).nodes).learned) == ["a", "s"]


def test_layers_before_a_blob_end_at_blobs_without_a_producer() -> None:
    graph = build_graph(parse_net(net("in Input > x ; ; 2x3\n a ReLU x\n b Eltwise a x\n c ReLU x")))
    ancestry = Ancestry(graph.nodes[1:])
    assert ancestry.before(graph.nodes[2].tops[0]) == {"a", "b"}


HEAD = """    in Input > x y ; ; 2x3 2x3
    n Input > t ; ; 2
    a InnerProduct x ; ; num_output: 3
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s SoftmaxWithLoss a t", [("a", "s")]),
        ("k ArgMax a\n r Reshape k ; ; shape { dim: 2 }\n s SoftmaxWithLoss a r", [("a", "s")]),
        ("c Accuracy a t\n s SoftmaxWithLoss a t", [("a", "s")]),
        ("s SoftmaxWithLoss a t\n c Accuracy a t", [("a", "s")]),
        ("c Accuracy a t", [("a", None)]),
        ("e EuclideanLoss a y", [("a", "e")]),
        ("e EuclideanLoss a y\n p Power e", [("a", "e")]),
        ("p Power y", [("a", None)]),
        ("p Power a", [("p", None)]),
    ],
)
def test_predictions_are_learned_outputs_and_bottoms_of_losses(text: str, expected: list[tuple[str, str]]) -> None:
    graph = build_graph(parse_net(net(HEAD + text)))
    pairs = predictions(graph, Ancestry(graph.nodes))
    assert [(blob.name, loss.name if loss is not None else None) for blob, loss in pairs] == expected


def test_a_layer_with_one_weighted_top_is_no_prediction_and_its_bottom_is_one() -> None:
    text = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 } } }
layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 6 } }
layer { name: "s" type: "Slice" bottom: "a" top: "l" top: "r" loss_weight: 1 loss_weight: 0 }
"""
    graph = build_graph(parse_net(text))
    assert [(blob.name, loss) for blob, loss in predictions(graph, Ancestry(graph.nodes))] == [("a", None)]


def test_a_loss_of_weight_0_is_a_measure_and_is_no_prediction() -> None:
    unweighted = net(HEAD + "s SoftmaxWithLoss a t").replace('top: "s"', 'top: "s" loss_weight: 0')
    graph = build_graph(parse_net(unweighted))
    pairs = predictions(graph, Ancestry(graph.nodes))
    assert [(blob.name, loss.name if loss is not None else None) for blob, loss in pairs] == [("a", "s")]


def test_an_unknown_layer_with_one_weighted_top_is_a_measure() -> None:
    text = HEAD + "u Unheard a > p q"
    unknown = net(text).replace('top: "q"', 'top: "q" loss_weight: 1 loss_weight: 0')
    graph = build_graph(parse_net(unknown))
    assert graph.problems
    assert [(blob.name, loss) for blob, loss in predictions(graph, Ancestry(graph.nodes))] == [("a", None)]
