"""oneshot_siamese by hand: are two drawings of one character?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from references.layers import Twin, msra, xavier


class Network(Twin):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.Conv2d(1, 64, 10),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 7),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(128, 128, 4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(128, 256, 4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(9216, 4096),
            nn.Sigmoid(),
        )
        self.decision = nn.Linear(4096, 1)
        self.apply(msra)
        self.tower[12].apply(xavier)

    def decide(self, first: Tensor, second: Tensor) -> Tensor:
        return self.decision((first - second).abs()).squeeze(1)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        decision = self.decide(self.tower(batch["data"]), self.tower(batch["data_p"]))
        return functional.binary_cross_entropy_with_logits(decision, batch["same"])

    def apart(self, first: Tensor, second: Tensor) -> Tensor:
        return 1 - self.decide(first, second).sigmoid()

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.0001)
