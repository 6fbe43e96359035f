"""Our extension layers compared with numpy loops, and files for other layers of the same names."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from layer_harness import make, message, refused, run, values

import siamese_proto as sp
from siamese_proto.check.net import check_net
from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import LayerContext
from siamese_proto.layers.base import RunState, find_layer

N, C, H, W = 4, 3, 5, 7


def rows(*bottoms):
    return zip(*(bottom.reshape(len(bottom), -1).numpy() for bottom in bottoms), strict=True)


def squared(a, b):
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


# Distance

METRICS = {
    "EUCLIDEAN": lambda a, b: math.sqrt(squared(a, b)),
    "SQUARED": squared,
    "L1": lambda a, b: sum(abs(x - y) for x, y in zip(a, b, strict=True)),
    "EXP_L1": lambda a, b: math.exp(-sum(abs(x - y) for x, y in zip(a, b, strict=True))),
    "COSINE_SIMILARITY": lambda a, b: np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)),
    "COSINE_DISTANCE": lambda a, b: 1 - np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)),
    "DOT": np.dot,
}


@pytest.mark.parametrize("metric", METRICS)
def test_distance_is_one_number_a_pair_of_rows(metric):
    a, b = values((N, C, 2), 1), values((N, 2, C), 2)
    (top,) = run(make(f'type: "Distance" distance_param {{ metric: {metric} }}', 2), a, b)
    expected = [[METRICS[metric](x, y)] for x, y in rows(a, b)]
    np.testing.assert_allclose(top.numpy(), expected, rtol=1e-12)


def test_distance_is_euclidean_by_default():
    a, b = values((N, C), 1), values((N, C), 2)
    assert torch.equal(
        run(make('type: "Distance"', 2), a, b)[0],
        run(make('type: "Distance" distance_param { metric: EUCLIDEAN }', 2), a, b)[0],
    )


@pytest.mark.parametrize("metric", METRICS)
def test_equal_rows_and_rows_of_zeros_have_finite_gradients(metric):
    a = torch.zeros(2, C, dtype=torch.float64)
    a[1] = 1.5
    first, second = a.clone().requires_grad_(), a.clone().requires_grad_()
    (top,) = run(make(f'type: "Distance" distance_param {{ metric: {metric} }}', 2), first, second)
    top.sum().backward()
    assert first.grad.isfinite().all()
    assert second.grad.isfinite().all()


# TripletLoss


def softmax_ratio(near, far):
    s = math.exp(near) / (math.exp(near) + math.exp(far))
    t = math.exp(far) / (math.exp(near) + math.exp(far))
    return s**2 + (1 - t) ** 2


FORMS = {
    "HINGE": lambda near, far: max(0, 0.7 + near - far),
    "RATIO": lambda near, far: max(0, 1 - far / (near + 0.7)),
    "SOFTMAX": softmax_ratio,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("distance", ["SQUARED", "EUCLIDEAN"])
@pytest.mark.parametrize(("normalization", "divisor"), [("HALF_MEAN", 2 * N), ("MEAN", N), ("SUM", 1)])
def test_triplet_loss_matches_its_formula(form, distance, normalization, divisor):
    bottoms = [values((N, C, 2), seed) for seed in (1, 2, 3)]
    margin = "" if form == "SOFTMAX" else "margin: 0.7"
    settings = f"form: {form} distance: {distance} normalization: {normalization} {margin}"
    (top,) = run(make(f'type: "TripletLoss" triplet_loss_param {{ {settings} }}', 3), *bottoms)
    root = math.sqrt if distance == "EUCLIDEAN" else float
    losses = [FORMS[form](root(squared(a, p)), root(squared(a, n))) for a, p, n in rows(*bottoms)]
    assert sum(losses) > 0
    # A margin is a float32, like every number of a prototxt.
    assert float(top) == pytest.approx(sum(losses) / divisor, rel=1e-7)


def test_triplet_loss_without_settings_has_margin_1_squared_distances_and_the_half():
    bottoms = [values((N, C), seed) for seed in (1, 2, 3)]
    losses = [max(0, 1 + squared(a, p) - squared(a, n)) for a, p, n in rows(*bottoms)]
    (top,) = run(make('type: "TripletLoss"', 3), *bottoms)
    assert float(top) == pytest.approx(sum(losses) / (2 * N), rel=1e-12)


TRIPLETS = """
layer { name: "d" type: "Input" top: "a" top: "p" top: "n" top: "y" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "far" type: "TripletLoss" top: "far" BOTTOMS triplet_loss_param { SETTINGS } }
"""


def triplet_error(bottoms, settings):
    text = TRIPLETS.replace("BOTTOMS", " ".join(f'bottom: "{name}"' for name in bottoms))
    with pytest.raises(sp.NetError) as caught:
        sp.build_graph(sp.parse_net(text.replace("SETTINGS", settings)))
    return str(caught.value)


@pytest.mark.parametrize(
    ("bottoms", "settings", "fault"),
    [
        ("apn", "losstype: 1", "'losstype' belongs to another TripletLoss: the one of (features, label) whose batch"),
        ("ay", "margin: 1 alpha: 0.5", "'alpha' belongs to another TripletLoss: the sum over all triplets of a batch"),
        ("ay", 'sim_type: "DotProductSimilarity"', "'sim_type' belongs to another TripletLoss: the ranking of a batch"),
        ("ay", "margin: 1", "TripletLoss has 2 bottoms, expected 3. "),
        ("apny", "margin: 1", "TripletLoss has 4 bottoms, expected 3. "),
    ],
)
def test_an_incompatible_triplet_loss_error_lists_the_choices(bottoms, settings, fault):
    error = triplet_error(bottoms, settings)
    assert error.startswith(f"<text>:3: layer 'far': {fault}")
    for choice in (
        "HINGE, RATIO or SOFTMAX",
        "SQUARED or EUCLIDEAN",
        "HALF_MEAN, MEAN or SUM",
        "replace=True",
        "Slice",
    ):
        assert choice in error
    assert "\n" not in error


def test_a_misspelt_triplet_loss_setting_is_an_unknown_field():
    error = triplet_error("ay", "margn: 1")
    assert error == "<text>:3: layer 'far': unknown field 'margn' in triplet_loss_param; did you mean 'margin'?"


def with_unknown_bytes(text, bottoms, number, settings):
    """Return a layer as in a fork's binary file, with its settings under an unknown field number."""
    parsed = message(text, bottoms)
    tag = number << 3 | 2
    parsed.MergeFromString(bytes([tag & 0x7F | 0x80, tag >> 7, len(settings)]) + settings)
    return parsed


