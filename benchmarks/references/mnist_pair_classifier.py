"""mnist_pair_classifier by hand: a twin, |f1 - f2|, and a classifier of "different" and "same"."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from references.layers import Twin, msra


class Network(Twin):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.Conv2d(1, 64, 7),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 5),
            nn.ReLU(),
            nn.Conv2d(128, 256, 5),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2304, 512),
            nn.ReLU(),
        )
        self.decision = nn.Linear(512, 2)
        self.tower.apply(msra)

    def decide(self, first: Tensor, second: Tensor) -> Tensor:
        return self.decision((first - second).abs())

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        decision = self.decide(self.tower(batch["data"]), self.tower(batch["data_p"]))
        return 2 * functional.cross_entropy(decision, batch["same"].long())  # of the same plus of the different pairs

    def apart(self, first: Tensor, second: Tensor) -> Tensor:
        return self.decide(first, second).softmax(1)[:, 0]

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.001, weight_decay=0.0001)
