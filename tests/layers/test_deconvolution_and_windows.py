"""Deconvolution, Im2col, SPP, Embed and Convolution without windows, against naive loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from layer_harness import make, run, values

import siamese_proto as sp
from siamese_proto.errors import DataError


def spread(x, weight, bias, stride, pad, dilation, group):
    """Add the kernel of every bottom value to the top: x (N, C, *S), weight (C, O / group, *K)."""
    kernel, rank = weight.shape[2:], x.ndim - 2
    whole = [stride[i] * (x.shape[2 + i] - 1) + dilation[i] * (kernel[i] - 1) + 1 for i in range(rank)]
    outputs = weight.shape[1]
    y = np.zeros((len(x), outputs * group, *whole))
    for place in np.ndindex(*x.shape[1:]):
        channel, *start = place
        first = channel // (x.shape[1] // group) * outputs
        for offset in np.ndindex(*kernel):
            target = tuple(stride[i] * start[i] + dilation[i] * offset[i] for i in range(rank))
            y[(slice(None), slice(first, first + outputs), *target)] += np.outer(
                x[(slice(None), *place)], weight[(channel, slice(None), *offset)]
            )
    inside = tuple(slice(pad[i], whole[i] - pad[i]) for i in range(rank))
    return y[(slice(None), slice(None), *inside)] + bias.reshape(1, -1, *(1,) * rank)


@pytest.mark.parametrize(
    ("settings", "shape", "sizes"),
    [
        ("kernel_size: 4 stride: 3 pad: 2", (2, 6, 5), ((4,), (3,), (2,), (1,), 1)),
        (
            "kernel_h: 2 kernel_w: 4 stride_h: 3 stride_w: 1 pad_h: 1 pad_w: 2 group: 2",
            (2, 6, 4, 5),
            ((2, 4), (3, 1), (1, 2), (1, 1), 2),
        ),
        # more padding than the kernel size, and a stride larger than the kernel
        ("kernel_size: 2 stride: 3 pad: 4", (2, 6, 5, 4), ((2, 2), (3, 3), (4, 4), (1, 1), 1)),
        ("kernel_size: 3 stride: 2 pad: 1 dilation: 2 group: 3", (2, 6, 3, 4), ((3, 3), (2, 2), (1, 1), (2, 2), 3)),
        (
            "kernel_size: 2 kernel_size: 1 kernel_size: 3 stride: 2 dilation: 1 dilation: 1 dilation: 2",
            (2, 6, 3, 2, 4),
            ((2, 1, 3), (2, 2, 2), (0, 0, 0), (1, 1, 2), 1),
        ),
    ],
)
def test_deconvolution_spreads_each_value_over_its_window(settings, shape, sizes):
    layer = make(f'type: "Deconvolution" convolution_param {{ num_output: 6 {settings} }}', 2, 2)
    kernel, stride, pad, dilation, group = sizes
    weight_shape, bias_shape = layer.param_shapes([shape, shape])
    assert weight_shape == (6, 6 // group, *kernel)
    weight, bias = values(weight_shape, 1), values(bias_shape, 2)
    bottoms = [values(shape, 3), values(shape, 4)]
    tops = run(layer, *bottoms, params=[weight, bias])
    for top, bottom, predicted in zip(tops, bottoms, layer.top_shapes([shape, shape]), strict=True):
        expected = spread(bottom.numpy(), weight.numpy(), bias.numpy(), stride, pad, dilation, group)
        assert predicted == expected.shape
        np.testing.assert_allclose(top.numpy(), expected, atol=1e-12)


def test_deconvolution_is_the_gradient_of_convolution():
    settings = "convolution_param { num_output: 4 kernel_size: 3 stride: 2 pad: 1 bias_term: false group: 2 }"
    weight = values((6, 2, 3, 3), 1)
    convolution = make(f'type: "Convolution" {settings.replace("num_output: 4", "num_output: 6")}')
    x = values((2, 4, 9, 7), 2).requires_grad_()
    (y,) = run(convolution, x, params=[weight])
    gradient = values(tuple(y.shape), 3)
    (expected,) = torch.autograd.grad(y, x, gradient)
    torch.testing.assert_close(run(make(f'type: "Deconvolution" {settings}'), gradient, params=[weight])[0], expected)


def test_deconvolution_multiplies_once_for_each_value_and_weight():
    layer = make('type: "Deconvolution" convolution_param { num_output: 4 kernel_size: 3 stride: 2 group: 2 }')
    assert layer.multiply_adds([(2, 6, 5, 7)], [(2, 4, 11, 15)]) == 2 * 6 * 5 * 7 * (4 // 2) * 3 * 3


def test_a_bilinear_deconvolution_of_each_channel_enlarges_images():
    text = """
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 7 } } }
        layer { name: "up" type: "Deconvolution" bottom: "x" top: "y" convolution_param { num_output: 3 group: 3
          kernel_size: 4 stride: 2 pad: 1 bias_term: false weight_filler { type: "bilinear" } } }"""
    x = values((2, 3, 5, 7), dtype=torch.float32)
    y = sp.Net(text)(x=x)["y"].detach()
    expected = torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(y[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize(("settings", "shape"), [("", (5, 6)), ("kernel_size: 3 pad: 1 axis: -1 stride: 2", (2, 3, 6))])
def test_without_spatial_axes_deconvolution_is_a_product_by_groups(kind, settings, shape):
    layer = make(f'type: "{kind}" convolution_param {{ num_output: 4 group: 2 {settings} }}')
    assert layer.top_shapes([shape]) == [(*shape[:-1], 4)]
    weight_shape, bias_shape = layer.param_shapes([shape])
    assert weight_shape == ((4, 3) if kind == "Convolution" else (6, 2))
    x, weight, bias = values(shape, 1), values(weight_shape, 2), values(bias_shape, 3)
    halves = weight.split(len(weight) // 2)
    products = [
        part @ (half.T if kind == "Convolution" else half) for part, half in zip(x.split(3, -1), halves, strict=True)
    ]
    torch.testing.assert_close(run(layer, x, params=[weight, bias])[0], torch.cat(products, -1) + bias)
    assert layer.multiply_adds([shape], [(*shape[:-1], 4)]) == x.numel() * 2


def columns(x, kernel, stride, pad, dilation):
    """Return the windows of x (N, C, *S) as channels, computed in loops."""
    rank = x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0), *((pad[i], pad[i]) for i in range(rank))])
    counts = [(x.shape[2 + i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in range(rank)]
    y = np.empty((len(x), x.shape[1] * int(np.prod(kernel)), *counts))
    for channel, (place, offset) in enumerate(itertools.product(range(x.shape[1]), np.ndindex(*kernel))):
        for count in np.ndindex(*counts):
            source = tuple(stride[i] * count[i] + dilation[i] * offset[i] for i in range(rank))
            y[(slice(None), channel, *count)] = x[(slice(None), place, *source)]
    return y


@pytest.mark.parametrize(
    ("settings", "shape", "sizes"),
    [
        ("kernel_size: 3 stride: 2 pad: 1", (2, 3, 7), ((3,), (2,), (1,), (1,))),
        (
            "kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 2 pad_w: 1",
            (2, 3, 5, 7),
            ((2, 3), (1, 2), (2, 1), (1, 1)),
        ),
        ("kernel_size: 3 dilation: 2", (2, 3, 6, 7), ((3, 3), (1, 1), (0, 0), (2, 2))),
        (
            "kernel_size: 2 stride: 3 stride: 1 stride: 2 dilation: 3",
            (2, 3, 7, 4, 6),
            ((2, 2, 2), (3, 1, 2), (0, 0, 0), (3, 3, 3)),
        ),
        ("kernel_size: 2", (2, 1, 2, 3, 4, 5), ((2,) * 4, (1,) * 4, (0,) * 4, (1,) * 4)),
    ],
)
def test_im2col_lays_windows_out_as_channels(settings, shape, sizes):
    layer = make(f'type: "Im2col" convolution_param {{ {settings} }}')
    x = values(shape)
    expected = columns(x.numpy(), *sizes)
    assert layer.top_shapes([shape]) == [expected.shape]
    np.testing.assert_array_equal(run(layer, x)[0].numpy(), expected)


def test_one_window_may_reach_beyond_the_padded_bottom_by_less_than_the_stride():
    # Heights 2 + 2 x 1 = 4 for windows of 5 with stride 2, widths 3 for windows of 2: Caffe rounds -1 / 2 up to 0.
    settings = "convolution_param { %s kernel_h: 5 kernel_w: 2 stride_h: 2 stride_w: 1 pad_h: 1 pad_w: 0 }"
    x = values((2, 3, 2, 3)).requires_grad_()
    layer = make(f'type: "Convolution" {settings % "num_output: 4"}')
    assert layer.top_shapes([(2, 3, 2, 3)]) == [(2, 4, 1, 2)]
    weight, bias = values((4, 3, 5, 2), 1), values((4,), 2)
    (y,) = run(layer, x, params=[weight, bias])
    expected = np.zeros((2, 4, 1, 2)) + bias.numpy().reshape(1, 4, 1, 1)
    for column in range(2):
        window, weighed = x.detach().numpy()[..., column : column + 2], weight.numpy()[:, :, 1:3]
        expected[:, :, 0, column] += np.einsum("nchw,ochw->no", window, weighed)
    np.testing.assert_allclose(y.detach().numpy(), expected)
    assert torch.autograd.gradcheck(lambda x: run(layer, x, params=[weight, bias])[0], [x])

    (windows,) = run(make(f'type: "Im2col" {settings % ""}'), x)
    np.testing.assert_allclose(
        np.einsum("nkhw,ok->nohw", windows.detach(), weight.flatten(1)), expected - bias.numpy().reshape(1, 4, 1, 1)
    )


def test_im2col_uses_the_given_channel_axis():
    layer = make('type: "Im2col" convolution_param { kernel_size: 2 axis: 2 }')
    x = values((2, 3, 4, 5, 6))
    assert layer.top_shapes([tuple(x.shape)]) == [(2, 3, 16, 4, 5)]
    expected = columns(x.reshape(6, 4, 5, 6).numpy(), (2, 2), (1, 1), (0, 0), (1, 1))
    np.testing.assert_array_equal(run(layer, x)[0].reshape(expected.shape).numpy(), expected)


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("size", [(9, 10), (10, 4), (12, 7)])
def test_spp_covers_the_image_with_bins(method, size):
    layer = make(f'type: "SPP" spp_param {{ pyramid_height: 3 pool: {method} }}')
    shape = (2, 3, *size)
    x = values(shape)
    levels = []
    for bins in (1, 2, 4):
        window = [-(-side // bins) for side in size]
        pad = [(window[i] * bins - size[i] + 1) // 2 for i in (0, 1)]
        pooled = np.empty((2, 3, bins, bins))
        for row, column in np.ndindex(bins, bins):
            top, left = row * window[0] - pad[0], column * window[1] - pad[1]
            part = x[:, :, max(0, top) : top + window[0], max(0, left) : left + window[1]].numpy()
            pooled[:, :, row, column] = (
                part.max((2, 3)) if method == "MAX" else part.sum((2, 3)) / (window[0] * window[1])
            )
        levels.append(pooled.reshape(2, -1))
    assert layer.top_shapes([shape]) == [(2, 3 * 21)]
    np.testing.assert_allclose(run(layer, x)[0].numpy(), np.concatenate(levels, 1))


def test_spp_of_one_level_keeps_four_axes():
    layer = make('type: "SPP" spp_param { pyramid_height: 1 pool: AVE }')
    x = values((2, 3, 5, 7))
    assert layer.top_shapes([(2, 3, 5, 7)]) == [(2, 3, 1, 1)]
    torch.testing.assert_close(run(layer, x)[0], x.mean((2, 3), keepdim=True))


def test_spp_draws_from_each_bin_in_train():
    layer = make('type: "SPP" spp_param { pyramid_height: 2 pool: STOCHASTIC }', phase="TRAIN")
    x = torch.zeros(500, 1, 2, 4)
    x[:, 0, 0, :2] = torch.tensor([1.0, 3.0])  # the first of the 2 x 2 bins; all others are 0
    (y,) = run(layer, x)
    assert y.shape == (500, 5)
    for drawn in (y[:, 0], y[:, 1]):
        assert set(drawn.tolist()) == {1.0, 3.0}
        assert (drawn == 3).double().mean().item() == pytest.approx(0.75, abs=0.1)  # 5 standard deviations
    assert not torch.equal(y[:, 0], y[:, 1])


def test_embed_selects_rows_and_routes_their_gradients():
    layer = make('type: "Embed" embed_param { num_output: 5 input_dim: 7 }')
    numbers = torch.tensor([[3.0, 0.0, 6.0], [3.0, 3.9, 0.0]], dtype=torch.float64, requires_grad=True)
    weight, bias = values((7, 5), 1).requires_grad_(), values((5,), 2).requires_grad_()
    (top,) = run(layer, numbers, params=[weight, bias])
    rows = np.array([[3, 0, 6], [3, 3, 0]])
    np.testing.assert_array_equal(top.detach().numpy(), weight.detach().numpy()[rows] + bias.detach().numpy())
    gradient = values((2, 3, 5), 3)
    to_weight, to_bias, to_numbers = torch.autograd.grad(top, (weight, bias, numbers), gradient, allow_unused=True)
    expected = np.zeros((7, 5))
    np.add.at(expected, rows, gradient.numpy())
    np.testing.assert_allclose(to_weight.numpy(), expected)
    np.testing.assert_allclose(to_bias.numpy(), gradient.numpy().sum((0, 1)))
    assert to_numbers is None


@pytest.mark.parametrize("number", [-1, 7])
def test_a_number_outside_the_table_is_named(number):
    layer = make('type: "Embed" name: "words" embed_param { num_output: 5 input_dim: 7 bias_term: false }')
    with pytest.raises(DataError) as caught:
        run(layer, torch.tensor([2.0, number]), params=[torch.zeros(7, 5)])
    assert str(caught.value) == f"layer 'words': number {number} is outside the table of 7 rows, 0 to 6"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('type: "Deconvolution" convolution_param { num_output: 21 kernel_size: 4 stride: 2 }', "21 x 4x4, stride 2"),
        ('type: "Convolution" convolution_param { num_output: 21 }', "21"),
        ('type: "Im2col" convolution_param { kernel_size: 3 stride: 2 pad: 1 }', "3x3, stride 2, pad 1"),
        ('type: "SPP" spp_param { pyramid_height: 3 pool: AVE }', "AVE 3 levels"),
        ('type: "SPP" spp_param { pyramid_height: 1 }', "MAX 1 level"),
        ('type: "Embed" embed_param { num_output: 5 input_dim: 7 }', "7 to 5"),
    ],
)
def test_windows_and_tables_are_described_briefly(text, words):
    assert make(text).describe() == words