MARGIN_2 = bytes([0x0D]) + np.float32(2).tobytes()  # field 1, a float


def make_from(parsed):
    return find_layer(parsed.type)(parsed, LayerContext("TEST"))


def test_binary_settings_of_a_compatible_fork_are_read():
    assert make_from(with_unknown_bytes('type: "TripletLoss"', 3, 203, MARGIN_2)).margin == 2


def test_binary_settings_of_an_incompatible_fork_are_refused():
    with pytest.raises(GraphError, match="field 201 holds the settings of another TripletLoss: the ranking of a batch"):
        make_from(with_unknown_bytes('type: "TripletLoss"', 3, 201, MARGIN_2))


# CenterLoss


def test_center_loss_is_half_the_mean_square_to_the_class_center():
    x, centers = values((N, C, 2), 1), values((5, 6), 2)
    labels = torch.tensor([3.0, 0, 3, 4])
    layer = make('type: "CenterLoss" center_loss_param { num_output: 5 }', 2)
    assert layer.param_shapes([(N, C, 2), (N,)]) == [(5, 6)]
    expected = sum(squared(row, centers[int(label)].numpy()) for (row,), label in zip(rows(x), labels, strict=True))
    assert float(run(layer, x, labels, params=[centers])[0]) == pytest.approx(expected / (2 * N), rel=1e-12)


