"""torch.compile compiles every layer type, forward and backward, without a graph break."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch._dynamo.testing
from layer_cases import CASES, DYNAMIC, layer_and_bottoms
from layer_harness import make, run

from siamese_proto.layers.base import RunState

NUMBERS = {"a": 1, "b": 2, "c": 2}


def phases(case):
    """Return TRAIN, and also TEST if the layer behaves differently there."""
    other = case[0] in ("BatchNorm", "Dropout", "ChannelDropout") or "STOCHASTIC" in case[1]
    return ("TRAIN", "TEST") if other else ("TRAIN",)


TRACED = [(case, phase) for case in CASES if case[0] not in DYNAMIC for phase in phases(case)]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


# torch raises this whenever it traces an autograd Function.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(("case", "phase"), TRACED, ids=[f"{case[0]}-{phase}-{case[1]}" for case, phase in TRACED])
def test_a_compiled_layer_computes_the_same(case, phase):
    def tops_and_gradients(compiled):
        layer, bottoms, params = layer_and_bottoms(case, NUMBERS, phase)
        for index, bottom in enumerate(bottoms):
            bottom.requires_grad_(index not in layer.labels)
        for param, role in zip(params, layer.params(), strict=True):
            param.requires_grad_(not role.statistic)

        def forward(*tensors):
            return run(layer, *tensors[: len(bottoms)], params=tensors[len(bottoms) :])

        if compiled:
            forward = torch.compile(forward, backend="aot_eager", fullgraph=True)
        tops = forward(*bottoms, *params)
        total = sum(top.sin().sum() for top in tops if top.requires_grad)
        if isinstance(total, torch.Tensor):
            total.backward()
        return [*tops, *(tensor.grad for tensor in (*bottoms, *params)), *params]

    plain, traced = tops_and_gradients(False), tops_and_gradients(True)
    assert len(plain) == len(traced)
    for expected, actual in zip(plain, traced, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10, equal_nan=True)


def test_each_iteration_draws_again_without_recompiling():
    layer = make('type: "Dropout"', phase="TRAIN")
    state = RunState(seed=2**64 - 1)
    x = torch.ones(3, 50)
    traced = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    forward = torch.compile(lambda x: run(layer, x, state=state)[0], backend=traced, fullgraph=True)
    drawn = []
    for iteration in range(6):
        state.iteration = iteration
        drawn.append(forward(x))
        assert torch.equal(drawn[-1], run(layer, x, state=state)[0])
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(drawn, 2))
    assert traced.frame_count <= 2  # once for these values, once for any iteration
