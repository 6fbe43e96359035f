"""Caffe's rules of LRN, MVN, Scale, Bias and PReLU, compared with loops and numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from layer_harness import make, run, values

import siamese_proto as sp
from siamese_proto.errors import GraphError

SHAPE = (2, 7, 5, 3)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn_sums_the_squares_of_neighboring_channels(size):
    layer = make(f'type: "LRN" lrn_param {{ local_size: {size} alpha: 0.5 beta: 0.75 k: 2 }}')
    x = values(SHAPE)
    expected = torch.empty_like(x)
    for channel in range(7):
        near = x[:, max(0, channel - size // 2) : channel + size // 2 + 1]
        expected[:, channel] = x[:, channel] / (2 + 0.5 / size * near.square().sum(1)) ** 0.75
    torch.testing.assert_close(run(layer, x)[0], expected)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn_within_a_channel_sums_the_squares_around_and_ignores_k(size):
    region = "norm_region: WITHIN_CHANNEL"
    layer = make(f'type: "LRN" lrn_param {{ local_size: {size} alpha: 0.5 beta: 0.75 k: 2 {region} }}')
    x = values(SHAPE)
    expected = torch.empty_like(x)
    reach = size // 2
    for row in range(5):
        for column in range(3):
            near = x[:, :, max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
            scale = 1 + 0.5 / size**2 * near.square().sum((2, 3))
            expected[:, :, row, column] = x[:, :, row, column] * scale**-0.75
    torch.testing.assert_close(run(layer, x)[0], expected)
    assert layer.unused_fields() == ["lrn_param.k"]


@pytest.mark.parametrize(("across", "axes"), [("true", (1, 2, 3)), ("false", (2, 3))])
def test_mvn_computes_the_gradient_without_eps(across, axes):
    layer = make(f'type: "MVN" mvn_param {{ eps: 0.25 across_channels: {across} }}')
    x, gradient = values(SHAPE, 1).numpy(), values(SHAPE, 2).numpy()
    mean, deviation = x.mean(axes, keepdims=True), x.std(axes, keepdims=True)
    y = (x - mean) / (deviation + 0.25)
    expected = gradient - gradient.mean(axes, keepdims=True) - y * (y * gradient).mean(axes, keepdims=True)
    x_tensor = torch.tensor(x, requires_grad=True)
    (top,) = run(layer, x_tensor)
    np.testing.assert_allclose(top.detach().numpy(), y, rtol=1e-12)
    (gradient_of_x,) = torch.autograd.grad(top, x_tensor, torch.from_numpy(gradient))
    np.testing.assert_allclose(gradient_of_x.numpy(), expected / (deviation + 0.25), rtol=1e-12, atol=1e-12)


def test_mvn_of_equal_values_is_zero_with_finite_gradient():
    x = torch.full((2, 3, 4, 5), 0.75, requires_grad=True)
    (top,) = run(make('type: "MVN"'), x)
    (gradient_of_x,) = torch.autograd.grad(top.sum(), x)
    assert torch.equal(top, torch.zeros(2, 3, 4, 5))
    assert gradient_of_x.isfinite().all()


def test_mvn_returns_four_axes_for_any_input():
    layer = make('type: "MVN" mvn_param { across_channels: true normalize_variance: false }')
    assert layer.top_shapes([(2, 3)]) == [(2, 3, 1, 1)]
    x = values((2, 3))
    torch.testing.assert_close(run(layer, x)[0][:, :, 0, 0], x - x.mean(1, keepdim=True))


# settings, shape of the second bottom (None: learned), shape of the factor among the axes of x
SPREADS = [
    ("", None, (1, 7, 1, 1)),
    ("axis: 0", None, (2, 1, 1, 1)),
    ("axis: 1 num_axes: 2", None, (1, 7, 5, 1)),
    ("axis: 2 num_axes: -1", None, (1, 1, 5, 3)),
    ("axis: -1", None, (1, 1, 1, 3)),
    ("axis: 0 num_axes: -1", None, SHAPE),
    ("axis: 2 num_axes: 0", None, (1, 1, 1, 1)),
    ("axis: 1", (7, 5), (1, 7, 5, 1)),
    ("axis: 0", (2, 7), (2, 7, 1, 1)),
    ("axis: -2", (5, 3), (1, 1, 5, 3)),
    ("axis: 0", SHAPE, SHAPE),
    ("axis: 3", (), (1, 1, 1, 1)),
]


@pytest.mark.parametrize(("settings", "second", "factor"), SPREADS)
@pytest.mark.parametrize("bias", [False, True])
def test_scale_multiplies_along_its_axes(settings, second, factor, bias):
    bottoms = [SHAPE] if second is None else [SHAPE, second]
    layer = make(f'type: "Scale" scale_param {{ {settings} bias_term: {str(bias).lower()} }}', len(bottoms))
    layer.top_shapes(bottoms)
    shapes = layer.param_shapes(bottoms)
    assert len(shapes) == (second is None) + bias
    tensors = [values(shape, seed).requires_grad_() for seed, shape in enumerate([*bottoms, *shapes])]
    (top,) = run(layer, *tensors[: len(bottoms)], params=tensors[len(bottoms) :])
    arrays = [tensor.detach().numpy() for tensor in tensors]
    expected = arrays[0] * arrays[1].reshape(factor) + (arrays[2].reshape(factor) if bias else 0)
    np.testing.assert_allclose(top.detach().numpy(), expected)

    gradient = values(SHAPE, 5).numpy()
    gradients = torch.autograd.grad(top, tensors, torch.from_numpy(gradient))
    summed = tuple(axis for axis, size in enumerate(factor) if size == 1)
    expected_gradients = [
        gradient * arrays[1].reshape(factor),
        (gradient * arrays[0]).sum(summed),
        gradient.sum(summed),
    ]
    for grad, expected, array in zip(gradients, expected_gradients, arrays, strict=False):
        np.testing.assert_allclose(grad.numpy(), expected.reshape(array.shape), atol=1e-12)


@pytest.mark.parametrize(("settings", "second", "term"), SPREADS)
def test_bias_adds_along_its_axes(settings, second, term):
    bottoms = [SHAPE] if second is None else [SHAPE, second]
    layer = make(f'type: "Bias" bias_param {{ {settings} }}', len(bottoms))
    layer.top_shapes(bottoms)
    x, b = values(SHAPE), values(second if second is not None else layer.param_shapes(bottoms)[0], 1)
    (top,) = run(layer, x, b) if second is not None else run(layer, x, params=[b])
    np.testing.assert_array_equal(top.numpy(), x.numpy() + b.numpy().reshape(term))


def test_scale_starts_at_one_and_bias_at_zero_without_a_filler():
    text = """
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "s" type: "Scale" bottom: "x" top: "y" scale_param { bias_term: true } }
        layer { name: "t" type: "Scale" bottom: "y" top: "z" scale_param { filler { value: 3 }
          bias_term: true bias_filler { value: 4 } } }
        layer { name: "b" type: "Bias" bottom: "z" top: "b" bias_param { filler { value: 5 } num_axes: 0 } }
        layer { name: "p" type: "PReLU" bottom: "b" top: "p" }
        layer { name: "q" type: "PReLU" bottom: "p" top: "q" prelu_param { channel_shared: true filler { value: 6 } } }
        layer { name: "z" type: "PReLU" bottom: "q" top: "q" prelu_param { filler { type: "constant" } } }"""
    params = {name: [tensor.tolist() for tensor in tensors] for name, tensors in sp.Net(text).params.items()}
    assert params == {
        "s": [[1, 1, 1], [0, 0, 0]],
        "t": [[3, 3, 3], [4, 4, 4]],
        "b": [5],
        "p": [[0.25, 0.25, 0.25]],
        "q": [6],
        "z": [[0, 0, 0]],
    }


def test_a_scalar_parameter_is_saved_and_loaded(tmp_path):
    text = """
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "p" type: "PReLU" bottom: "x" top: "y" prelu_param { channel_shared: true FILLER } }"""
    saved = sp.Net(text.replace("FILLER", "filler { value: 0.5 }"))
    saved.save_weights(tmp_path / "net.caffemodel")
    loaded = sp.Net(text.replace("FILLER", ""), weights=tmp_path / "net.caffemodel")
    assert loaded.params["p"][0].shape == ()
    assert loaded(x=torch.tensor([[-2.0, 0.0, 3.0]]))["y"].tolist() == [[-1, 0, 3]]


@pytest.mark.parametrize("shared", [False, True])
def test_prelu_has_a_slope_for_each_channel_or_one_for_all(shared):
    layer = make(f'type: "PReLU" prelu_param {{ channel_shared: {str(shared).lower()} }}')
    x = values(SHAPE).requires_grad_()
    slope = values(layer.param_shapes([SHAPE])[0], 3).requires_grad_()
    (top,) = run(layer, x, params=[slope])
    a = slope.detach().expand(7).reshape(1, 7, 1, 1)
    torch.testing.assert_close(top.detach(), torch.where(x > 0, x, a * x).detach())
    gradient = values(SHAPE, 5)
    to_x, to_slope = torch.autograd.grad(top, (x, slope), gradient)
    torch.testing.assert_close(to_x, torch.where(x > 0, gradient, a * gradient))  # at 0 the slope applies
    terms = (gradient * x.detach().clamp(max=0)).sum((0, 2, 3))
    torch.testing.assert_close(to_slope, terms.sum() if shared else terms)


@pytest.mark.parametrize(
    ("text", "bottoms", "unused"),
    [
        ('type: "Scale" scale_param { num_axes: 2 filler { value: 2 } }', 1, []),
        (
            'type: "Scale" scale_param { num_axes: 2 filler { value: 2 } }',
            2,
            ["scale_param.filler", "scale_param.num_axes"],
        ),
        ('type: "Bias" bias_param { axis: 0 num_axes: 2 }', 2, ["bias_param.num_axes"]),
        ('type: "MVN" mvn_param { eps: 0.1 }', 1, []),
        ('type: "MVN" mvn_param { eps: 0.1 normalize_variance: false }', 1, ["mvn_param.eps"]),
        ('type: "BatchNorm" batch_norm_param { moving_average_fraction: 0.9 }', 1, []),
        (
            'type: "BatchNorm" batch_norm_param { moving_average_fraction: 0.9 use_global_stats: true }',
            1,
            ["batch_norm_param.moving_average_fraction"],
        ),
        (
            'type: "Im2col" convolution_param { kernel_size: 3 num_output: 4 group: 2 }',
            1,
            ["convolution_param.num_output", "convolution_param.group"],
        ),
    ],
)
def test_settings_without_effect_are_reported(text, bottoms, unused):
    assert list(make(text, bottoms).unused_fields()) == unused


def test_statistics_cannot_have_a_learning_rate():
    text = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "bn" type: "BatchNorm" bottom: "x" top: "y"
  param { lr_mult: 0 }
  param { lr_mult: 1 } }"""
    with pytest.raises(GraphError, match=r":4: layer 'bn': lr_mult 1 is given for its variance, a statistic"):
        sp.Net(text)


