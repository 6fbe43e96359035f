"""Every layer type is traced whole, forward and backward, by torch.compile: no break in the graph."""

from __future__ import annotations

import pytest
import torch
from layer_cases import CASES, DYNAMIC, layer_and_bottoms
from layer_harness import run

NUMBERS = {"a": 1, "b": 2, "c": 2}


def draws(case, phase):
    """Whether the layer asks for a generator of its own at each pass, which torch.compile cannot trace."""
    return phase == "TRAIN" and (case[0] == "Dropout" or "STOCHASTIC" in case[1])


TRACED = [
    (case, phase) for case in CASES if case[0] not in DYNAMIC for phase in ("TRAIN", "TEST") if not draws(case, phase)
]


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


# Comes from torch itself, wherever it traces an autograd Function.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(("case", "phase"), TRACED, ids=[f"{case[0]}-{phase}-{case[1]}" for case, phase in TRACED])
def test_a_layer_is_traced_whole_and_computes_the_same(case, phase):
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
    for expected, found in zip(plain, traced, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10, equal_nan=True)
