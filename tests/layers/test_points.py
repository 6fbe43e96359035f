"""Convolutions of single points with a stride above 1 match torch and do not crash."""

import subprocess
import sys

import pytest
import torch
from layer_harness import make, run
from torch.nn import functional

STRIDES = {(7,): 2, (7, 6): (2, 3), (5, 4, 7): (1, 2, 3)}  # key: image size


@pytest.mark.parametrize("picture", STRIDES, ids=str)
@pytest.mark.parametrize("group", [1, 2])
def test_points_match_torch(picture: tuple[int, ...], group: int) -> None:
    torch.manual_seed(1)
    stride = STRIDES[picture]
    written = " ".join(f"stride: {step}" for step in (stride if isinstance(stride, tuple) else [stride]))
    layer = make(f'type: "Convolution" convolution_param {{ num_output: 6 kernel_size: 1 {written} group: {group} }}')
    x = torch.randn(2, 4, *picture, dtype=torch.float64)
    weight, bias = torch.randn(6, 4 // group, *(1 for _ in picture), dtype=torch.float64), torch.randn(6).double()
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[len(picture) - 1]
    (mine,), right = run(layer, x, params=inputs[1:]), convolve(x, weight, bias, stride, groups=group)
    assert tuple(mine.shape) == tuple(layer.top_shapes([x.shape])[0])
    torch.testing.assert_close(mine, right)
    direction = torch.randn(right.shape, dtype=torch.float64)
    for one, other in zip(*(torch.autograd.grad(y, inputs, direction) for y in (mine, right)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.slow
def test_many_steps_with_few_innermost_channels_and_two_threads_are_exact() -> None:
    """The oneDNN in torch 2.13 writes out of bounds here, and most processes crash."""
    program = """
import torch, siamese_proto as sp
torch.set_num_threads(2)
net = sp.Net('''
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 5 dim: 3 dim: 12 dim: 10 } } }
layer { name: "a" type: "Convolution" bottom: "x" top: "a" convolution_param {
        num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "b" type: "Convolution" bottom: "a" top: "b" convolution_param {
        num_output: 5 kernel_size: 1 stride: 2 weight_filler { type: "xavier" } } }
''', "TRAIN", seed=1)
for _ in range(60):
    net(x=torch.randn(5, 3, 12, 10))["b"].sum().backward()
    torch.randn(100), [torch.randn(10) for _ in range(20)]
print("well")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr[-500:]
