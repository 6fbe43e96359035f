"""Pooling compared with a loop over windows that follows Caffe's definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from layer_harness import make, run, values

from siamese_proto.errors import GraphError
from siamese_proto.layers.base import RunState

FLT_MAX = float(np.finfo(np.float32).max)


def window_count(size: int, kernel: int, stride: int, pad: int, *, ceil: bool, any_pad: bool) -> int:
    room = (size + 2 * pad - kernel) / stride
    count = (math.ceil(room) if ceil else math.floor(room)) + 1
    return count - 1 if any_pad and (count - 1) * stride >= size + pad else count


def naive(x, difference, method, kernel, stride, pad, counts):
    """Return top, mask and bottom gradient; `difference` returns the top's gradient by position."""
    top = np.zeros((*x.shape[:2], *counts))
    mask = np.full(top.shape, -1.0)
    grad = np.zeros(x.shape)
    height, width = x.shape[2:]
    for n, c, i, j in np.ndindex(*top.shape):
        rows = range(i * stride[0] - pad[0], i * stride[0] - pad[0] + kernel[0])
        columns = range(j * stride[1] - pad[1], j * stride[1] - pad[1] + kernel[1])
        inside = [(h, w) for h in rows for w in columns if 0 <= h < height and 0 <= w < width]
        if method == "MAX":
            top[n, c, i, j] = -FLT_MAX
            for h, w in inside:
                if x[n, c, h, w] > top[n, c, i, j]:
                    top[n, c, i, j], mask[n, c, i, j] = x[n, c, h, w], h * width + w
            if mask[n, c, i, j] >= 0:
                h, w = divmod(int(mask[n, c, i, j]), width)
                grad[n, c, h, w] += difference[n, c, i, j]
        else:
            tall = min(rows[-1] + 1, height + pad[0]) - rows[0]
            wide = min(columns[-1] + 1, width + pad[1]) - columns[0]
            total = sum(x[n, c, h, w] for h, w in inside)
            top[n, c, i, j] = total / (tall * wide) if tall * wide else math.nan
            for h, w in inside:
                grad[n, c, h, w] += difference[n, c, i, j] / (tall * wide)
    return top, mask, grad


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    method=st.sampled_from(["MAX", "AVE"]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    pad=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    ceil=st.booleans(),
    is_channels_last=st.booleans(),
)
def test_pooling_equals_a_loop_over_windows(method, size, kernel, stride, pad, ceil, is_channels_last):
    assume(pad[0] < kernel[0] and pad[1] < kernel[1])
    any_pad = pad != (0, 0)
    counts = tuple(window_count(size[k], kernel[k], stride[k], pad[k], ceil=ceil, any_pad=any_pad) for k in (0, 1))
    tops = 2 if method == "MAX" else 1
    layer = make(
        f"""type: "Pooling" pooling_param {{ pool: {method} kernel_h: {kernel[0]} kernel_w: {kernel[1]}
        stride_h: {stride[0]} stride_w: {stride[1]} pad_h: {pad[0]} pad_w: {pad[1]}
        round_mode: {"CEIL" if ceil else "FLOOR"} }}""",
        tops=tops,
    )
    x = values((2, 3, *size))
    if min(counts) < 1:
        with pytest.raises(GraphError, match="larger than the padded bottom"):
            layer.top_shapes([tuple(x.shape)])
        return
    assert layer.top_shapes([tuple(x.shape)]) == [(2, 3, *counts)] * tops
    difference = values((2, 3, *counts), seed=1)
    top, mask, grad = naive(x.numpy(), difference.numpy(), method, kernel, stride, pad, counts)

    bottom = x.to(memory_format=torch.channels_last) if is_channels_last else x
    bottom = bottom.requires_grad_()
    tops = run(layer, bottom)
    np.testing.assert_allclose(tops[0].detach().numpy(), top, rtol=1e-12)
    if method == "MAX":
        np.testing.assert_array_equal(tops[1].numpy(), mask)
        assert tops[1].dtype == x.dtype
        (alone,) = run(make_with_one_top(layer), bottom)
        assert torch.equal(alone, tops[0])
    (bottom_gradient,) = torch.autograd.grad(tops[0], bottom, difference)
    np.testing.assert_allclose(bottom_gradient.numpy(), grad, rtol=1e-12, atol=1e-12)


