"""face_siamese by hand: a distance between faces, with label 1 for different people."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from references.layers import Twin, xavier


def block(inputs: int, maps: int) -> list[nn.Module]:
    return [nn.ReflectionPad2d(1), nn.Conv2d(inputs, maps, 3), nn.ReLU(), nn.BatchNorm2d(maps)]


class Network(Twin):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            *block(1, 4),
            *block(4, 8),
            *block(8, 8),
            nn.Flatten(),
            nn.Linear(80000, 500),
            nn.ReLU(),
            nn.Linear(500, 500),
            nn.ReLU(),
            nn.Linear(500, 5),
        )
        self.apply(xavier)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        distance, different = self.distance(batch["data"], batch["data_p"]), 1 - batch["same"]
        return ((1 - different) * distance**2 + different * (2 - distance).clamp(min=0) ** 2).mean()

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.0005)
