"""Shared parts of the hand-written networks."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


def xavier(module: nn.Module) -> None:
    """Initialize like `type: "xavier"`: uniform in +-sqrt(3 / fan_in), biases 0. For Module.apply."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        bound = math.sqrt(3 / module.weight[0].numel())
        nn.init.uniform_(module.weight, -bound, bound)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # all of them have one


def msra(module: nn.Module) -> None:
    """Initialize like `type: "msra"`: normal with variance 2 / fan_in, biases 0. For Module.apply."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, std=math.sqrt(2 / module.weight[0].numel()))
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # all of them have one


def biases_twice_as_fast(module: nn.Module, rate: float) -> list[dict[str, Any]]:
    """Return parameter groups for an optimizer, with Caffe's usual lr_mult of 1 for weights and 2 for biases."""
    biases = [parameter for name, parameter in module.named_parameters() if name.endswith("bias")]
    others = [parameter for name, parameter in module.named_parameters() if not name.endswith("bias")]
    return [{"params": others, "lr": rate}, {"params": biases, "lr": 2 * rate}]


class Twin(nn.Module):
    """Two images through one tower each, compared by the distance of their features unless a subclass overrides it."""

    tower: nn.Module

    def features(self, images: Tensor, side: int) -> Tensor:
        """(N, C, H, W) -> (N, K)."""
        return self.tower(images)

    def apart(self, first: Tensor, second: Tensor) -> Tensor:
        """(N, K), (N, K) -> (N,), small for two images of one class."""
        return functional.pairwise_distance(first, second)

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """(N, C, H, W) twice -> (N,)."""
        return self.apart(self.features(first, 0), self.features(second, 1))


class LeNet(nn.Sequential):
    """(N, 1, 28, 28) -> (N, features), the LeNet of Caffe's examples without its last ReLU."""

    def __init__(self, features: int) -> None:
        super().__init__(
            nn.Conv2d(1, 20, 5),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, 5),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(800, 500),
            nn.ReLU(),
            nn.Linear(500, features),
        )
        self.apply(xavier)


def contrastive_loss(distance: Tensor, same: Tensor, margin: float) -> Tensor:
    """Hadsell, Chopra and LeCun: half the mean of same d^2 + (1 - same) max(margin - d, 0)^2."""
    apart = (margin - distance).clamp(min=0)
    return (same * distance.square() + (1 - same) * apart.square()).mean() / 2
