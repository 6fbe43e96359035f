"""Caffe's rules of the losses and of Accuracy, compared with their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_harness import make, run, values

from siamese_proto.errors import DataError

FLT_MIN = float(np.finfo(np.float32).tiny)


def contrastive(a, b, y, margin, *, legacy):
    """Return the loss and the gradient of a, pair by pair."""
    total, grad = 0.0, np.zeros_like(a)
    for i in range(len(a)):
        squared = float(((a[i] - b[i]) ** 2).sum())
        distance = math.sqrt(squared)
        if int(y[i]):
            total += squared
            grad[i] = a[i] - b[i]
        elif legacy:
            total += max(margin - squared, 0)
            grad[i] = -(a[i] - b[i]) if margin - squared > 0 else 0
        else:
            total += max(margin - distance, 0) ** 2
            grad[i] = -(margin - distance) / (distance + 1e-4) * (a[i] - b[i]) if margin - distance > 0 else 0
    return total / (2 * len(a)), grad / len(a)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 6),
    seed=st.integers(0, 10**6),
    margin=st.sampled_from([0.5, 1.0, 3.0]),
    legacy=st.booleans(),
    spread=st.sampled_from([1e-6, 1e-3, 0.1, 1.0]),
    is_four_dimensional=st.booleans(),
)
def test_contrastive_loss_and_its_gradient_are_caffes(rows, seed, margin, legacy, spread, is_four_dimensional):
    a, b = values((rows, 3), seed) * spread, values((rows, 3), seed + 1) * spread
    # Labels are truncated to integers: 0.9 and -0.5 mean different, 1.5, 2 and -1 similar.
    y = torch.tensor([0.0, 1.0, 0.9, 1.5, -0.5, 2.0, -1.0], dtype=a.dtype)[torch.arange(rows) * 5 % 7]
    loss, grad = contrastive(a.numpy(), b.numpy(), y.numpy(), margin, legacy=legacy)
    layer = make(
        f'type: "ContrastiveLoss" contrastive_loss_param {{ margin: {margin} legacy_version: {str(legacy).lower()} }}',
        3,
    )
    if is_four_dimensional:
        a, b, y = a.reshape(rows, 3, 1, 1), b.reshape(rows, 3, 1, 1), y.reshape(rows, 1, 1, 1)
    a.requires_grad_()
    b.requires_grad_()
    (top,) = run(layer, a, b, y)
    top.mul(0.25).backward()
    np.testing.assert_allclose(top.item(), loss, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(a.grad.numpy().reshape(rows, 3), 0.25 * grad, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(b.grad.numpy(), -a.grad.numpy(), rtol=0)


def test_contrastive_gradient_of_a_pair_without_distance_is_zero():
    a = torch.ones(2, 3, requires_grad=True)
    (top,) = run(make('type: "ContrastiveLoss"', 3), a, torch.ones(2, 3), torch.tensor([0.0, 1.0]))
    top.backward()
    assert top.item() == 0.25
    assert a.grad.tolist() == [[0.0] * 3] * 2


def test_contrastive_gradient_at_a_small_distance_is_less_than_the_derivative():
    a = torch.tensor([[1e-3], [5.0], [5.0]], dtype=torch.float64, requires_grad=True)
    (top,) = run(make('type: "ContrastiveLoss"', 3), a, torch.zeros(3, 1, dtype=a.dtype), torch.zeros(3))
    top.backward()
    assert a.grad[0].item() == pytest.approx(-0.999 / 1.1 / 3)  # the derivative is -0.333


def softmax_loss(x, labels, ignored):
    """Return the sum of losses, its gradient and the number of labels that count; x is (N, C, S)."""
    total, counted = 0.0, 0
    grad = np.zeros_like(x)
    for n in range(x.shape[0]):
        for s in range(x.shape[2]):
            if labels[n, s] == ignored:
                continue
            p = np.exp(x[n, :, s] - x[n, :, s].max())
            p /= p.sum()
            total -= math.log(max(p[labels[n, s]], FLT_MIN))
            grad[n, :, s] = p - np.eye(x.shape[1])[labels[n, s]]
            counted += 1
    return total, grad, counted


@pytest.mark.parametrize("ignored", [None, 2, 255])
@pytest.mark.parametrize(
    ("setting", "mode"),
    [
        ("", "VALID"),
        ("normalization: VALID", "VALID"),
        ("normalization: FULL", "FULL"),
        ("normalization: BATCH_SIZE", "BATCH_SIZE"),
        ("normalization: NONE", "NONE"),
        ("normalize: true", "VALID"),
        ("normalize: false", "BATCH_SIZE"),
        ("normalize: false normalization: FULL", "FULL"),
    ],
)
def test_softmax_loss_divides_by_its_normalization(setting, mode, ignored):
    x = (values((3, 4, 5)) * 100).requires_grad_()  # some probabilities lie below FLT_MIN
    labels = torch.arange(15).reshape(3, 5) % 4
    if ignored == 255:
        labels[1, 2:] = 255
    total, grad, counted = softmax_loss(x.detach().numpy(), labels.numpy(), ignored)
    divisor = {"VALID": counted, "FULL": 15, "BATCH_SIZE": 3, "NONE": 1}[mode]
    ignore = "" if ignored is None else f"ignore_label: {ignored}"
    layer = make(f'type: "SoftmaxWithLoss" loss_param {{ {setting} {ignore} }}', 2, 2)
    top, probabilities = run(layer, x, labels.to(x.dtype))
    assert not probabilities.requires_grad
    top.backward()
    np.testing.assert_allclose(top.item(), total / divisor, rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), grad / divisor, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(probabilities.sum(1).numpy(), 1)


def test_softmax_loss_along_a_later_axis_counts_all_axes_before_it_as_batch():
    x = values((3, 5, 4))
    labels = torch.arange(15).reshape(3, 5) % 4
    total, _, _ = softmax_loss(x.numpy().reshape(15, 4, 1), labels.numpy().reshape(15, 1), None)
    setting = "softmax_param { axis: 2 } loss_param { normalization: BATCH_SIZE }"
    (top,) = run(make(f'type: "SoftmaxWithLoss" {setting}', 2), x, labels.to(x.dtype))
    np.testing.assert_allclose(top.item(), total / 15, rtol=1e-12)


def test_softmax_loss_has_a_floor_below_which_the_gradient_continues():
    x = torch.tensor([[0.0, 200.0]], requires_grad=True)
    (top,) = run(make('type: "SoftmaxWithLoss"', 2), x, torch.tensor([0.0]))
    top.backward()
    assert top.item() == pytest.approx(-math.log(FLT_MIN))
    assert x.grad.tolist() == [[-1.0, 1.0]]


def test_losses_that_ignore_everything_are_zero():
    for kind in ("SoftmaxWithLoss", "SigmoidCrossEntropyLoss"):
        layer = make(f'type: "{kind}" loss_param {{ ignore_label: 1 normalization: VALID }}', 2)
        x = torch.tensor([[0.5], [2.0]], requires_grad=True)
        (top,) = run(layer, x, torch.ones(2, 1))
        top.backward()
        assert top.item() == 0
        assert x.grad.tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("kind", ["SoftmaxWithLoss", "Accuracy"])
@pytest.mark.parametrize("label", [5, -1])
def test_a_label_outside_the_classes_is_named(kind, label):
    layer = make(f'type: "{kind}" name: "judge"', 2)
    with pytest.raises(DataError) as caught:
        run(layer, torch.zeros(3, 5), torch.tensor([0.0, label, 4.0]))
    assert str(caught.value) == f"layer 'judge': label {label} is outside the 5 classes, 0 to 4"


@pytest.mark.parametrize(
    ("setting", "divisor"),
    [
        ("", 3),
        ("normalization: VALID", 9),
        ("normalization: FULL", 12),
        ("normalization: NONE", 1),
        ("normalize: true", 9),
    ],
)
def test_sigmoid_cross_entropy_divides_by_the_batch_by_default(setting, divisor):
    x = (values((3, 4)) * 30).requires_grad_()
    targets = torch.tensor([[0.0, 1.0, 0.25, 7.0], [7.0, 0.0, 1.0, 1.0], [0.0, 0.5, 7.9, 0.0]], dtype=x.dtype)
    layer = make(f'type: "SigmoidCrossEntropyLoss" loss_param {{ ignore_label: 7 {setting} }}', 2)
    (top,) = run(layer, x, targets)
    top.backward()
    total, grad = 0.0, np.zeros((3, 4))
    for i, j in np.ndindex(3, 4):
        value, target = x[i, j].item(), targets[i, j].item()
        if int(target) == 7:
            continue
        total += max(value, 0) - value * target + math.log1p(math.exp(-abs(value)))
        grad[i, j] = 1 / (1 + math.exp(-value)) - target
    np.testing.assert_allclose(top.item(), total / divisor, rtol=1e-12)
    np.testing.assert_allclose(x.grad.numpy(), grad / divisor, rtol=1e-12, atol=1e-30)


def test_euclidean_loss_divides_by_twice_the_batch_alone():
    a, b = values((4, 3, 2)).requires_grad_(), values((4, 6), seed=1).requires_grad_()
    (top,) = run(make('type: "EuclideanLoss"', 2), a, b)
    top.backward()
    difference = a.detach().numpy() - b.detach().numpy().reshape(4, 3, 2)
    np.testing.assert_allclose(top.item(), (difference**2).sum() / 8)
    np.testing.assert_allclose(a.grad.numpy(), difference / 4)
    np.testing.assert_allclose(b.grad.numpy().reshape(4, 3, 2), -difference / 4)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), top_k=st.integers(1, 4), ignored=st.sampled_from([None, 1]), axis=st.integers(1, 2))
def test_accuracy_counts_labels_among_the_highest_scores(seed, top_k, ignored, axis):
    shape = (3, 4, 5) if axis == 1 else (3, 5, 4)
    x = (values(shape, seed) * 2).round()  # ties are frequent
    labels = torch.randint(0, 4, (3, 5), generator=torch.Generator().manual_seed(seed))
    scores = x.numpy() if axis == 1 else x.numpy().swapaxes(1, 2)
    hits, counts = np.zeros(4), np.zeros(4)
    for n, s in np.ndindex(3, 5):
        label = int(labels[n, s])
        if label == ignored:
            continue
        counts[label] += 1
        others_as_good = sum(scores[n, c, s] >= scores[n, label, s] for c in range(4) if c != label)
        hits[label] += others_as_good < top_k
    ignore = "" if ignored is None else f"ignore_label: {ignored}"
    layer = make(f'type: "Accuracy" accuracy_param {{ top_k: {top_k} axis: {axis} {ignore} }}', 2, 2)
    accuracy, of_classes = run(layer, x.requires_grad_(), labels.to(x.dtype))
    assert accuracy.item() == pytest.approx(hits.sum() / max(counts.sum(), 1))
    np.testing.assert_allclose(of_classes.numpy(), hits / np.maximum(counts, 1))
    assert not accuracy.requires_grad


def test_accuracy_of_equal_scores_is_zero():
    (accuracy,) = run(make('type: "Accuracy"', 2), torch.zeros(3, 5), torch.zeros(3))
    assert accuracy.item() == 0


def test_accuracy_is_zero_if_every_label_is_ignored():
    layer = make('type: "Accuracy" accuracy_param { ignore_label: 0 }', 2, 2)
    accuracy, of_classes = run(layer, torch.zeros(3, 5), torch.zeros(3))
    assert accuracy.item() == 0
    assert of_classes.tolist() == [0.0] * 5


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_a_class_below_the_floor_changes_nothing_for_the_others(kind):
    torch.manual_seed(2)
    scores = torch.randn(5, 4, 3, 2).to(kind).requires_grad_()
    labels = torch.randint(4, (5, 3, 2)).to(kind)
    layer = make('type: "SoftmaxWithLoss"', 2, 2)
    total, probabilities = run(layer, scores, labels)
    with_other_class = torch.cat([scores, scores.new_full((5, 1, 3, 2), -200.0)], 1)
    same, others = run(layer, with_other_class, labels)
    torch.testing.assert_close(same, total)
    torch.testing.assert_close(others[:, :4], probabilities)
    torch.testing.assert_close(*(torch.autograd.grad(loss * 3, scores)[0] for loss in (same, total)))
    assert not probabilities.requires_grad


@pytest.mark.parametrize("ways", ["no_grad", "inference", "with gradients"])
def test_the_floor_holds_with_and_without_gradients(ways):
    context = {"no_grad": torch.no_grad, "inference": torch.inference_mode, "with gradients": torch.enable_grad}[ways]
    x = torch.tensor([[0.0, 200.0], [0.0, -math.inf]], requires_grad=ways == "with gradients")
    with context():
        (top,) = run(make('type: "SoftmaxWithLoss" loss_param { normalization: NONE }', 2), x, torch.tensor([0.0, 1.0]))
    assert top.item() == pytest.approx(-2 * math.log(FLT_MIN))
    if ways == "with gradients":
        top.backward()
        assert x.grad.tolist() == [[-1.0, 1.0], [1.0, -1.0]]


@pytest.mark.parametrize("label", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_labels_that_are_not_numbers_are_refused(label, shape):
    labels = torch.zeros(2, *shape)
    labels[0] = label
    with pytest.raises(DataError, match="is outside the 4 classes"):
        run(make('type: "SoftmaxWithLoss"', 2), torch.randn(2, 4, *shape), labels)


def test_the_softmax_loss_has_second_derivatives():
    x = values((3, 4, 5)).requires_grad_()
    labels = torch.arange(15).reshape(3, 5).double() % 4
    layer = make('type: "SoftmaxWithLoss" loss_param { ignore_label: 2 }', 2)
    assert torch.autograd.gradgradcheck(lambda scores: run(layer, scores, labels)[0], (x,))


def test_a_label_equal_to_torchs_ignore_index_is_still_refused():
    with pytest.raises(DataError, match="label -100 is outside the 4 classes"):
        run(make('type: "SoftmaxWithLoss"', 2), torch.randn(2, 4), torch.tensor([1.0, -100.0]))
