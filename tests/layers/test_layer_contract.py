"""The contract of every layer: predicted shapes, number types, independent rows and correct gradients."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import CASES, DYNAMIC, NUMBERS, SETTINGS, layer_and_bottoms
from layer_harness import run

from siamese_proto.layers.base import registered


def test_every_computing_layer_has_a_case():
    computing = {
        name for name, kind in registered().items() if kind.bottoms.least and kind.__module__.startswith("siamese")
    }
    assert computing - {"HDF5Output"} <= set(SETTINGS), (
        "a new layer type needs settings here"
    )  # HDF5Output writes files


@pytest.mark.parametrize("case", CASES, ids=[f"{kind}-{text}" for kind, text, *_ in CASES])
@settings(max_examples=8, deadline=None)
@given(
    numbers=st.fixed_dictionaries(NUMBERS),
    phase=st.sampled_from(["TRAIN", "TEST"]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_tops_have_the_declared_shapes_and_type(case, numbers, phase, dtype):
    layer, bottoms, params = layer_and_bottoms(case, numbers, phase, getattr(torch, dtype))
    shapes = [tuple(bottom.shape) for bottom in bottoms]
    # A forward pass can change only statistics.
    inputs_and_weights = [
        *bottoms,
        *(param for param, role in zip(params, layer.params(), strict=True) if not role.statistic),
    ]
    before = [tensor.clone() for tensor in inputs_and_weights]
    tops = run(layer, *bottoms, params=params)
    first_axis = 1 if case[0] in DYNAMIC else 0  # the first axis with a known size
    assert [tuple(top.shape)[first_axis:] for top in tops] == [
        tuple(shape)[first_axis:] for shape in layer.top_shapes(shapes)
    ]
    assert len(layer.param_shapes(shapes)) == len(layer.params())
    assert {top.dtype for top in tops} <= {getattr(torch, dtype)}
    assert all(torch.equal(old, new) for old, new in zip(before, inputs_and_weights, strict=True)), (
        "a bottom was changed"
    )
    assert layer.multiply_adds(shapes, layer.top_shapes(shapes)) >= 0
    assert "\n" not in layer.describe()


@pytest.mark.parametrize("case", CASES, ids=[f"{kind}-{text}" for kind, text, *_ in CASES])
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_layer_that_has_run_can_be_copied_and_pickled(case, phase):
    layer, bottoms, params = layer_and_bottoms(case, {"a": 1, "b": 2, "c": 2}, phase)
    before = [param.clone() for param in params]
    expected = run(layer, *bottoms, params=params)
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), copy.copy(layer)):
        actual = run(other, *bottoms, params=[param.clone() for param in before])
        assert all(torch.equal(*pair) for pair in zip(actual, expected, strict=True))


@pytest.mark.parametrize("case", CASES, ids=[f"{kind}-{text}" for kind, text, *_ in CASES])
@settings(max_examples=8, deadline=None)
@given(numbers=st.fixed_dictionaries(NUMBERS), phase=st.sampled_from(["TRAIN", "TEST"]))
def test_independent_rows_can_be_split_and_joined(case, numbers, phase):
    layer, bottoms, params = layer_and_bottoms(case, numbers, phase)
    if not layer.rows_independent() or len({len(bottom) for bottom in bottoms}) > 1:
        return
    together = run(layer, *bottoms, params=params)
    first, rest = (
        run(layer, *(bottom[part] for bottom in bottoms), params=params) for part in (slice(1), slice(1, None))
    )
    for joined, one, others in zip(together, first, rest, strict=True):
        torch.testing.assert_close(joined, torch.cat([one, others]), rtol=1e-12, atol=1e-12)


# Layers whose gradient is the derivative. These rules have separate tests: ContrastiveLoss, the quotient gradient of
# PROD, MVN with a significant eps, exposed hidden states, probabilities below the floor, and centers.
TRUE_GRADIENTS = [
    case
    for case in CASES
    if registered()[case[0]].differentiable
    and case[0] not in ("Silence", "ContrastiveLoss", "MultinomialLogisticLoss", "CenterLoss")
    and "stable_prod_grad" not in case[1]
    and "expose_hidden" not in case[1]
    and not (case[0] == "MVN" and "eps" in case[1])
]


@pytest.mark.parametrize("case", TRUE_GRADIENTS, ids=[f"{kind}-{text}" for kind, text, *_ in TRUE_GRADIENTS])
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_gradients_are_the_derivatives(case, phase):
    layer, bottoms, params = layer_and_bottoms(case, {"a": 1, "b": 2, "c": 2}, phase)
    # Away from ties and kinks, where there is no derivative.
    generator = torch.Generator().manual_seed(3)
    inputs = [
        tensor if index in layer.labels else tensor + 0.1 * torch.rand(tensor.shape, generator=generator) + 0.01
        for index, tensor in enumerate(bottoms)
    ]
    inputs = [tensor if index in layer.labels else tensor.requires_grad_() for index, tensor in enumerate(inputs)]
    learned = [not role.statistic for role in layer.params()]
    params = [param.requires_grad_(flag) for param, flag in zip(params, learned, strict=True)]

    def tops(*tensors):
        own = zip(tensors[len(inputs) :], learned, strict=True)
        tops = run(layer, *tensors[: len(inputs)], params=[param if flag else param.clone() for param, flag in own])
        return [top for top in tops if top.requires_grad]

    assert torch.autograd.gradcheck(tops, (*inputs, *params), eps=1e-6, atol=1e-5, fast_mode=True)
