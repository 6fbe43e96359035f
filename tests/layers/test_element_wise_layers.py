"""Caffe's rules of layers that work on each element: ties, zeros, constants, random masks and gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from layer_harness import make, run, values

from siamese_proto.layers.base import RunState


def grads(layer, *bottoms):
    bottoms = [bottom.clone().requires_grad_() for bottom in bottoms]
    (top,) = run(layer, *bottoms)
    return top, torch.autograd.grad(top.sum(), bottoms)


def test_eltwise_max_gives_the_gradient_to_one_of_equals():
    layer = make('type: "Eltwise" eltwise_param { operation: MAX }', 4)
    # columns: all equal; 0 and 1 equal; 1 and 2 equal; 2 and 3 equal; 3 alone; 0 alone
    rows = [[1, 5, 1, 1, 1, 9], [1, 5, 5, 1, 2, 2], [1, 1, 5, 5, 3, 3], [1, 1, 1, 5, 4, 4]]
    top, gradients = grads(layer, *(torch.tensor([row], dtype=torch.float64) for row in rows))
    assert top.tolist() == [[1, 5, 5, 5, 4, 9]]
    assert [grad[0].tolist() for grad in gradients] == [
        [0, 0, 0, 0, 0, 1],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
    ]


def test_eltwise_product_has_exact_gradients_at_zero():
    layer = make('type: "Eltwise" eltwise_param { operation: PROD }', 3)
    _, gradients = grads(layer, *(torch.tensor([value, 3.0]) for value in (0.0, 2.0, 5.0)))
    assert [grad.tolist() for grad in gradients] == [[10, 9], [0, 9], [0, 9]]


def test_eltwise_product_without_stable_gradient_divides():
    layer = make('type: "Eltwise" eltwise_param { operation: PROD stable_prod_grad: false }', 3)
    x = [values((2, 3), seed).abs() + 1 for seed in range(3)]
    top, gradients = grads(layer, *x)
    torch.testing.assert_close(top, x[0] * x[1] * x[2])
    for grad, bottom in zip(gradients, x, strict=True):
        torch.testing.assert_close(grad, top / bottom)
    _, gradients = grads(layer, *(torch.tensor([value]) for value in (0.0, 2.0, 5.0)))
    assert math.isnan(gradients[0].item())
    assert gradients[1].item() == 0


def test_eltwise_sum_weights_each_bottom():
    layer = make('type: "Eltwise" eltwise_param { coeff: 1 coeff: -1.5 coeff: 0.25 }', 3)
    x = [values((2, 3), seed) for seed in range(3)]
    top, gradients = grads(layer, *x)
    torch.testing.assert_close(top, x[0] - 1.5 * x[1] + 0.25 * x[2])
    assert [grad[0, 0].item() for grad in gradients] == [1, -1.5, 0.25]


@pytest.mark.parametrize("slope", [0.0, 0.25, -0.5])
def test_relu_at_zero_has_the_slope_of_the_negative_side(slope):
    layer = make(f'type: "ReLU" relu_param {{ negative_slope: {slope} }}')
    top, (grad,) = grads(layer, torch.tensor([-2.0, 0.0, 3.0]))
    assert top.tolist() == [-2 * slope, 0, 3]
    assert grad.tolist() == [slope, slope, 1]


def test_absolute_value_has_no_slope_at_zero():
    _, (grad,) = grads(make('type: "AbsVal"'), torch.tensor([-2.0, 0.0, 3.0]))
    assert grad.tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("power: 0 scale: 3 shift: 5", 1.0), ("power: 3 scale: 0 shift: 2", 8.0), ("power: 0.5 scale: 0 shift: 0", 0.0)],
)
def test_a_power_of_zero_is_constant_even_at_infinity(setting, value):
    layer = make(f'type: "Power" power_param {{ {setting} }}')
    top, (grad,) = grads(layer, torch.tensor([-1.0, 0.0, 2.0, math.inf]))
    assert top.tolist() == [value] * 4
    assert grad.tolist() == [0.0] * 4


def test_power_shifts_after_it_scales():
    top, (grad,) = grads(make('type: "Power" power_param { power: 3 scale: 2 shift: -1 }'), torch.tensor([0.0, 2.0]))
    assert top.tolist() == [-1, 27]
    assert grad.tolist() == [6, 54]


def test_dropout_is_the_identity_in_test():
    x = values((2, 3, 5, 7))
    assert torch.equal(run(make('type: "Dropout"'), x)[0], x)


def test_dropout_keeps_the_expected_part_and_scales_it():
    layer = make('type: "Dropout" dropout_param { dropout_ratio: 0.3 }', phase="TRAIN")
    x = torch.ones(200, 300, requires_grad=True)
    (top,) = run(layer, x)
    mask = top.detach() != 0
    np.testing.assert_allclose(top.detach()[mask].numpy(), 1 / 0.7, rtol=1e-6)
    assert mask.double().mean().item() == pytest.approx(0.7, abs=0.01)  # 5 standard deviations of 60000 draws
    (grad,) = torch.autograd.grad(top.sum(), x)
    assert torch.equal(grad, top.detach()), "the gradient meets the same mask"


def test_dropout_draws_by_seed_iteration_and_name_and_in_the_order_of_rows():
    layer = make('type: "Dropout" name: "drop"', phase="TRAIN")
    x = torch.ones(2, 3, 5, 7)
    masks = {
        "first": run(layer, x, state=RunState(1, 4))[0],
        "iteration": run(layer, x, state=RunState(1, 5))[0],
        "seed": run(layer, x, state=RunState(2, 4))[0],
        "name": run(make('type: "Dropout" name: "other"', phase="TRAIN"), x, state=RunState(1, 4))[0],
    }
    again = run(layer, x.to(memory_format=torch.channels_last), state=RunState(1, 4))[0]
    assert torch.equal(masks.pop("first"), again), "another layout in memory is another order of filling"
    assert all(not torch.equal(again, mask) for mask in masks.values())


def test_slice_without_points_cuts_equal_parts_and_with_points_at_them():
    x = values((2, 6, 3))
    equal = run(make('type: "Slice"', tops=3), x)
    assert [part.shape[1] for part in equal] == [2, 2, 2]
    cut = run(make('type: "Slice" slice_param { slice_point: 1 slice_point: 5 }', tops=3), x)
    assert [part.shape[1] for part in cut] == [1, 4, 1]
    assert torch.equal(torch.cat(equal, 1), x)
    assert torch.equal(torch.cat(cut, 1), x)


def test_reshape_copies_infers_and_keeps_what_is_outside_its_window():
    layer = make('type: "Reshape" reshape_param { axis: 1 num_axes: 2 shape { dim: 0 dim: 1 dim: -1 } }')
    assert layer.top_shapes([(2, 3, 5, 7)]) == [(2, 3, 1, 5, 7)]
    assert run(layer, values((11, 3, 5, 7)))[0].shape == (11, 3, 1, 5, 7)


def test_flatten_of_no_axes_inserts_one():
    layer = make('type: "Flatten" flatten_param { axis: 2 end_axis: 1 }')
    assert layer.top_shapes([(2, 3, 5)]) == [(2, 3, 1, 5)]


def test_silence_discards_its_bottoms():
    assert run(make('type: "Silence"', 2, 0), values((2, 3)), values((4,))) == []


def test_an_input_without_shape_error_says_what_to_write():
    from siamese_proto.graph.ir import SourceMissingError

    with pytest.raises(SourceMissingError, match="the shape is missing: write input_param"):
        make('type: "Input"', 0).top_shapes([])


def test_one_input_shape_serves_all_tops():
    layer = make('type: "Input" input_param { shape { dim: 2 dim: 3 } }', 0, 3)
    assert list(layer.top_shapes([])) == [(2, 3)] * 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('type: "Convolution" convolution_param { num_output: 20 kernel_size: 5 }', "20 x 5x5, stride 1"),
        (
            'type: "Convolution" convolution_param { num_output: 4 kernel_h: 3 kernel_w: 5 stride: 2 pad: 1 group: 2 }',
            "4 x 3x5, stride 2, pad 1, group 2",
        ),
        ('type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }', "MAX 2x2/2"),
        ('type: "Pooling" pooling_param { pool: AVE global_pooling: true }', "AVE global"),
        ('type: "InnerProduct" inner_product_param { num_output: 500 }', "500"),
        ('type: "ContrastiveLoss" contrastive_loss_param { margin: 1 }', "margin 1"),
        ('type: "Slice" slice_param { slice_dim: 1 slice_point: 1 }', "axis 1 at 1"),
        ('type: "Dropout" dropout_param { dropout_ratio: 0.3 }', "0.3"),
        ('type: "Power" power_param { scale: 2 shift: 1 power: 3 }', "(1 + 2 x) ^ 3"),
    ],
)
def test_settings_are_described_briefly(text, words):
    assert make(text, tops=2 if "Slice" in text else 1).describe() == words


def test_multiply_adds_are_those_of_the_sums():
    convolution = make('type: "Convolution" convolution_param { num_output: 20 kernel_size: 5 }')
    assert convolution.multiply_adds([(2, 3, 28, 28)], [(2, 20, 24, 24)]) == 2 * 20 * 24 * 24 * 3 * 5 * 5
    inner = make('type: "InnerProduct" inner_product_param { num_output: 500 }')
    assert inner.multiply_adds([(2, 50, 4, 4)], [(2, 500)]) == 2 * 800 * 500
