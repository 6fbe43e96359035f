"""BatchNorm's statistics through the public interface, compared with Caffe's rules in numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import siamese_proto as sp

FRACTION, EPS = 0.75, 2**-10  # both exact in float32
SHAPE = (4, 3, 5, 2)
NET = """
layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 4 dim: 3 dim: 5 dim: 2 }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "x" top: "y"
  batch_norm_param {{ moving_average_fraction: 0.75 eps: 0.0009765625 {more} }} }}
layer {{ name: "scale" type: "Scale" bottom: "y" top: "z" scale_param {{ bias_term: true }} }}
layer {{ name: "loss" type: "Power" bottom: "z" top: "loss" loss_weight: 0.1 power_param {{ power: 2 shift: 0.5 }} }}
"""
TWIN = """
layer { name: "in" type: "Input" top: "a" top: "b"
  input_param { shape { dim: 4 dim: 3 dim: 5 dim: 2 } shape { dim: 4 dim: 3 dim: 5 dim: 2 } } }
layer { name: "bn_a" type: "BatchNorm" bottom: "a" top: "ya" param { name: "m" lr_mult: 0 }
  param { name: "v" lr_mult: 0 } param { name: "s" lr_mult: 0 }
  batch_norm_param { moving_average_fraction: 0.75 eps: 0.0009765625 } }
layer { name: "bn_b" type: "BatchNorm" bottom: "b" top: "yb" param { name: "m" lr_mult: 0 }
  param { name: "v" lr_mult: 0 } param { name: "s" lr_mult: 0 }
  batch_norm_param { moving_average_fraction: 0.75 eps: 0.0009765625 } }
