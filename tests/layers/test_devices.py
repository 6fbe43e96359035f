"""Every layer computes on the device of its bottoms: it creates no CPU tensors, forward or backward.

The device `meta` follows shapes without computing and refuses to be mixed with another, so a machine without a GPU
tells as well.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layer_cases import CASES, DYNAMIC, layer_and_bottoms

from siamese_proto.layers.base import RunState

NUMBERS = {"a": 1, "b": 2, "c": 2}


def draws(case: Any, phase: str) -> bool:
    """Return whether the layer draws random numbers: `meta` has no generator."""
    return phase == "TRAIN" and (case[0] in ("Dropout", "ChannelDropout") or "STOCHASTIC" in case[1])


CHOSEN = [(case, phase) for case in CASES for phase in ("TRAIN", "TEST") if not draws(case, phase)]


def test_meta_tensors_detect_mixed_devices() -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.ones(2, 3) + torch.empty(2, 3, device="meta")


@pytest.mark.parametrize(
    ("case", "phase"), [(case, phase) for case, phase in CHOSEN if case[0] not in DYNAMIC], ids=lambda value: str(value)
)
def test_a_layer_stays_on_the_device_of_its_bottoms(case: Any, phase: str) -> None:
    layer, bottoms, params = layer_and_bottoms(case, NUMBERS, phase, torch.float32)
    meta_bottoms = [bottom.to("meta").requires_grad_(index not in layer.labels) for index, bottom in enumerate(bottoms)]
    tops = layer.forward(meta_bottoms, [param.to("meta") for param in params], RunState())
    assert {top.device.type for top in tops} <= {"meta"}
    sums = [top.sum() for top in tops if top.requires_grad]
    if sums:
        differentiable = [bottom for bottom in meta_bottoms if bottom.requires_grad]
        gradients = torch.autograd.grad(torch.stack(sums).sum(), differentiable, allow_unused=True)
        assert {gradient.device.type for gradient in gradients if gradient is not None} == {"meta"}
