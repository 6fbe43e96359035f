"""MAX pooling that keeps only where each maximum was: torch's own in all else."""

from typing import Any

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from siamese_proto.layers.autograd.pooling import max_pool

SETTINGS = {
    "2x2": {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0), "ceil_mode": True},
    "overlapping, with pads": {"kernel": (3, 2), "stride": (2, 1), "pad": (1, 1), "ceil_mode": False},
    "beyond the picture": {"kernel": (3, 3), "stride": (2, 2), "pad": (0, 1), "ceil_mode": True},
}


def torchs(x: torch.Tensor, kernel: Any, stride: Any, pad: Any, *, ceil_mode: bool) -> torch.Tensor:
    return torch.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil_mode)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_values_gradients_and_layouts_are_torchs(settings: Any, layout: torch.memory_format) -> None:
    torch.manual_seed(1)
    x = torch.randint(-3, 4, (4, 5, 9, 8)).float().contiguous(memory_format=layout)  # many are equal
    found = []
    for way in (max_pool, torchs):
        given = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = way(given, **settings)
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(2)))
        assert given.grad is not None
        found.append((y.detach(), given.grad))
    for mine, right in zip(*found, strict=True):
        assert torch.equal(mine, right)
        assert mine.stride() == right.stride()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_gradients_have_gradients(settings: Any) -> None:
    torch.manual_seed(1)
    x = torch.randperm(2 * 3 * 7 * 6).double().view(2, 3, 7, 6).requires_grad_()
    assert gradcheck(lambda x: max_pool(x, **settings), (x,))
    assert gradgradcheck(lambda x: max_pool(x, **settings) ** 2, (x / 100,))


def test_the_bottom_is_not_kept() -> None:
    kept: list[tuple[int, ...]] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tuple(tensor.shape))
        return tensor

    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = max_pool(x * 2, (2, 2), (2, 2), (0, 0), ceil_mode=True)
    assert kept == [tuple(y.shape)]
