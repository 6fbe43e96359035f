"""Caffe's losses, and Accuracy, as modules."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamese_proto.layers.functional.loss_rules import contrastive_loss, floored_log, infogain_loss, softmax_loss
from siamese_proto.layers.label_indices import divisor, labels_along, pair_divisor


class ContrastiveLoss(nn.Module):
    """`1 / (2 N) sum of [y d^2 + (1 - y) max(margin - d, 0)^2]` with `d = |a - b|`, and Caffe's gradient.

    a and b (N, C), labels y (N): 0 means different, any other integer similar -> ()
    With `legacy` the second term is `(1 - y) max(margin - d^2, 0)`.
    """

    def __init__(self, margin: float = 1.0, *, legacy: bool = False) -> None:
        super().__init__()
        self.margin = margin
        self.legacy = legacy

    def forward(self, a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
        """Return half the mean loss of the pairs."""
        similar = labels.reshape(-1).abs() >= 1  # (N,)
        return contrastive_loss(a.flatten(1), b.flatten(1), similar, margin=self.margin, legacy=self.legacy)


class EuclideanLoss(nn.Module):
    """`1 / (2 N) sum of (a - b)^2`, a and b (N, *S) -> ()."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the loss, divided by the number of rows only."""
        return (a - b.reshape(a.shape)).square().sum() / (2 * len(a))


