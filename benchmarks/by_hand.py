"""Hand-written PyTorch twins and other nets in four forms: a pass per tower or one batch, in either layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Optimizer = Literal["foreach", "fused"]
Loss = Callable[[Sequence[Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class Form:
    """One form of the hand-written training step."""

    batched: bool
    channels_last: bool
    optimizer: Optimizer

    def __str__(self) -> str:
        layout = " channels-last" * self.channels_last
        return (f"one batched{layout} pass" if self.batched else f"a{layout} pass a tower") + f", {self.optimizer}"


FORMS = tuple(
    Form(batched, channels_last, optimizer)
    for batched in (False, True)
    for channels_last in (False, True)
    for optimizer in ("foreach", "fused")
)


class LeNet(nn.Module):
    """(N, 1, 28, 28) -> (N, outputs)."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.ip1 = nn.Linear(800, 500)
        self.ip2 = nn.Linear(500, 10)
        self.feat = nn.Linear(10, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        x = functional.max_pool2d(self.conv1(x), 2)
        x = functional.max_pool2d(self.conv2(x), 2)
        x = functional.relu(self.ip1(x.flatten(1)))
        features: Tensor = self.feat(self.ip2(x))
        return features


class Small(nn.Module):
    """(N, 6) -> (N, 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.ip1 = nn.Linear(6, 8)
        self.ip2 = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the features."""
        features: Tensor = self.ip2(functional.relu(self.ip1(x)))
        return features


def contrastive(features: Sequence[Tensor], same: Tensor) -> Tensor:
    """Compute the contrastive loss with margin 1."""
    squared = (features[0] - features[1]).square().sum(1)  # (N,)
    distance = (squared + 1e-12).sqrt()
    return (same * squared + (1 - same) * (1 - distance).clamp(min=0) ** 2).mean() / 2


def cross_entropy(features: Sequence[Tensor], labels: Tensor) -> Tensor:
    """Compute the softmax loss of the maximum score of each class over all towers."""
    return functional.cross_entropy(reduce(torch.maximum, features), labels.long())


class ByHand:
    """A hand-written training loop over batches in memory: the inputs of each tower, and labels."""

    def __init__(self, tower: nn.Module, towers: int, loss: Loss, form: Form, batch: Tensor, labels: Tensor) -> None:
        self.form = form
        layout = {"memory_format": torch.channels_last} if form.channels_last else {}
        self.tower = tower.to(**layout)  # type: ignore[call-overload]  # a form that torch leaves undeclared
        self.towers = towers
        self.loss = loss
        self.batch = batch  # (N, C, H, W): an input a channel, or (N, K) of one tower
        self.labels = labels
        weights = [p for name, p in tower.named_parameters() if name.endswith("weight")]
        biases = [p for name, p in tower.named_parameters() if name.endswith("bias")]
        groups = [{"params": weights, "lr": 0.01}, {"params": biases, "lr": 0.02}]
        foreach, fused = form.optimizer == "foreach", form.optimizer == "fused"
        self.optimizer = torch.optim.SGD(groups, momentum=0.9, foreach=foreach, fused=fused)
        self.losses: list[Tensor] = []
        self.iteration = 0

    def features(self) -> Sequence[Tensor]:
        """Return the features of each tower, (N, outputs)."""
        inputs = torch.split(self.batch, self.batch.shape[1] // self.towers, 1)
        if not self.form.batched or self.towers == 1:
            return [self.tower(self._laid_out(x)) for x in inputs]
        joined: Tensor = self.tower(self._laid_out(torch.cat(inputs)))
        return torch.split(joined, len(self.batch))

    def _laid_out(self, x: Tensor) -> Tensor:
        if not self.form.channels_last or x.dim() != 4:
            return x
        # Of one channel both layouts have the same bytes, and torch takes the usual strides for channels first.
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)

    def train(self, steps: int) -> None:
        """Train for this many steps."""
        for _ in range(steps):
            rate = 0.01 * (1 + 0.0001 * self.iteration) ** -0.75
            for group, factor in zip(self.optimizer.param_groups, (1, 2), strict=True):
                group["lr"] = rate * factor
            loss = self.loss(self.features(), self.labels)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it so
            self.optimizer.step()
            self.losses.append(loss.detach())
            self.iteration += 1

    def infer(self, steps: int) -> None:
        """Compute the features this many times."""
        with torch.no_grad():
            for _ in range(steps):
                self.features()
