"""Convolution as products of spectra: the same values and gradients as torch, for every tiling of the images."""

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import siamese_proto as sp
from siamese_proto.passes import spectral_kernel as spectrum
from siamese_proto.passes.spectral_convolution import WORTH, _numbers_inside, best_tiling
from siamese_proto.passes.spectral_kernel import Tiling, convolve_by_spectrum


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def tiling(size: tuple[int, int], counts: tuple[int, int], kernel: tuple[int, int], pad: tuple[int, int]) -> Tiling:
    places = [size[i] + 2 * pad[i] - kernel[i] + 1 for i in (0, 1)]
    return Tiling(counts, (-(-places[0] // counts[0]), -(-places[1] // counts[1])), kernel, pad)


def errors(way: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor, pad: tuple[int, int]) -> list[float]:
    """Return the errors of the top and of the three gradients against float64, relative to the largest value."""
    inputs = [tensor.float().requires_grad_() for tensor in (x, weight, bias)]
    exact = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    top, true = way(*inputs), functional.conv2d(*exact, padding=pad)
    gradient = torch.randn_like(true)
    results = (top, *torch.autograd.grad(top, inputs, gradient.float()))
    right = (true, *torch.autograd.grad(true, exact, gradient))
    pairs = [(a.detach(), b.detach()) for a, b in zip(results, right, strict=True)]
    return [float((a - b).abs().max() / b.abs().max()) for a, b in pairs]


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_it_equals_the_convolution_for_all_sizes_and_tilings(data: st.DataObject) -> None:
    def draw(least: int, most: int) -> int:
        return data.draw(st.integers(least, most))

    kernel, pad = (draw(1, 6), draw(1, 6)), (draw(0, 3), draw(0, 3))
    size = (draw(kernel[0], 19), draw(kernel[1], 19))
    counts = (draw(1, 4), draw(1, 4))  # more tiles than there are places leave some empty
    rows, channels, outputs = draw(1, 4), draw(1, 4), draw(1, 4)
    torch.manual_seed(draw(0, 99))
    x, weight, bias = drawn(rows, channels, *size), drawn(outputs, channels, *kernel), drawn(outputs)
    cut = tiling(size, counts, kernel, pad)
    top = convolve_by_spectrum(x.float(), weight.float(), bias.float(), cut)
    assert top.is_contiguous(memory_format=torch.channels_last)
    assert max(errors(lambda *tensors: convolve_by_spectrum(*tensors, cut), x, weight, bias, pad)) < 1e-5


@pytest.mark.parametrize("counts", [(1, 1), (2, 3)])
def test_it_is_as_accurate_as_the_direct_convolution(counts: tuple[int, int]) -> None:
    torch.manual_seed(1)
    x, weight, bias = drawn(48, 20, 12, 14), drawn(50, 20, 5, 4), drawn(50)
    cut = tiling((12, 14), counts, (5, 4), (0, 0))
    by_spectrum = errors(lambda *tensors: convolve_by_spectrum(*tensors, cut), x, weight, bias, (0, 0))
    direct = errors(functional.conv2d, x, weight, bias, (0, 0))
    assert all(ours <= 1.5 * theirs for ours, theirs in zip(by_spectrum, direct, strict=True))


def test_tensors_that_need_no_gradient_get_none() -> None:
    x, weight = drawn(2, 3, 9, 8).float(), drawn(4, 3, 5, 3).float()
    cut = tiling((9, 8), (1, 2), (5, 3), (0, 0))
    for required in ((True, False), (False, True)):
        leaves = [tensor.clone().requires_grad_(needed) for tensor, needed in zip((x, weight), required, strict=True)]
        convolve_by_spectrum(*leaves, None, cut).sum().backward()
        assert [leaf.grad is not None for leaf in leaves] == list(required)


@pytest.mark.parametrize(
    ("bottom", "outputs", "kernel", "pad"),
    [
        ((128, 20, 12, 12), 50, (5, 5), (0, 0)),  # LeNet's conv2, two towers
        ((64, 20, 12, 12), 50, (5, 5), (0, 0)),  # and one
        ((128, 64, 11, 11), 128, (5, 5), (0, 0)),
        ((32, 64, 48, 48), 128, (7, 7), (0, 0)),
    ],
)
def test_large_kernels_over_many_rows_use_spectra(
    bottom: tuple[int, ...], outputs: int, kernel: tuple[int, int], pad: tuple[int, int]
) -> None:
    tiling = best_tiling(bottom, outputs, kernel, pad, worth=WORTH[False])
    assert tiling is not None
    places = [bottom[i + 2] + 2 * pad[i] - kernel[i] + 1 for i in (0, 1)]
    assert all(tiling.counts[i] * tiling.outputs[i] >= places[i] for i in (0, 1))


@pytest.mark.parametrize(
    ("bottom", "outputs", "kernel"),
    [((2, 20, 12, 12), 50, (5, 5)), ((64, 32, 14, 14), 64, (3, 3)), ((64, 256, 13, 13), 384, (1, 1))],
)
def test_few_rows_and_small_kernels_use_the_direct_convolution(
    bottom: tuple[int, ...], outputs: int, kernel: tuple[int, int]
) -> None:
    assert best_tiling(bottom, outputs, kernel, (0, 0), worth=WORTH[False]) is None


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 15))
def test_the_image_region_seen_by_windows_is_counted(length: int, window: int, pad: int) -> None:
    if length + 2 * pad >= window:
        picture = torch.ones(1, 1, length)
        windows = functional.conv1d(picture, torch.ones(1, 1, window), padding=pad)
        assert _numbers_inside(length, window, pad) == int(windows.sum())


NET = """
layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: 64 dim: 3 dim: 16 dim: 15 } shape { dim: 64 } } }
layer { name: "conv1" type: "Convolution" bottom: "x" top: "conv1"
        convolution_param { num_output: 20 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "conv2" type: "Convolution" bottom: "conv1" top: "conv2" SHARED
        convolution_param { num_output: 50 kernel_size: 5 pad: 1 SETTINGS weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv2" top: "ip"
        inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
"""  # noqa: E501  # one line a layer


def net(*, fuse: bool = True, settings: str = "", shared: str = "") -> sp.Net:
    return sp.Net(NET.replace("SETTINGS", settings).replace("SHARED", shared), phase="TRAIN", seed=3, fuse=fuse)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tiling]]:
    """The tilings of each convolution by spectrum, on one thread."""
    tilings: list[Tiling] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    way = spectrum.convolve_by_spectrum

    def counted(x: Tensor, weight: Tensor, bias: Tensor | None, cut: Tiling) -> Tensor:
        tilings.append(cut)
        return way(x, weight, bias, cut)

    monkeypatch.setattr(spectrum, "convolve_by_spectrum", counted)
    yield tilings
    torch.set_num_threads(threads)


