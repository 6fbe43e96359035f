"""Invalid settings of sequence layers, row layers and class losses: one line names both values and the field."""

from __future__ import annotations

import pytest
from layer_harness import refused

import siamese_proto as sp

X = (2, 6, 9, 10)
LSTM = 'type: "LSTM" recurrent_param'
SEQUENCE, CONT = (4, 3, 5), (4, 3)

# text, bottom shapes, number of tops, message, field
TABLE = [
    ('type: "Tile"', [X], 1, "tiles is missing: set the number of copies", "tile_param"),
    ('type: "Tile" tile_param { tiles: 0 }', [X], 1, "tiles 0 must be at least 1", "tile_param.tiles"),
    (
        'type: "Tile" tile_param { tiles: 2 axis: 4 }',
        [X],
        1,
        "axis 4 does not exist in a bottom of shape (2, 6, 9, 10)",
        "tile_param.axis",
    ),
    (
        'type: "Crop" crop_param { axis: -5 }',
        [X, X],
        1,
        "axis -5 does not exist in a bottom of shape (2, 6, 9, 10)",
        "crop_param.axis",
    ),
    (
        'type: "Crop" crop_param { axis: 1 offset: 1 offset: 2 }',
        [X, (2, 3, 4, 5)],
        1,
        "offset is set 2 times for the 3 axes from axis 1 on of a bottom of shape (2, 6, 9, 10): "
        "set it once, or once per axis",
        "crop_param.offset[0]",
    ),
    (
        'type: "Crop" crop_param { offset: 2 offset: 6 }',
        [X, (2, 6, 7, 5)],
        1,
        "5 values from offset 6 on exceed axis 3, which has size 10",
        "crop_param.offset[1]",
    ),
    (
        'type: "Crop"',
        [X, (2, 6, 12, 5)],
        1,
        "12 values from offset 0 on exceed axis 2, which has size 9",
        "crop_param.offset[0]",
    ),
    (
        'type: "Crop"',
        [X, (2, 6, 9)],
        1,
        "bottom 1 of shape (2, 6, 9) has no axis 3, but bottom 0 of shape (2, 6, 9, 10) has",
        "bottom[1]",
    ),
    (
        'type: "Filter"',
        [X, (2, 3)],
        1,
        "the selector has shape (2, 3), expected one number per row: (N) or (N, 1, 1, 1)",
        "bottom[1]",
    ),
    (
        'type: "Filter"',
        [X, (5, 4), (2,)],
        2,
        "bottom 1 has shape (5, 4) and the selector (2,): their first dimensions, the batch, must be equal",
        "bottom[1]",
    ),
    ('type: "BatchReindex"', [X, (3, 1)], 1, "bottom 1 has shape (3, 1), expected (M): one axis", "bottom[1]"),
    ('type: "BatchReindex"', [(), (3,)], 1, "bottom 0 has shape (), expected (N, ...): it has no rows", "bottom[0]"),
    (
        'type: "Reduction" reduction_param { axis: 4 }',
        [X],
        1,
        "axis 4 does not exist in a bottom of shape (2, 6, 9, 10)",
        "reduction_param.axis",
    ),
    ('type: "ArgMax" argmax_param { top_k: 0 }', [X], 1, "top_k 0 must be at least 1", "argmax_param.top_k"),
    (
        'type: "ArgMax" argmax_param { top_k: 8 }',
        [(2, 7)],
        1,
        "top_k 8 is more than the 7 values in a row of bottom shape (2, 7)",
        "argmax_param.top_k",
    ),
    (
        'type: "ArgMax" argmax_param { top_k: 7 axis: -3 }',
        [X],
        1,
        "top_k 7 is more than the 6 values in axis 1 of bottom shape (2, 6, 9, 10)",
        "argmax_param.top_k",
    ),
    (
        'type: "ArgMax" argmax_param { axis: 4 }',
        [X],
        1,
        "axis 4 does not exist in a bottom of shape (2, 6, 9, 10)",
        "argmax_param.axis",
    ),
    (
        'type: "Parameter" parameter_param { shape { dim: 2 dim: -3 } }',
        [],
        1,
        "shape (2, -3) has a negative dimension",
        "parameter_param.shape",
    ),
    (
        'type: "DummyData" dummy_data_param { shape { dim: 2 } height: 3 }',
        [],
        1,
        "both shape and height are given; keep shape",
        "dummy_data_param.height[0]",
    ),
    # Recurrent layers
    ('type: "RNN"', [SEQUENCE, CONT], 1, "num_output 0 must be at least 1", "recurrent_param.num_output"),
    (
        f"{LSTM} {{ num_output: 2 }}",
        [(4, 3), CONT],
        1,
        "bottom 0 has shape (4, 3), expected (T, N, ...): steps, streams, values",
        "bottom[0]",
    ),
    (
        f"{LSTM} {{ num_output: 2 }}",
        [SEQUENCE, (4, 3, 1)],
        1,
        "bottom 1 (cont) has shape (4, 3, 1), expected (4, 3): one number per step and stream",
        "bottom[1]",
    ),
    (
        f"{LSTM} {{ num_output: 2 }}",
        [SEQUENCE, CONT, (4, 7)],
        1,
        "bottom 2 (the static input) has shape (4, 7), expected (3, ...): the values of each stream",
        "bottom[2]",
    ),
    (
        f"{LSTM} {{ num_output: 2 expose_hidden: true }}",
        [SEQUENCE, CONT, (1, 3, 2), (1, 2, 3)],
        3,
        "bottom 3 (hidden state) has shape (1, 2, 3), expected (1, 3, 2)",
        "bottom[3]",
    ),
    (
        'type: "RNN" recurrent_param { num_output: 2 expose_hidden: true }',
        [SEQUENCE, CONT, (3, 7), (3, 2)],
        2,
        "bottom 3 (hidden state) has shape (3, 2), expected (1, 3, 2)",
        "bottom[3]",
    ),
    (
        'type: "LSTMUnit"',
        [(2, 3, 5), (2, 3, 20), (2, 3)],
        2,
        "bottom 0 has shape (2, 3, 5), expected (1, N, D)",
        "bottom[0]",
    ),
    (
        'type: "LSTMUnit"',
        [(1, 3, 5), (1, 3, 15), (1, 3)],
        2,
        "bottom 1 has shape (1, 3, 15), expected (1, 3, 20) for bottom 0 of shape (1, 3, 5)",
        "bottom[1]",
    ),
    (
        'type: "LSTMUnit"',
        [(1, 3, 5), (1, 3, 20), (3, 1)],
        2,
        "bottom 2 has shape (3, 1), expected (1, 3) for bottom 0 of shape (1, 3, 5)",
        "bottom[2]",
    ),
    # Losses
    *[
        (
            f'type: "{kind}"',
            [X, labels],
            1,
            problem,
            "bottom[1]",
        )
        for kind in ("HingeLoss", "MultinomialLogisticLoss")
        for labels, problem in [
            (
                (3,),
                "bottom 0 has shape (2, 6, 9, 10) and bottom 1 has shape (3,): "
                "their first dimensions, the batch, must be equal",
            ),
            ((2, 9), "bottom 1 has shape (2, 9), expected one label per row: (N) or (N, 1, 1, 1)"),
        ]
    ],
    (
        'type: "InfogainLoss"',
        [X, (2, 9, 10)],
        1,
        "the matrix H is missing: add it as a third bottom, or set source to the path of a BlobProto",
        "infogain_loss_param",
    ),
    (
        'type: "InfogainLoss" loss_param { normalize: false }',
        [X, (2, 9, 10), (6, 6)],
        1,
        "InfogainLoss does not support normalize: write normalization: BATCH_SIZE",
        "loss_param.normalize",
    ),
    (
        'type: "InfogainLoss"',
        [X, (2, 9, 10), (5, 5)],
        1,
        "bottom 2 of shape (5, 5) holds 25 values, but H of 6 classes (axis 1 of bottom shape (2, 6, 9, 10)) "
        "has 6 x 6 = 36",
        "bottom[2]",
    ),
    (
        'type: "InfogainLoss" infogain_loss_param { axis: 4 }',
        [X, (2, 9, 10), (6, 6)],
        1,
        "axis 4 does not exist in a bottom of shape (2, 6, 9, 10)",
        "infogain_loss_param.axis",
    ),
    (
        'type: "InfogainLoss"',
        [X, (2, 9), (6, 6)],
        1,
        "bottom 0 of shape (2, 6, 9, 10) with the classes on axis 1 needs 180 labels, "
        "but bottom 1 of shape (2, 9) holds 18",
        "bottom[1]",
    ),
]