def test_centers_follow_their_rule_and_embeddings_the_derivative():
    x = values((N, C), 1).requires_grad_()
    centers = values((5, C), 2).requires_grad_()
    labels = torch.tensor([3.0, 0, 3, 4])
    layer = make('type: "CenterLoss" center_loss_param { num_output: 5 }', 2)
    (7 * run(layer, x, labels, params=[centers])[0]).backward()
    to_x = torch.stack([7 * (x[i] - centers[int(labels[i])]) / N for i in range(N)])
    torch.testing.assert_close(x.grad, to_x)
    to_centers = torch.zeros(5, C, dtype=torch.float64)
    for k in range(5):
        members = [i for i in range(N) if labels[i] == k]
        for i in members:
            to_centers[k] += (centers[k] - x[i]).detach() / (1 + len(members))  # without the 7
    torch.testing.assert_close(centers.grad, to_centers)


def test_a_label_without_a_center_is_named():
    layer = make('type: "CenterLoss" center_loss_param { num_output: 3 }', 2)
    with pytest.raises(sp.NetError, match="label 3 is outside the 3 classes, 0 to 2"):
        run(layer, values((N, C)), torch.tensor([0.0, 3, 1, 2]), params=[values((3, C))])


# Normalize, Permute, Padding


def lengths(x, kind, across, eps):
    out = np.empty((N, 1, 1, 1) if across else (N, 1, H, W))
    for n, h, w in np.ndindex(N, H, W):
        of = x[n].ravel() if across else x[n, :, h, w]
        length = sum(abs(v) for v in of) + eps if kind == "L1" else math.sqrt(sum(v * v for v in of) + eps)
        out[n, 0, 0 if across else h, 0 if across else w] = length
    return out