@pytest.mark.parametrize(
    ("text", "bottoms", "independent"),
    [
        ('type: "BatchNorm" batch_norm_param { use_global_stats: true }', 1, True),
        ('type: "BatchNorm" batch_norm_param { use_global_stats: false }', 1, False),
        ('type: "Scale" scale_param { axis: 1 }', 1, True),
        ('type: "Scale" scale_param { axis: 0 }', 1, False),
        ('type: "Scale" scale_param { axis: 0 num_axes: 0 }', 1, True),
        ('type: "Scale" scale_param { axis: 1 }', 2, False),
        ('type: "Bias" bias_param { axis: -4 }', 1, False),
    ],
)
def test_row_independence_depends_on_the_settings(text, bottoms, independent):
    assert make(text, bottoms, phase="TRAIN").rows_independent() is independent


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('type: "BatchNorm"', "stored statistics"),
        ('type: "BatchNorm" batch_norm_param { use_global_stats: false }', "batch statistics"),
        ('type: "LRN" lrn_param { alpha: 1e-4 k: 2 }', "5 channels alpha 0.0001 beta 0.75 k 2"),
        ('type: "LRN" lrn_param { local_size: 3 norm_region: WITHIN_CHANNEL }', "3x3 values alpha 1 beta 0.75"),
        ('type: "MVN"', "each channel"),
        (
            'type: "MVN" mvn_param { across_channels: true normalize_variance: false }',
            "all channels together, mean only",
        ),
        ('type: "Scale" scale_param { bias_term: true }', "axis 1 + bias"),
        ('type: "Scale" scale_param { num_axes: -1 }', "from axis 1"),
        ('type: "Bias" bias_param { num_axes: 0 }', "one for all"),
        ('type: "PReLU" prelu_param { channel_shared: true }', "one slope for all channels"),
    ],
)
def test_normalization_and_scale_are_described_briefly(text, words):
    assert make(text).describe() == words
