"""Losses of class scores, compared with their formulas, and the sources of InfogainLoss's matrix."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from layer_harness import make, run, values

import siamese_proto as sp
from siamese_proto.errors import DataError
from siamese_proto.proto import schema


@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_hinge_loss_pushes_the_labels_score_over_one_and_the_others_below_minus_one(norm):
    x = (values((4, 3, 2)) * 2).requires_grad_()  # some exactly at the edge, +1 or -1
    labels = torch.tensor([0.0, 5.0, 2.9, 4.0])
    (top,) = run(make(f'type: "HingeLoss" hinge_loss_param {{ norm: {norm} }}', 2), x, labels.reshape(4, 1, 1, 1))
    top.mul(3).backward()
    total, grad = 0.0, np.zeros((4, 6))
    for n, j in np.ndindex(4, 6):
        sign = -1 if int(labels[n]) == j else 1
        hinge = max(0, 1 + sign * x.detach().reshape(4, 6)[n, j].item())
        total += hinge if norm == "L1" else hinge**2
        grad[n, j] = (np.sign(hinge) if norm == "L1" else 2 * hinge) * sign / 4
    np.testing.assert_allclose(top.item(), total / 4, rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy().reshape(4, 6), 3 * grad, rtol=1e-12)


def test_multinomial_loss_has_a_floor_below_which_the_gradient_continues():
    p = torch.tensor([[0.25, 0.5], [0.0, 1.0], [-3.0, 1.0]], dtype=torch.float64, requires_grad=True)
    (top,) = run(make('type: "MultinomialLogisticLoss"', 2), p, torch.tensor([1.0, 0.0, 0.0]))
    top.backward()
    np.testing.assert_allclose(top.item(), -(math.log(0.5) + 2 * math.log(1e-20)) / 3, rtol=1e-12)
    np.testing.assert_allclose(p.grad.numpy(), [[0, -2 / 3], [-1e20 / 3, 0], [-1e20 / 3, 0]], rtol=1e-12)


def test_multinomial_gradients_are_the_derivatives_above_the_floor():
    p = (values((4, 3, 2)).abs() + 0.1).requires_grad_()
    layer = make('type: "MultinomialLogisticLoss"', 2)
    assert torch.autograd.gradcheck(lambda p: run(layer, p, torch.tensor([5.0, 0.0, 3.0, 2.0]))[0], (p,))


def infogain(x, labels, gains, ignored):
    """Return the sum of losses, its gradient and the number of labels that count; x is (N, C, S)."""
    total, counted, grad = 0.0, 0, np.zeros_like(x)
    for n, s in np.ndindex(x.shape[0], x.shape[2]):
        label = labels[n, s]
        if label == ignored:
            continue
        p = np.exp(x[n, :, s] - x[n, :, s].max())
        p /= p.sum()
        total -= sum(gains[label, k] * math.log(max(p[k], 1e-20)) for k in range(x.shape[1]))
        grad[n, :, s] = p * gains[label].sum() - gains[label]
        counted += 1
    return total, grad, counted


@pytest.mark.parametrize("ignored", [None, 2])
@pytest.mark.parametrize(
    ("setting", "mode"),
    [
        ("", "VALID"),
        ("normalization: VALID", "VALID"),
        ("normalization: FULL", "FULL"),
        ("normalization: BATCH_SIZE", "BATCH_SIZE"),
        ("normalization: NONE", "NONE"),
    ],
)
def test_infogain_loss_weights_every_class_by_its_row(setting, mode, ignored):
    x = (values((3, 4, 5)) * 20).requires_grad_()  # some probabilities lie below the floor
    labels = torch.arange(15).reshape(3, 5) % 4
    gains = values((4, 4), 7)
    total, grad, counted = infogain(x.detach().numpy(), labels.numpy(), gains.numpy(), ignored)
    divisor = {"VALID": counted, "FULL": 15, "BATCH_SIZE": 3, "NONE": 1}[mode]
    ignore = "" if ignored is None else f"ignore_label: {ignored}"
    layer = make(f'type: "InfogainLoss" loss_param {{ {setting} {ignore} }}', 3, 2)
    top, probabilities = run(layer, x, labels.double(), gains.reshape(1, 1, 4, 4).requires_grad_())
    assert not probabilities.requires_grad
    top.mul(0.5).backward()
    np.testing.assert_allclose(top.item(), total / divisor, rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), 0.5 * grad / divisor, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(probabilities.sum(1).numpy(), 1)


@pytest.mark.parametrize("axis", [2, -1])
def test_infogain_loss_takes_the_classes_from_its_own_axis(axis):
    x, gains = values((3, 5, 4)), values((4, 4), 7)
    labels = torch.arange(15).reshape(3, 5) % 4
    total, _, _ = infogain(x.numpy().reshape(15, 4, 1), labels.numpy().reshape(15, 1), gains.numpy(), None)
    # The axis of softmax_param has no effect.
    setting = f"infogain_loss_param {{ axis: {axis} }} softmax_param {{ axis: 1 }}"
    (top,) = run(make(f'type: "InfogainLoss" {setting}', 3), x, labels.double(), gains)
    np.testing.assert_allclose(top.item(), total / 15, rtol=1e-12)


def test_infogain_loss_of_the_identity_is_the_softmax_loss():
    x, labels = values((5, 4)), torch.arange(5.0) % 4
    (top,) = run(make('type: "InfogainLoss"', 3), x, labels, torch.eye(4).double())
    torch.testing.assert_close(top, run(make('type: "SoftmaxWithLoss"', 2), x, labels)[0])


@pytest.mark.parametrize("kind", ["HingeLoss", "MultinomialLogisticLoss", "InfogainLoss"])
@pytest.mark.parametrize("label", [5, -1])
def test_a_label_outside_the_classes_is_named(kind, label):
    count = 3 if kind == "InfogainLoss" else 2
    bottoms = [torch.zeros(3, 5), torch.tensor([0.0, label, 4.0]), torch.eye(5)][:count]
    with pytest.raises(DataError) as caught:
        run(make(f'type: "{kind}" name: "judge"', count), *bottoms)
    assert str(caught.value) == f"layer 'judge': label {label} is outside the 5 classes, 0 to 4"


NET = """
layer { name: "in" type: "Input" top: "x" top: "l" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "it" type: "InfogainLoss" bottom: "x" bottom: "l" top: "loss"
  infogain_loss_param { source: "H.binaryproto" } }
