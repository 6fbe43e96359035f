"""pseudo_siamese and half_twin by hand: nets whose two sides differ."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from references.layers import LeNet, Twin, biases_twice_as_fast, contrastive_loss


class TwoSides(Twin):
    left: nn.Module
    right: nn.Module

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        return contrastive_loss(self.distance(batch["data"], batch["data_p"]), batch["same"], margin=1)

    def features(self, images: Tensor, side: int) -> Tensor:
        return self.right(images) if side else self.left(images)

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.001)


class Rows(nn.Module):
    """(N, 1, 28, 28) -> (N, 64): the last state of an LSTM that reads a row at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(28, 64, batch_first=True)
        for name, weight in self.lstm.named_parameters():
            nn.init.zeros_(weight) if "bias" in name else nn.init.uniform_(weight, -0.1, 0.1)

    def forward(self, images: Tensor) -> Tensor:
        state: Tensor = self.lstm(images.squeeze(1))[0][:, -1]
        return state


class PseudoSiamese(TwoSides):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = Rows(), LeNet(64)


class HalfTwin(TwoSides):
    """Shares its convolutions, or with `upper` the layers after them."""

    def __init__(self, *, upper: bool = False) -> None:
        super().__init__()
        left, right = list(LeNet(16)), list(LeNet(16))
        shared = left[4:] if upper else left[:4]
        self.left = nn.Sequential(*left)
        self.right = nn.Sequential(*right[:4], *shared) if upper else nn.Sequential(*shared, *right[4:])

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(biases_twice_as_fast(self, 0.001))
