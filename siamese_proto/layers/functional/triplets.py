"""The triplet loss as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from siamese_proto.layers.loss import pair_divisor


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
        """The loss of the triplets."""
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