@pytest.mark.parametrize("kind", ["L2", "L1"])
@pytest.mark.parametrize("across", [False, True])
def test_normalize_divides_by_the_length_over_channels_or_rows(kind, across):
    x = values((N, C, H, W), 1)
    text = f"normalize_param {{ normalize_type: {kind} across_spatial: {str(across).lower()} eps: 0.25 }}"
    y, length = run(make(f'type: "Normalize" {text}', 1, 2), x)
    expected = lengths(x.numpy(), kind, across, 0.25)
    np.testing.assert_allclose(length.numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(y.numpy(), x.numpy() / expected, rtol=1e-12)


@pytest.mark.parametrize(("across", "shared"), [(False, False), (True, True), (False, True)])
def test_normalize_with_norm_param_learns_a_scale(across, shared):
    x = values((N, C, H, W), 1)
    flags = f"across_spatial: {str(across).lower()} channel_shared: {str(shared).lower()} eps: 0.5"
    text = f'norm_param {{ {flags} scale_filler {{ type: "constant" value: 20 }} }}'
    layer = make(f'type: "Normalize" {text}')
    shape = () if shared else (C,)
    assert layer.param_shapes([(N, C, H, W)]) == [shape]
    assert layer.params()[0].filler.value == 20
    scale = values(shape, 3)
    (y,) = run(layer, x, params=[scale])
    by_channel = np.broadcast_to(scale.numpy(), (C,)).reshape(1, C, 1, 1)
    np.testing.assert_allclose(y.numpy(), by_channel * x.numpy() / lengths(x.numpy(), "L2", across, 0.5), rtol=1e-12)


def test_the_scale_of_norm_param_starts_at_1():
    assert make('type: "Normalize" norm_param { }').params()[0].filler.value == 1


def test_an_incompatible_normalize_error_lists_the_choices():
    net = """layer { name: "d" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }
    layer { name: "n" type: "Normalize" bottom: "x" top: "y" normalize_param { fix_gradient: true } }"""
    with pytest.raises(sp.NetError) as caught:
        sp.build_graph(sp.parse_net(net))
    assert str(caught.value).startswith("<text>:2: layer 'n': 'fix_gradient' belongs to another Normalize. ")
    assert "norm_param {" in str(caught.value)


@pytest.mark.parametrize(("order", "axes"), [((0, 2, 3, 1), (0, 2, 3, 1)), ((3, 1), (3, 1, 0, 2)), ((), (0, 1, 2, 3))])
def test_permute_names_the_axis_that_each_axis_comes_from(order, axes):
    x = values((N, C, H, W), 1)
    text = " ".join(f"order: {axis}" for axis in order)
    layer = make(f'type: "Permute" permute_param {{ {text} }}')
    (y,) = run(layer, x)
    assert layer.top_shapes([(N, C, H, W)]) == [tuple((N, C, H, W)[axis] for axis in axes)]
    for place in np.ndindex(*y.shape):
        source = [0] * 4
        for axis, index in zip(axes, place, strict=True):
            source[axis] = index
        assert y[place] == x[tuple(source)]


def mirrored(index, size):
    return -index if index < 0 else 2 * (size - 1) - index if index >= size else index


@pytest.mark.parametrize("mode", ["REFLECT", "REPLICATE", "CONSTANT"])
def test_padding_adds_a_border(mode):
    x = values((2, C, H, W), 1)
    value = "value: -7" if mode == "CONSTANT" else ""
    layer = make(f'type: "Padding" padding_param {{ mode: {mode} pad: 1 pad_w: 3 {value} }}')
    (y,) = run(layer, x)
    assert tuple(y.shape) == (2, C, H + 2, W + 6)
    for h, w in np.ndindex(H + 2, W + 6):
        row, column = h - 1, w - 3
        if mode == "CONSTANT" and not (0 <= row < H and 0 <= column < W):
            assert (y[:, :, h, w] == -7).all()
            continue
        row = mirrored(row, H) if mode == "REFLECT" else min(max(row, 0), H - 1)
        column = mirrored(column, W) if mode == "REFLECT" else min(max(column, 0), W - 1)
        assert torch.equal(y[:, :, h, w], x[:, :, row, column])


def test_channel_dropout_drops_whole_channels_and_keeps_the_mean():
    layer = make('type: "ChannelDropout" dropout_param { dropout_ratio: 0.25 }', phase="TRAIN")
    x = torch.ones(40, 50, 2, 3)
    (y,) = run(layer, x, state=RunState(seed=5))
    per_channel = y.flatten(2)
    assert torch.equal(per_channel.min(2).values, per_channel.max(2).values)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert float((y == 0).float().mean()) == pytest.approx(0.25, abs=0.04)
    assert torch.equal(run(layer, x, state=RunState(seed=5))[0], y)
    assert not torch.equal(run(layer, x, state=RunState(seed=5, iteration=1))[0], y)


# ContrastiveLoss


def test_contrastive_loss_supports_label_different_and_normalization_mean():
    a, b = values((N, C), 1) / 4, values((N, C), 2) / 4
    labels = torch.tensor([1.0, 0, 1, 0])  # 1: different
    text = "label: DIFFERENT normalization: MEAN margin: 2"
    (top,) = run(make(f'type: "ContrastiveLoss" contrastive_loss_param {{ {text} }}', 3), a, b, labels)
    expected = 0.0
    for (x, y), label in zip(rows(a, b), labels.tolist(), strict=True):
        distance = math.sqrt(squared(x, y))
        expected += (1 - label) * distance**2 + label * max(2 - distance, 0) ** 2
    assert float(top) == pytest.approx(expected / N, rel=1e-12)


@pytest.mark.parametrize(("normalization", "factor"), [("HALF_MEAN", 1), ("MEAN", 2), ("SUM", 2 * N)])
def test_the_normalization_of_contrastive_loss_scales_its_gradient_too(normalization, factor):
    a, b, labels = values((N, C), 1), values((N, C), 2), torch.tensor([1.0, 0, 1, 0])

    def loss_and_gradient(text):
        first = a.clone().requires_grad_()
        (top,) = run(
            make(f'type: "ContrastiveLoss" contrastive_loss_param {{ margin: 5 {text} }}', 3), first, b, labels
        )
        top.backward()
        return top.detach(), first.grad

    plain, other = loss_and_gradient(""), loss_and_gradient(f"normalization: {normalization}")
    for expected, actual in zip(plain, other, strict=True):
        torch.testing.assert_close(actual, factor * expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "bottoms", "tops", "expected", "field"),
    [
        (
            'type: "Distance"',
            [(4, 3), (4, 2, 2)],
            1,
            "bottom 0 of shape (4, 3) has 3 features and bottom 1 of shape (4, 2, 2) has 4: they must be equal",
            "bottom[1]",
        ),
        (
            'type: "TripletLoss"',
            [(4, 3), (4, 3), (5, 3)],
            1,
            "bottom 0 has shape (4, 3) and bottom 2 has shape (5, 3): their first dimensions, the batch, must be equal",
            "bottom[2]",
        ),
        (
            'type: "CenterLoss"',
            [(4, 3), (4,)],
            1,
            "num_output is missing; give a number",
            "center_loss_param.num_output",
        ),
        (
            'type: "CenterLoss" center_loss_param { num_output: 2 }',
            [(4, 3), (5,)],
            1,
            "bottom 0 of shape (4, 3) holds 4 embeddings, but bottom 1 of shape (5,) 5 labels",
            "bottom[1]",
        ),
        (
            'type: "Normalize" norm_param { } normalize_param { }',
            [(4, 3)],
            1,
            "both normalize_param and norm_param are set; keep one",
            "norm_param",
        ),
        (
            'type: "Normalize"',
            [(4,)],
            1,
            "a bottom of shape (4,) has no channels: Normalize takes at least 2 axes, (N, C, ..)",
            "bottom[0]",
        ),
        (
            'type: "Permute" permute_param { order: 1 order: 0 order: 1 }',
            [(4, 3)],
            1,
            "order names axis 1 twice",
            "permute_param.order[2]",
        ),
        (
            'type: "Permute" permute_param { order: 2 }',
            [(4, 3)],
            1,
            "axis 2 does not exist in a bottom of shape (4, 3)",
            "permute_param.order[0]",
        ),
        (
            'type: "Padding" padding_param { pad: 5 }',
            [(2, 3, 7, 5)],
            1,
            "a reflected border of 5 must be less than the width 5 of a bottom of shape (2, 3, 7, 5)",
            "padding_param",
        ),
        (
            'type: "Padding"',
            [(2, 3)],
            1,
            "a bottom of shape (2, 3) has 2 axes: Padding takes 4, (N, C, H, W)",
            "bottom[0]",
        ),
        (
            'type: "ChannelDropout" dropout_param { dropout_ratio: 1 }',
            [(4, 3)],
            1,
            "dropout_ratio 1 must be at least 0 and less than 1",
            "dropout_param.dropout_ratio",
        ),
        (
            'type: "ChannelDropout"',
            [(4,)],
            1,
            "a bottom of shape (4,) has no channels: ChannelDropout takes at least 2 axes, (N, C, ..)",
            "bottom[0]",
        ),
    ],
)
def test_our_extension_layers_refuse_wrong_settings(text, bottoms, tops, expected, field):
    error = refused(text, bottoms, tops)
    assert (error.message, error.field) == (expected, field)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (
            'type: "TripletLoss" bottom: "a" bottom: "p" bottom: "n" triplet_loss_param { form: SOFTMAX\n margin: 1 }',
            "triplet_loss_param.margin has no effect; remove it",
        ),
        (
            'type: "Padding" bottom: "a" top: "t" padding_param { mode: REPLICATE\n value: 1 }',
            "padding_param.value has no effect; remove it",
        ),
        (
            'type: "Python" bottom: "a" top: "t" python_param { module: "m" layer: "L"\n share_in_parallel: true }',
            "python_param.share_in_parallel has no effect; remove it",
        ),
        (
            'type: "Normalize" bottom: "a" top: "t"\n mvn_param { }',
            "mvn_param has no effect on a layer of type Normalize, which reads normalize_param and norm_param",
        ),
    ],
)
def test_extension_layer_settings_without_effect_are_reported(layer, expected):
    dims = "shape { dim: 4 dim: 3 dim: 5 dim: 7 }"
    net = f'layer {{ name: "d" type: "Input" top: "a" top: "p" top: "n" input_param {{ {dims} }} }}\n'
    net += f'layer {{ name: "it" {layer} }}'
    assert [str(finding) for finding in check_net(net)] == [
        f"<text>:3: warning[no-effect]: layer 'it': {expected}",
    ]