class SoftmaxWithLoss(nn.Module):
    """`-sum of log(max(p[label], FLT_MIN)) / divisor`, with p the softmax of the scores along `axis`.

    scores (N, C, *S), N x prod S integer labels -> (), and with `with_probabilities` p as well
    Labels equal to `ignore_label` do not count. The divisor is the count (VALID), N (BATCH_SIZE), N x prod S (FULL) or
    1 (NONE), and at least 1.
    """

    def __init__(
        self,
        axis: int = 1,
        ignore_label: int | None = None,
        normalization: str = "VALID",
        *,
        with_probabilities: bool = False,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.ignore_label = ignore_label
        self.normalization = normalization
        self.with_probabilities = with_probabilities

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss, and optionally the probabilities."""
        axis = self.axis % scores.dim()
        loss = softmax_loss(scores, labels, axis, self.ignore_label, self.normalization)
        return (loss, scores.detach().softmax(axis)) if self.with_probabilities else loss


class SigmoidCrossEntropyLoss(nn.Module):
    """`-sum of [t log p + (1 - t) log(1 - p)] / divisor`, with p the sigmoid of x.

    x and targets t (N, *S) -> ();  targets whose integer part equals `ignore_label` do not count
    The divisor is N (BATCH_SIZE), the count (VALID), N x prod S (FULL) or 1 (NONE), and at least 1.
    """

    def __init__(self, ignore_label: int | None = None, normalization: str = "BATCH_SIZE") -> None:
        super().__init__()
        self.ignore_label = ignore_label
        self.normalization = normalization

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the logits x."""
        targets = targets.detach().reshape(x.shape).to(x.dtype)
        counted = None if self.ignore_label is None else (targets.trunc() != self.ignore_label).to(x.dtype)
        total = functional.binary_cross_entropy_with_logits(x, targets, counted, reduction="sum")
        return total / divisor(self.normalization, len(x), x.numel(), counted)


class HingeLoss(nn.Module):
    """`sum of max(0, 1 - s x)^power / N`, s being 1 for the label's score and -1 for the others.

    scores (N, *C), labels (N) -> ()
    """

    def __init__(self, power: int = 1) -> None:
        super().__init__()
        self.power = power

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of the rows."""
        scores = scores.reshape(len(scores), -1)  # (N, C)
        signs = torch.ones_like(scores).scatter_(1, labels.detach().long().reshape(-1, 1), -1.0)
        hinge = (1 + scores * signs).relu()
        return (hinge.square() if self.power == 2 else hinge).sum() / len(scores)


class MultinomialLogisticLoss(nn.Module):
    """`-sum of log(max(p[label], 1e-20)) / N`, probabilities p (N, *C), labels (N) -> ()."""

    def forward(self, probabilities: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of the rows."""
        rows = probabilities.reshape(len(probabilities), -1)  # (N, C)
        picked = rows.gather(1, labels.detach().long().reshape(-1, 1))
        return -floored_log(picked).sum() / len(rows)


class InfogainLoss(nn.Module):
    """`-sum over labels and classes l of H[label, l] log(max(p_l, 1e-20)) / divisor`, p the softmax along `axis`.

    scores (N, C, *S), N x prod S integer labels, H of C x C values -> (), and with `with_probabilities` p
    """

    def __init__(
        self,
        axis: int = 1,
        ignore_label: int | None = None,
        normalization: str = "VALID",
        *,
        with_probabilities: bool = False,
    ) -> None:
        super().__init__()
        self.axis = axis
        self.ignore_label = ignore_label
        self.normalization = normalization
        self.with_probabilities = with_probabilities

    def forward(self, scores: Tensor, labels: Tensor, gains: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the loss, and optionally the probabilities."""
        axis = self.axis % scores.dim()
        classes = scores.shape[axis]
        indices, counted = labels_along(scores, labels, axis, self.ignore_label)
        total, probabilities = infogain_loss(scores, indices, counted, gains.detach().reshape(classes, classes), axis)
        loss = total / divisor(self.normalization, scores.shape[:axis].numel(), indices.numel(), counted)
        return (loss, probabilities) if self.with_probabilities else loss


class Accuracy(nn.Module):
    """The share of labels whose class is among the `top_k` highest scores; ties count against the label.

    scores (N, C, *S), N x prod S integer labels -> (), and with `per_class` (C) as well
    Labels equal to `ignore_label` do not count; if none counts, the result is 0.
    """

    def __init__(
        self, top_k: int = 1, axis: int = 1, ignore_label: int | None = None, *, per_class: bool = False
    ) -> None:
        super().__init__()
        self.top_k = top_k
        self.axis = axis
        self.ignore_label = ignore_label
        self.per_class = per_class

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the accuracy, and optionally that of each class."""
        scores = scores.detach()
        axis = self.axis % scores.dim()
        indices, counted = labels_along(scores, labels, axis, self.ignore_label)
        of_label = scores.gather(axis, indices)
        # The label's own score is among those that reach it, so at most top_k may.
        hit = ((scores >= of_label).sum(axis, keepdim=True) <= self.top_k).to(scores.dtype)
        counts = torch.ones_like(hit) if counted is None else counted
        accuracy = (hit * counts).sum() / counts.sum().clamp(min=1)
        if not self.per_class:
            return accuracy
        hits, totals = (
            scores.new_zeros(scores.shape[axis]).scatter_add_(0, indices.reshape(-1), values.reshape(-1))
            for values in (hit * counts, counts)
        )
        return accuracy, hits / totals.clamp(min=1)


class TripletLoss(nn.Module):
    """`1 / (2 N) sum of max(0, margin + d(a, p) - d(a, n))` with `d(a, b) = |a - b|^2`.

    anchor a, positive p, negative n (N, *K) each -> ()
    With `distance` EUCLIDEAN d is |a - b|. With `form` RATIO the terms are max(0, 1 - d(a, n) / (d(a, p) + margin)),
    with SOFTMAX s^2 + (1 - t)^2, (s, t) the softmax of the two distances. `normalization`: HALF_MEAN 1 / (2 N), MEAN
    1 / N, SUM 1.
    """

    def __init__(
        self, margin: float = 1.0, *, form: str = "HINGE", distance: str = "SQUARED", normalization: str = "HALF_MEAN"
    ) -> None:
        super().__init__()
        self.margin = margin
        self.form = form
        self.is_squared = distance == "SQUARED"
        self.normalization = normalization

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the loss of the triplets."""
        rows = len(anchor)
        sides = [(anchor.reshape(rows, -1) - other.reshape(rows, -1)) for other in (positive, negative)]  # (N, K)
        near, far = (
            side.square().sum(1) if self.is_squared else torch.linalg.vector_norm(side, dim=1) for side in sides
        )
        if self.form == "SOFTMAX":
            losses = 2 * (near - far).sigmoid().square()
        elif self.form == "RATIO":
            losses = (1 - far / (near + self.margin)).relu()
        else:
            losses = (self.margin + near - far).relu()
        return losses.sum() / pair_divisor(self.normalization, rows)
