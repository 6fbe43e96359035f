"""MAX pooling that saves only the position of each maximum and otherwise equals that of torch."""

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.multiprocessing.reductions import StorageWeakRef

import siamese_proto as sp
from siamese_proto.passes import pooling
from siamese_proto.passes.pooling_kernel import max_pool, maxima

SETTINGS = {
    "2x2": {"kernel": (2, 2), "stride": (2, 2), "pad": (0, 0), "ceil_mode": True},
    "overlapping, with pads": {"kernel": (3, 2), "stride": (2, 1), "pad": (1, 1), "ceil_mode": False},
    "beyond the image": {"kernel": (3, 3), "stride": (2, 2), "pad": (0, 1), "ceil_mode": True},
}


def torchs(x: torch.Tensor, kernel: Any, stride: Any, pad: Any, *, ceil_mode: bool) -> torch.Tensor:
    return torch.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil_mode)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_values_gradients_and_layouts_equal_those_of_torch(settings: Any, layout: torch.memory_format) -> None:
    torch.manual_seed(1)
    x = torch.randint(-3, 4, (4, 5, 9, 8)).float().contiguous(memory_format=layout)  # many are equal
    results = []
    for way in (max_pool, torchs):
        bottom = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = way(bottom, **settings)
        y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(2)))
        assert bottom.grad is not None
        results.append((y.detach(), bottom.grad))
    for mine, right in zip(*results, strict=True):
        assert torch.equal(mine, right)
        assert mine.stride() == right.stride()


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_gradients_are_differentiable(settings: Any) -> None:
    torch.manual_seed(1)
    x = torch.randperm(2 * 3 * 7 * 6).double().view(2, 3, 7, 6).requires_grad_()
    assert gradcheck(lambda x: max_pool(x, **settings), (x,))
    assert gradgradcheck(lambda x: max_pool(x, **settings) ** 2, (x / 100,))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_bottom_is_not_saved_for_backward(layout: torch.memory_format) -> None:
    x = torch.randn(2, 5, 8, 8, requires_grad=True)
    for way, is_kept in ((max_pool, False), (torchs, True)):
        bottom = (x * 2).contiguous(memory_format=layout)
        storage = StorageWeakRef(bottom.untyped_storage())
        y = way(bottom, (2, 2), (2, 2), (0, 0), ceil_mode=True)
        del bottom
        assert storage.expired() != is_kept
        y.sum().backward()


def test_saved_tensor_hooks_see_every_saved_tensor() -> None:
    shapes: list[tuple[int, ...]] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(tensor.shape))
        return tensor

    x = torch.randn(2, 5, 8, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = max_pool(x, (2, 2), (2, 2), (0, 0), ceil_mode=True)
    assert shapes == [(2, 5, 4, 4)]  # the positions of the maxima
    with torch.autograd.graph.disable_saved_tensors_hooks("not here"):
        same = max_pool(x, (2, 2), (2, 2), (0, 0), ceil_mode=True)
    assert torch.equal(y, same)


@pytest.mark.parametrize("comes", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_may_have_either_layout(layout: torch.memory_format, comes: torch.memory_format) -> None:
    torch.manual_seed(1)
    gradients = []
    x = torch.randn(3, 5, 8, 6).contiguous(memory_format=layout).requires_grad_()
    for way in (functools.partial(max_pool, is_flattened=True), torchs):
        y = way(x * 1, (2, 3), (2, 2), (0, 0), ceil_mode=True)
        gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).contiguous(memory_format=comes)
        gradients += torch.autograd.grad(y, x, gradient)
    assert torch.equal(*gradients)


LAYOUTS = st.sampled_from([torch.contiguous_format, torch.channels_last])
SIZES = st.tuples(st.integers(1, 3), st.integers(2, 5), st.integers(2, 9), st.integers(2, 9))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(SIZES, st.tuples(st.integers(2, 9), st.integers(2, 9)), st.data(), LAYOUTS, st.booleans())
def test_maxima_without_gradients_equal_those_of_torch(
    size: tuple[int, ...], window: tuple[int, int], data: st.DataObject, layout: torch.memory_format, ceil_mode: bool
) -> None:
    kernel = (min(window[0], size[2]), min(window[1], size[3]))
    stride = (data.draw(st.integers(1, kernel[0])), data.draw(st.integers(1, kernel[1])))
    torch.manual_seed(sum(size))
    x = (
        torch.randn(size)
        .masked_fill(torch.rand(size) < 0.2, float("nan"))
        .masked_fill(torch.rand(size) < 0.2, -torch.inf)
    )
    x = x.contiguous(memory_format=layout)
    before = x.clone()
    mine, right = maxima(x, kernel, stride, ceil_mode=ceil_mode), torchs(x, kernel, stride, (0, 0), ceil_mode=ceil_mode)
    torch.testing.assert_close(mine, right, rtol=0, atol=0, equal_nan=True)
    assert mine.is_contiguous(memory_format=layout) or mine.numel() == 0
    assert torch.equal(x.nan_to_num(), before.nan_to_num())
    assert mine.untyped_storage().data_ptr() != x.untyped_storage().data_ptr()


NET = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 dim: 17 dim: 16 } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "c"
        convolution_param { num_output: 6 kernel_size: 2 weight_filler { type: "xavier" } } }
layer { name: "split" type: "ReLU" bottom: "c" top: "r" }
layer { name: "first" type: "Pooling" bottom: "r" top: "p" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "second" type: "Pooling" bottom: "p" top: "q" pooling_param { kernel_h: 2 kernel_w: 1 stride: 1 } }
layer { name: "third" type: "Pooling" bottom: "q" top: "s" pooling_param { kernel_size: 2 pad: 1 stride: 2 } }
layer { name: "global" type: "Pooling" bottom: "s" top: "g" pooling_param { global_pooling: true } }
"""


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("trains", [True, False])
def test_layers_use_either_implementation(
    trains: bool, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = {"_MAXIMA_FROM": {False: 1, True: 1}, "_LEAN_FROM": 1, "_TURNED_FROM": 1}
    for name, value in counted.items():
        monkeypatch.setattr(pooling, name, value)
    x = torch.randn((4, 3, 17, 16), generator=torch.Generator().manual_seed(1)).contiguous(memory_format=layout)
    results = []
    for fuse in (True, False):
        net = sp.Net(NET, seed=2, fuse=fuse)
        with torch.set_grad_enabled(trains):
            top = net(x=x)["g"]
        if trains:
            top.square().sum().backward()
        results.append([top.detach(), *(param.grad for param in net.params["c"] if trains)])
    for mine, right in zip(*results, strict=True):
        torch.testing.assert_close(mine, right)
