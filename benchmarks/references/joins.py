"""cosine_siamese, l1_siamese and exp_l1_siamese by hand: LeNet towers, joined in three ways."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from references.layers import LeNet, Twin, biases_twice_as_fast


class Join(Twin):
    def __init__(self) -> None:
        super().__init__()
        self.tower = LeNet(16)

    def score(self, first: Tensor, second: Tensor) -> Tensor:
        """Return scores that are high for two features of one class, (N,)."""
        raise NotImplementedError

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        score = self.score(self.tower(batch["data"]), self.tower(batch["data_p"]))
        return functional.binary_cross_entropy_with_logits(score, batch["same"])

    def apart(self, first: Tensor, second: Tensor) -> Tensor:
        return -self.score(first, second)

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(biases_twice_as_fast(self, 0.001))


class Cosine(Join):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(5.0)), nn.Parameter(torch.tensor(0.0))

    def score(self, first: Tensor, second: Tensor) -> Tensor:
        return functional.cosine_similarity(first, second) * self.scale + self.shift


class L1(Join):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(-1.0)), nn.Parameter(torch.tensor(5.0))

    def score(self, first: Tensor, second: Tensor) -> Tensor:
        return (first - second).abs().sum(1) * self.scale + self.shift


class ExpL1(Join):
    def score(self, first: Tensor, second: Tensor) -> Tensor:
        return (-(first - second).abs().sum(1)).exp()

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        score = self.score(self.tower(batch["data"]), self.tower(batch["data_p"]))
        return (score - batch["same"]).square().mean() / 2