"""


class Caffe:
    """The rules of batch_norm_layer.cpp for x of shape (N, C, ..), in float64."""

    def __init__(self, channels: int) -> None:
        self.mean, self.variance, self.factor = np.zeros(channels), np.zeros(channels), 0.0

    def train(self, x: np.ndarray) -> np.ndarray:
        values = np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)  # (C, m)
        m = values.shape[1]
        mean, variance = values.sum(1) / m, ((values - values.mean(1, keepdims=True)) ** 2).sum(1) / m
        self.factor = FRACTION * self.factor + 1
        self.mean = FRACTION * self.mean + mean
        self.variance = FRACTION * self.variance + variance * (m / (m - 1) if m > 1 else 1)
        return self._normalized(x, mean, variance)

    def test(self, x: np.ndarray) -> np.ndarray:
        scale = 1 / self.factor if self.factor else 0
        return self._normalized(x, self.mean * scale, self.variance * scale)

    def _normalized(self, x: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
        shape = (1, -1, *(1,) * (x.ndim - 2))
        return (x - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + EPS)


def batches(shape=SHAPE):
    """Batches whose means and variances differ from one to the next, and from channel to channel."""
    random = np.random.default_rng(5)
    channel = np.arange(shape[1]).reshape(1, -1, *(1,) * (len(shape) - 2))
    for step in itertools.count():
        yield ((channel - 1.5) * step + (1 + channel) * random.standard_normal(shape)).astype(np.float32)


def assert_statistics(net: sp.Net, layer: str, expected: Caffe, rtol: float = 1e-5) -> None:
    mean, variance, factor = (tensor.numpy() for tensor in net.params[layer])
    np.testing.assert_allclose(mean, expected.mean, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(variance, expected.variance, rtol=rtol)
    np.testing.assert_allclose(factor, [expected.factor], rtol=rtol)


def test_training_follows_caffes_rules_and_testing_uses_stored_statistics():
    train = sp.Net(NET.format(more=""), phase="TRAIN", seed=1)
    test = sp.Net(NET.format(more=""), phase="TEST", share_with=train)
    optimizer = torch.optim.SGD(train.parameters(), lr=0.05)
    caffe = Caffe(3)
    scale, bias = np.ones(3), np.zeros(3)
    spread = (1, 3, 1, 1)
    draw = batches()
    for _ in range(5):
        held_out = next(draw)
        expected = caffe.test(held_out) * scale.reshape(spread) + bias.reshape(spread) + 0.5
        loss = test(x=held_out)["loss"]
        np.testing.assert_allclose(loss.detach().numpy(), expected**2, rtol=1e-4, atol=1e-4)
        assert_statistics(test, "bn", caffe)  # testing does not change them

        x = next(draw)
        normalized = caffe.train(x)
        inner = normalized * scale.reshape(spread) + bias.reshape(spread) + 0.5
        optimizer.zero_grad()
        outputs = train(x=x)
        np.testing.assert_allclose(outputs["loss"].detach().numpy(), inner**2, rtol=1e-4, atol=1e-4)
        train.loss(outputs).backward()
        optimizer.step()
        slope = 0.1 * 2 * inner
        scale -= 0.05 * (slope * normalized).sum((0, 2, 3))
        bias -= 0.05 * slope.sum((0, 2, 3))
        assert_statistics(train, "bn", caffe)
        np.testing.assert_allclose(train.params["scale"][0].detach().numpy(), scale, rtol=1e-4)
    assert caffe.factor > 1


def test_statistics_never_learn():
    net = sp.Net(NET.format(more=""), phase="TRAIN")
    assert [name for name, _ in net.named_parameters()] == ["weights.scale_0", "weights.scale_1"]
    assert [name for name, _ in net.named_buffers()] == ["weights.bn_0", "weights.bn_1", "weights.bn_2"]
    assert not any(tensor.requires_grad for tensor in net.params["bn"])


def test_a_factor_of_zero_means_no_statistics():
    x = next(batches())
    y = sp.Net(NET.format(more=""), phase="TEST").blobs(x=x)["y"]
    np.testing.assert_allclose(y.detach().numpy(), x / np.sqrt(EPS), rtol=1e-5)


@pytest.mark.parametrize(("more", "phase", "stored"), [("true", "TRAIN", True), ("false", "TEST", False)])
def test_use_global_stats_overrides_the_phase(more, phase, stored):
    net = sp.Net(NET.format(more=f"use_global_stats: {more}"), phase=phase)
    caffe = Caffe(3)
    draw = batches()
    for _ in range(2):
        x = next(draw)
        expected = caffe.test(x) if stored else caffe.train(x)
        np.testing.assert_allclose(net.blobs(x=x)["y"].detach().numpy(), expected, rtol=1e-4, atol=1e-4)
        assert_statistics(net, "bn", caffe)


def test_branches_that_share_statistics_add_to_them_in_turn():
    net = sp.Net(TWIN, phase="TRAIN")
    assert all(one is other for one, other in zip(net.params["bn_a"], net.params["bn_b"], strict=True))
    caffe = Caffe(3)
    draw = batches()
    for _ in range(3):
        a, b = next(draw), next(draw)
        outputs = net(a=a, b=b)
        for name, x in (("ya", a), ("yb", b)):
            np.testing.assert_allclose(outputs[name].numpy(), caffe.train(x), rtol=1e-4, atol=1e-4)
    assert_statistics(net, "bn_a", caffe)
    assert caffe.factor == sum(FRACTION**step for step in range(6))


@pytest.mark.parametrize("shape", [(7, 3), (1, 3, 4), (1, 3), (2, 3, 1, 4, 5)])
def test_the_variance_is_corrected_for_the_count_of_values(shape):
    sizes = " ".join(f"dim: {size}" for size in shape)
    text = f"""
        layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ {sizes} }} }} }}
        layer {{ name: "bn" type: "BatchNorm" bottom: "x" top: "y"
          batch_norm_param {{ moving_average_fraction: 0.75 eps: 0.0009765625 }} }}"""
    net = sp.Net(text, phase="TRAIN")
    caffe = Caffe(3)
    draw = batches(shape)
    for _ in range(2):
        x = next(draw)
        inputs = torch.tensor(x, requires_grad=True)
        y = net(x=inputs)["y"]
        np.testing.assert_allclose(y.detach().numpy(), caffe.train(x), rtol=1e-4, atol=1e-4)
        (grad,) = torch.autograd.grad(y.square().sum(), inputs)
        assert grad.isfinite().all()
    assert_statistics(net, "bn", caffe)


def test_a_net_moved_to_float64_keeps_training_and_sharing():
    train = sp.Net(NET.format(more=""), phase="TRAIN")
    test = sp.Net(NET.format(more=""), phase="TEST", share_with=train)
    caffe = Caffe(3)
    draw = batches()
    x = next(draw)
    train(x=x)
    caffe.train(x)
    train.double()
    x = next(draw).astype(np.float64)
    y = train.blobs(x=x)["y"]
    assert y.dtype == torch.float64
    np.testing.assert_allclose(y.detach().numpy(), caffe.train(x), rtol=1e-12, atol=1e-12)
    assert all(tensor.dtype == torch.float64 for tensor in train.params["bn"])
    for one, other in zip(train.params["bn"], test.params["bn"], strict=True):
        assert one.data_ptr() == other.data_ptr()
    np.testing.assert_allclose(test.blobs(x=x)["y"].detach().numpy(), caffe.test(x), rtol=1e-5, atol=1e-5)


def test_statistics_are_written_to_caffemodels_and_read_back(tmp_path):
    net = sp.Net(TWIN, phase="TRAIN")
    draw = batches()
    net(a=next(draw), b=next(draw))
    path = tmp_path / "twin.caffemodel"
    net.save_weights(path)
    fresh = sp.Net(TWIN, phase="TEST", weights=path)
    for layer in ("bn_a", "bn_b"):
        for saved, loaded in zip(net.params[layer], fresh.params[layer], strict=True):
            assert torch.equal(saved, loaded)
            assert saved.abs().min() > 0
    message = sp.proto.schema.NetParameter.FromString(path.read_bytes())
    assert {layer.name: [list(blob.shape.dim) for blob in layer.blobs] for layer in message.layer if layer.blobs} == {
        "bn_a": [[3], [3], [1]],
        "bn_b": [[3], [3], [1]],
    }