"""
GAINS = np.arange(9.0).reshape(3, 3)


def write(folder: Path, **fields) -> str:
    (folder / "H.binaryproto").write_bytes(schema.BlobProto(**fields).SerializeToString())
    (folder / "net.prototxt").write_text(NET)
    return str(folder / "net.prototxt")


@pytest.mark.parametrize("kind", ["data", "double_data"])
def test_the_matrix_is_read_from_a_file_next_to_the_net(tmp_path, kind):
    net = sp.Net(write(tmp_path, height=3, width=3, **{kind: GAINS.ravel()}), phase="TRAIN")
    x = values((2, 3), dtype=torch.float32)
    total, _, _ = infogain(x.double().numpy()[:, :, None], np.array([[2], [0]]), GAINS, None)
    np.testing.assert_allclose(net(x=x, l=torch.tensor([2, 0]))["loss"].item(), total / 2, rtol=1e-6)
    doubled = net(x=x.double(), l=torch.tensor([2, 0]))["loss"]  # the matrix follows the type of the scores
    assert doubled.dtype == torch.float64
    np.testing.assert_allclose(doubled.item(), total / 2, rtol=1e-12)


def test_a_matrix_of_the_wrong_size_is_refused(tmp_path):
    path = write(tmp_path, shape=schema.BlobShape(dim=[4, 2]), data=range(8))
    with pytest.raises(sp.NetError) as caught:
        sp.Net(path, phase="TRAIN")
    assert str(caught.value) == (
        f"{path}:4: layer 'it': source 'H.binaryproto' holds 8 values, but H of 3 classes "
        "(axis 1 of bottom shape (2, 3)) has 3 x 3 = 9"
    )


def test_a_file_without_a_matrix_is_refused(tmp_path):
    path = write(tmp_path)
    (tmp_path / "H.binaryproto").write_bytes(b"no such message")
    with pytest.raises(sp.NetError) as caught:
        sp.Net(path, phase="TRAIN")
    assert str(caught.value) == f"{path}:4: layer 'it': source 'H.binaryproto' is damaged or not a BlobProto"


def test_without_the_matrix_a_net_can_be_inspected_but_not_run(tmp_path):
    path = write(tmp_path)
    (tmp_path / "H.binaryproto").unlink()
    graph = sp.build_graph(sp.parse_net(path))
    missing = "layer 'it': source 'H.binaryproto' does not exist; write H as a BlobProto"
    assert graph.notes == (f"{path}:4: {missing}",)
    with pytest.raises(DataError) as caught:
        sp.Net(graph)(x=torch.zeros(2, 3), l=torch.zeros(2))
    assert str(caught.value) == missing


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_the_loss_compiles_with_its_matrix_from_a_file(tmp_path):
    graph = sp.build_graph(sp.parse_net(write(tmp_path, data=GAINS.ravel())))
    layer, x, labels = graph.nodes[1].layer, values((2, 3)), torch.tensor([2.0, 0.0])
    torch.compiler.reset()
    traced = torch.compile(lambda x, labels: run(layer, x, labels)[0], backend="aot_eager", fullgraph=True)
    totals = [traced(x, labels), traced(x, labels)]
    torch.compiler.reset()
    expected = run(make('type: "InfogainLoss"', 3), x, labels, torch.from_numpy(GAINS))[0]
    for total in (*totals, run(layer, x, labels)[0]):
        torch.testing.assert_close(total, expected)
