"""Positions and names of Caffe's Split layers; the golden nets list the layers of real Caffe."""

from __future__ import annotations

import json

import numpy as np
import paths
import pytest

import siamese_proto as sp
from siamese_proto.graph.splits import insert_splits
from siamese_proto.proto import schema

GOLDEN = paths.GOLDEN / "layers"
CASES = ["multi_loss", "share_permissive", "softmaxloss_shared_blob", "split_two"]


def split(text: str) -> list[schema.LayerParameter]:
    return [layer for _, layer in insert_splits(sp.parse_net(text).message.layer)]


def wires(layers: list[schema.LayerParameter]) -> list[str]:
    return [f"{layer.name}: {' '.join(layer.bottom)} -> {' '.join(layer.top)}" for layer in layers]


@pytest.mark.parametrize("case", CASES)
def test_the_layers_equal_those_of_caffe(case: str) -> None:
    expected = json.loads(str(np.load(GOLDEN / f"{case}.npz")["meta"]))["layer_types"]
    assert "Split" in expected
    assert [layer.type for layer in split((GOLDEN / f"{case}.prototxt").read_text())] == expected


def test_each_reader_has_a_separate_top() -> None:
    assert wires(
        split("""
            layer { name: "in" type: "Input" top: "x" top: "y" }
            layer { name: "a" type: "Eltwise" bottom: "y" bottom: "x" bottom: "y" top: "s" }
            layer { name: "b" type: "Silence" bottom: "y" }
        """)
    ) == [
        "in:  -> x y",
        "y_in_1_split: y -> y_in_1_split_0 y_in_1_split_1 y_in_1_split_2",
        "a: y_in_1_split_0 x y_in_1_split_1 -> s",
        "b: y_in_1_split_2 -> ",
    ]


def test_versions_of_a_blob_changed_in_place_are_counted_separately() -> None:
    assert wires(
        split("""
            layer { name: "in" type: "Input" top: "x" }
            layer { name: "relu" type: "ReLU" bottom: "x" top: "x" }
            layer { name: "a" type: "Silence" bottom: "x" }
            layer { name: "b" type: "Silence" bottom: "x" }
        """)
    ) == [
        "in:  -> x",
        "relu: x -> x",
        "x_relu_0_split: x -> x_relu_0_split_0 x_relu_0_split_1",
        "a: x_relu_0_split_0 -> ",
        "b: x_relu_0_split_1 -> ",
    ]


def test_a_loss_weight_counts_as_a_read_and_moves_to_the_first_top() -> None:
    layers = split("""
        layer { name: "in" type: "Input" top: "x" }
        layer { name: "r" type: "Reduction" bottom: "x" top: "l" loss_weight: 0.5 }
        layer { name: "p" type: "Power" bottom: "l" top: "q" }
    """)
    assert wires(layers)[1:] == ["r: x -> l", "l_r_0_split: l -> l_r_0_split_0 l_r_0_split_1", "p: l_r_0_split_1 -> q"]
    assert [list(layer.loss_weight) for layer in layers] == [[], [], [0.5, 0.0], []]


def test_a_loss_weight_of_zero_and_a_default_one_are_no_reads() -> None:
    text = """
        layer {{ name: "in" type: "Input" top: "x" top: "t" }}
        layer {{ name: "l" type: "EuclideanLoss" bottom: "x" bottom: "t" top: "l" {weight} }}
        layer {{ name: "p" type: "Power" bottom: "l" top: "q" }}
    """
    for weight in ("", "loss_weight: 0"):
        assert [layer.type for layer in split(text.format(weight=weight))] == ["Input", "EuclideanLoss", "Power"]


def test_a_loss_weight_does_not_move_if_another_top_is_split() -> None:
    layers = split("""
        layer { name: "in" type: "Input" top: "x" }
        layer { name: "s" type: "Slice" bottom: "x" top: "a" top: "b" loss_weight: 0 loss_weight: 2 }
        layer { name: "p" type: "Silence" bottom: "a" }
        layer { name: "q" type: "Silence" bottom: "a" }
    """)
    assert [list(layer.loss_weight) for layer in layers] == [[], [0, 2], [], [], []]


def test_a_blob_that_no_layer_computes_is_unchanged() -> None:
    layers = split("""
        layer { name: "p" type: "Silence" bottom: "gone" }
        layer { name: "q" type: "Silence" bottom: "gone" }
    """)
    assert wires(layers) == ["p: gone -> ", "q: gone -> "]


def test_the_messages_passed_are_not_modified() -> None:
    message = sp.parse_net((GOLDEN / "split_two.prototxt").read_text()).message
    before = message.SerializeToString()
    insert_splits(message.layer)
    assert message.SerializeToString() == before