def make_with_one_top(layer):
    layer.top_count = 1
    return layer


def test_pooling_rounds_up():
    layer = make('type: "Pooling" pooling_param { pool: MAX kernel_size: 2 stride: 2 }')
    assert layer.top_shapes([(2, 3, 5, 7)]) == [(2, 3, 3, 4)]


def test_pooling_pads_more_than_half_a_kernel():
    layer = make('type: "Pooling" pooling_param { pool: MAX kernel_size: 3 pad: 2 }')
    (top,) = run(layer, torch.full((1, 1, 2, 3), -5.0))
    assert top.shape == (1, 1, 4, 5)
    assert (top == -5).all(), "the pad never wins"


def test_a_window_outside_the_image_is_the_lowest_number_without_gradient():
    layer = make('type: "Pooling" pooling_param { pool: MAX kernel_size: 1 stride: 3 }', tops=2)
    x = torch.arange(10.0).reshape(1, 1, 2, 5).requires_grad_()
    top, mask = run(layer, x)
    assert top.tolist() == [[[[0, 3, -FLT_MAX], [-FLT_MAX] * 3]]]
    assert mask.tolist() == [[[[0, 3, -1], [-1] * 3]]]
    (grad,) = torch.autograd.grad(top, x, torch.ones_like(top))
    assert grad.tolist() == [[[[1, 0, 0, 1, 0], [0] * 5]]]


def test_global_pooling_covers_the_whole_image():
    layer = make('type: "Pooling" pooling_param { pool: AVE global_pooling: true }')
    x = values((2, 3, 5, 7))
    (top,) = run(layer, x)
    assert layer.top_shapes([(2, 3, 5, 7)]) == [(2, 3, 1, 1)]
    np.testing.assert_allclose(top.numpy(), x.numpy().mean((2, 3), keepdims=True))


STOCHASTIC = 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }'


def test_stochastic_pooling_is_the_weighted_mean_in_test():
    x = values((2, 3, 5, 7)).abs()
    (top,) = run(make(STOCHASTIC), x)
    assert top.shape == (2, 3, 3, 4)
    for n, c, i, j in np.ndindex(*top.shape):
        window = x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        expected = (window**2).sum() / window.sum() if window.sum() else 0.0
        np.testing.assert_allclose(top[n, c, i, j], expected)


def test_stochastic_pooling_draws_in_proportion_in_train():
    layer = make(STOCHASTIC, phase="TRAIN")
    x = torch.tensor([[1.0, 2.0, 4.0], [3.0, 0.0, 0.0]]).expand(20000, 1, 2, 3).clone().requires_grad_()
    (top,) = run(layer, x)
    drawn = top[:, 0, 0, 0]
    shares = [(drawn == value).double().mean().item() for value in (1.0, 2.0, 3.0, 0.0)]
    # 5 standard deviations of a share of 20000 draws are less than 0.018
    np.testing.assert_allclose(shares, [1 / 6, 2 / 6, 3 / 6, 0], atol=0.018)
    assert (top[:, 0, 0, 1] == 4).all(), "what hangs over is never drawn"
    (grad,) = torch.autograd.grad(top.sum(), x)
    places = {1.0: (0, 0), 2.0: (0, 1), 3.0: (1, 0)}
    for row in range(20):
        assert grad[row, 0][places[drawn[row].item()]] == 1
        assert grad[row].sum() == 2


def test_stochastic_pooling_draws_the_same_for_the_same_seed_and_iteration():
    layer = make(STOCHASTIC, phase="TRAIN")
    x = values((8, 3, 5, 7)).abs()
    first, again = (run(layer, x, state=RunState(3, 5))[0] for _ in range(2))
    later = run(layer, x, state=RunState(3, 6))[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