@pytest.mark.parametrize(("text", "bottoms", "tops", "problem", "field"), TABLE, ids=[row[0][6:] for row in TABLE])
def test_a_wrong_setting_is_named(text, bottoms, tops, problem, field):
    error = refused(text, bottoms, tops)
    assert error.message == problem
    assert error.field == field


# type, settings, bottoms, tops, expected number of bottoms or tops
COUNTS = [
    ("LSTM", "num_output: 2", 1, 1, "LSTM takes 2 to 3 bottoms, got 1: the sequence marker (cont) is missing"),
    ("LSTM", "num_output: 2", 4, 1, "LSTM takes 2 to 3 bottoms, got 4"),
    ("LSTM", "num_output: 2", 2, 3, "LSTM takes 1 top, got 3"),
    ("LSTM", "num_output: 2 expose_hidden: true", 3, 3, "LSTM takes 4 to 5 bottoms, got 3"),
    ("LSTM", "num_output: 2 expose_hidden: true", 4, 1, "LSTM takes 3 tops, got 1"),
    ("RNN", "num_output: 2 expose_hidden: true", 5, 2, "RNN takes 3 to 4 bottoms, got 5"),
    ("RNN", "num_output: 2 expose_hidden: true", 3, 3, "RNN takes 2 tops, got 3"),
    ("Filter", "", 3, 1, "Filter takes 2 tops, got 1"),
    ("Filter", "", 1, 1, "Filter takes at least 2 bottoms, got 1: the selector is missing"),
    ("Crop", "", 1, 1, "Crop takes 2 bottoms, got 1: the blob whose size to take is missing"),
]


@pytest.mark.parametrize(("kind", "setting", "bottoms", "tops", "problem"), COUNTS)
def test_a_wrong_number_of_bottoms_or_tops_is_named(kind, setting, bottoms, tops, problem):
    names = "".join(f' top: "b{index}"' for index in range(bottoms))
    text = f'layer {{ name: "in" type: "Input"{names} input_param {{ shape {{ dim: 1 dim: 3 dim: 2 }} }} }}\n'
    setting = f"recurrent_param {{ {setting} }}" if setting else ""
    text += f'layer {{ name: "it" type: "{kind}"{names.replace("top", "bottom")} {setting}'
    text += "".join(f' top: "t{index}"' for index in range(tops)) + " }"
    with pytest.raises(sp.NetError) as caught:
        sp.build_graph(sp.parse_net(text))
    assert str(caught.value) == f"<text>:2: layer 'it': {problem}"
