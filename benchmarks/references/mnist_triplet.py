"""mnist_triplet by hand, with the hinge of squared distances, and with the softmax of plain ones."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from references.layers import LeNet, Twin, biases_twice_as_fast


class Network(Twin):
    def __init__(self, *, softmax: bool = False) -> None:
        super().__init__()
        self.tower = LeNet(16)
        self.softmax = softmax

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        anchor, positive, negative = (self.tower(batch[name]) for name in ("anchor", "positive", "negative"))
        if not self.softmax:
            near, far = (anchor - positive).square().sum(1), (anchor - negative).square().sum(1)
            return (1 + near - far).clamp(min=0).mean()
        distances = torch.stack([(anchor - positive).norm(dim=1), (anchor - negative).norm(dim=1)], 1).softmax(1)
        return (distances[:, 0].square() + (1 - distances[:, 1]).square()).mean()

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(biases_twice_as_fast(self, 0.001))
