"""Layers that compare the features of towers, and their valid bottoms."""

from __future__ import annotations

import pytest

from siamese_proto.check.net import check_net


def dense(name: str, bottom: str, count: int, shared: str) -> str:
    params = f'param {{ name: "{shared}_w" }} param {{ name: "{shared}_b" }}'
    settings = f"inner_product_param {{ num_output: {count} }}"
    return f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {params} {settings} }}\n'


def towers(count: int) -> str:
    sides = range(1, count + 1)
    tops = " ".join(f'top: "x{side}"' for side in sides)
    inputs = f'layer {{ name: "in" type: "Input" {tops} input_param {{ shape {{ dim: 4 dim: 5 }} }} }}\n'
    return inputs + "".join(
        dense(f"a{side}", f"x{side}", 5, "a") + dense(f"b{side}", f"a{side}", 5, "b") for side in sides
    )


def join(kind: str, *bottoms: str, settings: str = "") -> str:
    wires = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
    return f'layer {{ name: "join" type: "{kind}" {wires} top: "join" {settings} }}\n'


def pair_findings(text: str) -> list[str]:
    lines = map(str, check_net(text))
    return [line.partition("layer 'join': ")[2] for line in lines if "[pair-bottoms]" in line]


DIFFERENCE = "eltwise_param { coeff: 1 coeff: -1 }"
SAME = "are both {!r}, so their distance is always 0; use one of each tower"


@pytest.mark.parametrize(
    ("count", "text", "message"),
    [
        (3, join("TripletLoss", "b1", "b2", "b2"), f"the positive and the negative {SAME.format('b2')}"),
        (3, join("TripletLoss", "b1", "b1", "b3"), f"the anchor and the positive {SAME.format('b1')}"),
        (
            3,
            join("TripletLoss", "b1", "b2", "a3"),
            "the anchor 'b1' and the negative 'a3' are outputs of different layers of "
            "their towers; use the same layer of each",
        ),
        (2, join("Distance", "b1", "b1"), f"the first bottom and the second bottom {SAME.format('b1')}"),
        (
            2,
            join("Distance", "a1", "b2", settings="distance_param { metric: COSINE_SIMILARITY }"),
            "the first bottom 'a1' and the second bottom 'b2' are outputs of different layers of "
            "their towers; use the same layer of each",
        ),
    ],
)
def test_mistakes_in_bottoms_of_pair_layers_are_reported(count: int, text: str, message: str) -> None:
    assert pair_findings(towers(count) + text) == [message]


SLICED = towers(2) + 'layer { name: "cut" type: "Slice" bottom: "b2" top: "p" top: "n" slice_param { axis: 0 } }\n'
HALVED = SLICED + 'layer { name: "half" type: "Slice" bottom: "b1" top: "q" top: "r" slice_param { axis: 0 } }\n'


@pytest.mark.parametrize(
    "text",
    [
        towers(3) + join("TripletLoss", "b1", "b2", "b3"),
        towers(3) + join("TripletLoss", "b3", "b1", "b2"),
        towers(2) + join("Distance", "b1", "b2"),
        towers(2) + join("Distance", "a1", "b1"),  # for example the preprocessing of a tower
        towers(2) + join("Eltwise", "b1", "b2", settings=DIFFERENCE),
        towers(2) + join("Eltwise", "b1", "b1"),  # a sum
        towers(2) + join("Eltwise", "a1", "b1", settings=DIFFERENCE),
        towers(2) + join("EuclideanLoss", "x1", "b1"),  # as an autoencoder has it
        HALVED + join("TripletLoss", "q", "p", "n"),
        HALVED + join("TripletLoss", "q", "r", "n"),
    ],
)
def test_plausible_bottoms_of_pair_layers_are_not_reported(text: str) -> None:
    assert pair_findings(text) == []