def batch(rows: int = 128) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(rows)
    return {"x": torch.rand(rows, 3, 16, 15, generator=draw), "y": torch.randint(4, (rows,), generator=draw)}


def test_a_net_trains_the_same_with_spectra(calls: list[Tiling]) -> None:
    mine, plain = net(), net(fuse=False)
    losses = [one.loss(one(**batch())) for one in (mine, plain)]
    for loss in losses:
        loss.backward()
    assert len(calls) == 1  # only conv2: conv1's bottom has 3 channels and needs no gradient
    torch.testing.assert_close(*losses)
    for ours, theirs in zip(mine.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_few_channels_use_the_direct_convolution_on_several_threads(calls: list[Tiling]) -> None:
    torch.set_num_threads(2)
    net()(**batch())
    assert not calls


def test_inference_other_dtypes_and_small_batches_use_the_direct_convolution(calls: list[Tiling]) -> None:
    mine, plain = net(), net(fuse=False)
    with torch.no_grad():
        assert torch.equal(mine(**batch())["loss"], plain(**batch())["loss"])
    mine(**batch(rows=2))
    mine.double()(**batch())
    assert not calls


@pytest.mark.parametrize(
    ("settings", "shared"),
    [("stride: 2", ""), ("dilation: 2", ""), ("group: 5", ""), ("", "param { lr_mult: 0 }")],
)
def test_unsupported_settings_use_the_direct_convolution(settings: str, shared: str, calls: list[Tiling]) -> None:
    mine, plain = net(settings=settings, shared=shared), net(fuse=False, settings=settings, shared=shared)
    assert torch.equal(mine(**batch())["loss"], plain(**batch())["loss"])
    assert not calls


def test_windows_of_zeros_give_exactly_the_bias_so_that_a_following_relu_is_exact() -> None:
    torch.manual_seed(4)
    x = torch.zeros(6, 3, 14, 13)
    x[:, :, 5:8, 1:3] = torch.rand(6, 3, 3, 2)
    weight, bias = torch.randn(4, 3, 5, 3), torch.zeros(4)
    for counts in ((1, 1), (2, 3)):
        for term in (bias, None):
            way, direct = (leaves(x, weight, term) for _ in range(2))
            top = convolve_by_spectrum(*way, tiling((14, 13), counts, (5, 3), (3, 2)))
            right = functional.conv2d(*direct, padding=(3, 2))
            assert torch.equal(top == 0, right == 0)
            gradient = torch.randn_like(right)
            for one, other in ((top, way), (right, direct)):
                one.relu().backward(gradient)
                assert all(leaf.grad is not None for leaf in other if leaf is not None)
            for mine, theirs in zip(way, direct, strict=True):
                if mine is not None and theirs is not None:
                    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def leaves(*tensors: Tensor | None) -> list[Tensor | None]:
    return [tensor if tensor is None else tensor.clone().requires_grad_() for tensor in tensors]


def test_the_top_can_be_changed_in_place() -> None:
    x, weight = drawn(2, 3, 9, 8).float(), drawn(4, 3, 5, 3).float().requires_grad_()
    convolve_by_spectrum(x, weight, None, tiling((9, 8), (1, 2), (5, 3), (0, 0))).relu_().sum().backward()
    assert weight.grad is not None


def test_cached_matrices_are_on_the_cpu_for_any_default_device() -> None:
    spectrum.transforms.cache_clear()
    cut = tiling((9, 8), (1, 2), (5, 3), (0, 0))
    with torch.device("meta"):
        spectrum.transforms(cut)
    assert spectrum.transforms(cut).down.device.type == "cpu"
