"""The layers of siamese_proto, ported: the same numbers and gradients."""

from __future__ import annotations

import pytest
from ported_nets import compare, some_values

import siamese_proto as sp

IMAGE, ROWS = (4, 3, 5, 7), (4, 6)
CASES = [
    *(
        (f'type: "Distance" distance_param {{ metric: {metric} }}', [(4, 3, 2), ROWS], 1)
        for metric in ("EUCLIDEAN", "SQUARED", "L1", "EXP_L1", "COSINE_SIMILARITY", "COSINE_DISTANCE", "DOT")
    ),
    ('type: "TripletLoss" triplet_loss_param { margin: 0.3 }', [ROWS, ROWS, (4, 3, 2)], 1),
    ('type: "TripletLoss" triplet_loss_param { distance: EUCLIDEAN normalization: SUM }', [ROWS] * 3, 1),
    ('type: "TripletLoss" triplet_loss_param { form: RATIO normalization: MEAN }', [ROWS] * 3, 1),
    ('type: "TripletLoss" triplet_loss_param { form: SOFTMAX }', [ROWS] * 3, 1),
    ('type: "CenterLoss" center_loss_param { num_output: 3 center_filler { type: "xavier" } }', [ROWS, (4,)], 1),
    ('type: "CenterLoss" center_loss_param { num_output: 3 axis: 2 }', [(2, 3, 5), (2, 3)], 1),
    ('type: "Normalize"', [IMAGE], 2),
    ('type: "Normalize" normalize_param { normalize_type: L1 across_spatial: true }', [IMAGE], 2),
    ('type: "Normalize" normalize_param { across_spatial: true }', [ROWS], 1),
    ('type: "Normalize" norm_param { channel_shared: false across_spatial: false }', [IMAGE], 1),
    ('type: "Normalize" norm_param { scale_filler { type: "constant" value: 20 } }', [IMAGE], 2),
    ('type: "Permute" permute_param { order: 0 order: 2 order: 3 }', [IMAGE], 1),
    ('type: "Padding" padding_param { pad: 2 pad_h: 1 }', [IMAGE], 1),
    ('type: "Padding" padding_param { mode: CONSTANT value: 0.1 pad_w: 1 }', [IMAGE], 1),
    ('type: "Padding" padding_param { mode: REPLICATE pad: 1 }', [IMAGE], 1),
    ('type: "ChannelDropout"', [IMAGE], 1),
    ('type: "ContrastiveLoss" contrastive_loss_param { label: DIFFERENT normalization: MEAN }', [ROWS, ROWS, (4,)], 1),
    ('type: "ContrastiveLoss" contrastive_loss_param { normalization: SUM margin: 3 }', [ROWS, ROWS, (4,)], 1),
]


@pytest.mark.parametrize(("text", "shapes", "tops"), CASES, ids=[case[0] for case in CASES])
def test_a_siamese_proto_layer_is_ported(text: str, shapes: list[tuple[int, ...]], tops: int) -> None:
    net = ""
    for index, shape in enumerate(shapes):
        dims = " ".join(f"dim: {size}" for size in shape)
        net += f'layer {{ name: "in{index}" type: "Input" top: "b{index}" input_param {{ shape {{ {dims} }} }} }}\n'
    bottoms = " ".join(f'bottom: "b{index}"' for index in range(len(shapes)))
    names = " ".join(f'top: "t{index}"' for index in range(tops))
    built = sp.Net(net + f'layer {{ name: "it" {text} {bottoms} {names} }}', phase="TEST", seed=1)
    compare(built, some_values(built))
