"""mnist_siamese by hand: Caffe's LeNet twin."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from references.layers import Twin, biases_twice_as_fast, contrastive_loss, xavier


class Network(Twin):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.Conv2d(1, 20, 5),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, 5),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(800, 500),
            nn.ReLU(),
            nn.Linear(500, 10),
            nn.Linear(10, 2),
        )
        self.apply(xavier)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        first, second = batch["pair_data"].split(1, dim=1)
        return contrastive_loss(self.distance(first, second), batch["sim"], margin=1)

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(biases_twice_as_fast(self, 0.01), momentum=0.9)
