"""Gradients with Caffe's own rule refuse a second derivative, whatever the loss is."""

from collections.abc import Callable

import pytest
import torch
from layer_harness import make, run
from torch import Tensor
from torch.autograd import gradgradcheck

from siamese_proto.layers.functional.recurrent import lstm_steps
from siamese_proto.passes.per_tower_bias import add_bias
from siamese_proto.passes.spectral_kernel import Tiling, convolve_by_spectrum


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1


LABELS = torch.tensor([1.0, 0.0, 2.0])
GAINS = drawn(5, 5)
NO_STATE = torch.zeros(1, 1)
RULES: dict[str, Callable[[Tensor], Tensor]] = {  # of x (3, 5)
    "ContrastiveLoss": lambda x: run(make('type: "ContrastiveLoss"', 3), x, 2 * drawn(3, 5), LABELS)[0],
    "MultinomialLogisticLoss": lambda x: run(make('type: "MultinomialLogisticLoss"', 2), x, LABELS)[0],
    "InfogainLoss": lambda x: run(make('type: "InfogainLoss"', 3), x, LABELS, GAINS)[0],
    "MVN": lambda x: run(make('type: "MVN"'), x.view(3, 1, 1, 5))[0] * drawn(3, 1, 1, 5),
    "LSTM": lambda x: lstm_steps(x[:, None, :4], torch.ones(3, 1, 1), NO_STATE, NO_STATE, GAINS[:4, :1])[0],
    "spectra": lambda x: convolve_by_spectrum(
        x.float().view(1, 1, 3, 5), torch.ones(2, 1, 2, 2), None, Tiling((1, 1), (2, 4), (2, 2), (0, 0))
    ),
}  # fmt: skip  # one line per rule if it fits


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_second_derivative_through_the_bottom_is_refused(rule: Callable[[Tensor], Tensor]) -> None:
    x = drawn(3, 5).requires_grad_()
    refused = pytest.raises(RuntimeError, match=r"(Rule|Convolution)Backward has no second derivative")
    with refused:
        torch.autograd.grad(rule(x).sum(), x, create_graph=True)  # the incoming gradient is a constant
    with refused:
        rule(x).sum().backward(create_graph=True)
    (first,) = torch.autograd.grad(rule(x).sum(), x)
    assert first.any()
    assert not first.requires_grad


def test_rules_that_are_their_own_derivative_have_second_ones() -> None:
    x, bias = drawn(4, 3).requires_grad_(), drawn(3).requires_grad_()
    assert gradgradcheck(lambda *tensors: add_bias(*tensors, [1, 3]).square(), (x, bias))
    quotients = make('type: "Eltwise" eltwise_param { operation: PROD stable_prod_grad: false }', 3)
    factors = [(drawn(2, 3) + index).requires_grad_() for index in range(3)]
    assert gradgradcheck(lambda *tensors: run(quotients, *tensors)[0], factors)
