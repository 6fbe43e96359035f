"""Caffe's rules of element-wise functions: at kinks, at bounds and for large values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from layer_harness import make, run


def value_and_slope(text, numbers, dtype=torch.float64):
    x = torch.tensor(numbers, dtype=dtype, requires_grad=True)
    (top,) = run(make(text), x)
    (grad,) = torch.autograd.grad(top.sum(), x)
    return top.tolist(), grad.tolist()


def test_elu_at_zero_has_the_slope_alpha():
    y, slope = value_and_slope('type: "ELU" elu_param { alpha: 0.5 }', [-2, 0, 3])
    assert y == pytest.approx([0.5 * (math.exp(-2) - 1), 0, 3])
    assert slope == pytest.approx([0.5 * math.exp(-2), 0.5, 1])


@pytest.mark.parametrize("beta", [1.0, 2.5, -0.5, 0.0])
def test_swish_multiplies_by_a_sigmoid(beta):
    numbers = np.array([-30.0, -1, 0, 0.5, 30])
    y, slope = value_and_slope(f'type: "Swish" swish_param {{ beta: {beta} }}', numbers.tolist())
    sigmoid = 1 / (1 + np.exp(-beta * numbers))
    np.testing.assert_allclose(y, numbers * sigmoid)
    np.testing.assert_allclose(slope, sigmoid + beta * numbers * sigmoid * (1 - sigmoid))


def test_clip_lets_the_gradient_pass_at_its_bounds():
    y, slope = value_and_slope('type: "Clip" clip_param { min: -0.5 max: 2 }', [-1, -0.5, 0, 2, 3])
    assert y == [-0.5, -0.5, 0, 2, 2]
    assert slope == [0, 1, 1, 1, 0]


def test_clip_with_its_bounds_the_wrong_way_round_gives_the_lower_one():
    y, slope = value_and_slope('type: "Clip" clip_param { min: 2 max: -1 }', [-3, -1, 0, 2, 3])
    assert y == [2] * 5
    assert slope == [0] * 5


def test_clip_in_place_lets_the_gradient_pass_everywhere():
    y, slope = value_and_slope('type: "Clip" bottom: "b" top: "b" clip_param { min: -0.5 max: 2 }', [-1, -0.5, 0, 2, 3])
    assert y == [-0.5, -0.5, 0, 2, 2]
    assert slope == [1] * 5


def test_bnll_in_place_has_the_slope_at_its_own_result():
    numbers = np.array([-3.0, -0.5, 0, 2, 40])
    y, slope = value_and_slope('type: "BNLL" bottom: "b" top: "b"', numbers.tolist())
    np.testing.assert_allclose(y, np.log1p(np.exp(numbers)))
    np.testing.assert_allclose(slope, 1 / (1 + np.exp(-np.array(y))))


def test_threshold_counts_only_what_is_above_and_has_no_gradient():
    x = torch.tensor([-1.0, 0.3, 0.31], requires_grad=True)
    (top,) = run(make('type: "Threshold" threshold_param { threshold: 0.3 }'), x)
    assert top.tolist() == [0, 0, 1]
    assert not top.requires_grad


def test_bnll_is_exact_far_out():
    numbers = np.array([-200.0, -30, 0, 19.5, 20.5, 30, 49, 51, 200])
    y, slope = value_and_slope('type: "BNLL"', numbers.tolist())
    np.testing.assert_allclose(y, np.logaddexp(0, numbers), rtol=1e-14)
    np.testing.assert_allclose(slope, 1 / (1 + np.exp(-numbers)), rtol=1e-14)
    assert value_and_slope('type: "BNLL"', numbers.tolist(), torch.float32)[0][-1] == 200


@pytest.mark.parametrize(("settings", "base"), [("", math.e), ("base: 2", 2.0), ("base: 0.5", 0.5), ("base: 1", 1.0)])
def test_exp_raises_its_base(settings, base):
    numbers = np.array([-2.0, 0, 1.5])
    y, slope = value_and_slope(f'type: "Exp" exp_param {{ {settings} scale: -1.5 shift: 0.25 }}', numbers.tolist())
    expected = base ** (0.25 - 1.5 * numbers)
    np.testing.assert_allclose(y, expected)
    np.testing.assert_allclose(slope, -1.5 * math.log(base) * expected)


@pytest.mark.parametrize(("settings", "base"), [("", math.e), ("base: 2", 2.0), ("base: 0.5", 0.5), ("base: 10", 10.0)])
def test_log_is_taken_to_its_base(settings, base):
    numbers = np.array([-2.0, 0, 1.5])
    y, slope = value_and_slope(f'type: "Log" log_param {{ {settings} scale: -1.5 shift: 4 }}', numbers.tolist())
    inner = 4 - 1.5 * numbers
    np.testing.assert_allclose(y, np.log(inner) / math.log(base))
    np.testing.assert_allclose(slope, -1.5 / (inner * math.log(base)))


def test_log_outside_its_domain_matches_c():
    y, _ = value_and_slope('type: "Log"', [0, -1])
    assert y[0] == -math.inf
    assert math.isnan(y[1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('type: "ELU" elu_param { alpha: 0.5 }', "alpha 0.5"),
        ('type: "Swish"', ""),
        ('type: "Swish" swish_param { beta: 2 }', "beta 2"),
        ('type: "Clip" clip_param { min: 0 max: 6 }', "0 to 6"),
        ('type: "Threshold" threshold_param { threshold: 0.5 }', "> 0.5"),
        ('type: "Exp" exp_param { scale: 2 shift: 1 }', "e ^ (1 + 2 x)"),
        ('type: "Exp" exp_param { base: 10 }', "10 ^ (1 x)"),
        ('type: "Log" log_param { base: 2 shift: 1 }', "log base 2 (1 + 1 x)"),
        ('type: "Log"', "log (1 x)"),
    ],
)
def test_functions_are_described_briefly(text, words):
    assert make(text).describe() == words
