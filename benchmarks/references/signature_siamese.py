"""signature_siamese by hand: are two signatures from the same writer?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from references.layers import Twin, contrastive_loss, xavier


class Network(Twin):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(
            nn.Conv2d(1, 96, 11),
            nn.ReLU(),
            nn.LocalResponseNorm(5, alpha=0.0005, beta=0.75, k=2),  # divides alpha by 5
            nn.MaxPool2d(3, 2),
            nn.Conv2d(96, 256, 5, padding=2),
            nn.ReLU(),
            nn.LocalResponseNorm(5, alpha=0.0005, beta=0.75, k=2),
            nn.MaxPool2d(3, 2),
            nn.Dropout2d(0.3),
            nn.Conv2d(256, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Dropout2d(0.3),
            nn.Flatten(),
            nn.Linear(30976, 1024),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(1024, 128),
            nn.ReLU(),
            nn.Linear(128, 2),
        )
        self.apply(xavier)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        return contrastive_loss(self.distance(batch["data"], batch["data_p"]), batch["same"], margin=1)

    def optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.001, weight_decay=0.0005)
