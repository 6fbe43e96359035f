"""The net "mnist_siamese" as PyTorch modules.

Written by siamese-proto from phase TEST. It needs only torch. Run as a program, it
loads the weights next to it with the same name, or those named on the command line, and prints the
shapes of the outputs for a random batch.
"""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn


class Tower(nn.Module):
    """The tower for both branches of the net.

    data (N, 1, 28, 28) -> feat (N, 2)
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, kernel_size=5)  # "conv1", "conv1_p"
        self.pool1 = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)  # "pool1", "pool1_p"
        self.conv2 = nn.Conv2d(20, 50, kernel_size=5)  # "conv2", "conv2_p"
        self.pool2 = nn.MaxPool2d(kernel_size=2, stride=2, ceil_mode=True)  # "pool2", "pool2_p"
        self.ip1 = nn.Linear(800, 500)  # "ip1", "ip1_p"
        self.relu1 = nn.ReLU()  # "relu1", "relu1_p"
        self.ip2 = nn.Linear(500, 10)  # "ip2", "ip2_p"
        self.feat = nn.Linear(10, 2)  # "feat", "feat_p"

    def forward(self, data: Tensor) -> Tensor:
        """Run one branch."""
        conv1 = self.conv1(data)  # (N, 20, 24, 24)
        pool1 = self.pool1(conv1)  # (N, 20, 12, 12)
        conv2 = self.conv2(pool1)  # (N, 50, 8, 8)
        pool2 = self.pool2(conv2)  # (N, 50, 4, 4)
        ip1 = self.ip1(pool2.flatten(1))  # (N, 500)
        ip1 = self.relu1(ip1)  # (N, 500)
        ip2 = self.ip2(ip1)  # (N, 10)
        return self.feat(ip2)  # (N, 2)


class MnistSiamese(nn.Module):
    """The net "mnist_siamese".

    pair_data (N, 2, 28, 28), sim (N,) -> loss ()
    """

    def __init__(self) -> None:
        super().__init__()
        self.tower = Tower()
        self.loss = ContrastiveLoss(margin=1.0)  # "loss"

    def forward_once(self, data: Tensor) -> Tensor:
        """Run one branch: all of them are this one tower."""
        return self.tower(data)

    def forward(self, pair_data: Tensor, sim: Tensor) -> Tensor:
        """Run the net."""
        data, data_p = pair_data.tensor_split((1,), dim=1)  # "slice_pair": (N, 1, 28, 28), (N, 1, 28, 28)
        feat = self.forward_once(data)  # (N, 2)
        feat_p = self.forward_once(data_p)  # (N, 2)
        return self.loss(feat, feat_p, sim)  # ()


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Raise RuntimeError for `create_graph`, in a rule without a second derivative (decorator of `backward`).

    torch's own `once_differentiable` silently leaves out terms of a second derivative.
    """

    @functools.wraps(backward)
    def refusing(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(f"{ctx.name()} has no second derivative: leave create_graph out")
        return backward(ctx, *gradients)

    return refusing


class ContrastiveLossRule(torch.autograd.Function):
    """The loss of pairs (a, b), and Caffe's gradient of it, which adds 1e-4 to the distance it divides by.

    `dL/da = c (a - b) / N`, `dL/db = -dL/da`; c is 1 for pairs that are similar, and for the others
    `-(m - d) / (d + 1e-4)` (legacy: -1) within the margin m, 0 beyond: finite at d = 0, where the derivative is not.
    (contrastive_loss_layer.cpp)
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, similar: Tensor, margin: float, legacy: bool) -> Tensor:
        difference = a - b  # (N, C)
        squared = difference.square().sum(1)  # (N,)
        if legacy:
            hinge = (margin - squared).clamp_(min=0)  # (N,)
            pull = -(hinge > 0).to(a.dtype)
            terms = hinge
        else:
            distance = squared.sqrt()
            hinge = (margin - distance).clamp_(min=0)
            pull = -hinge / (distance + 1e-4)
            terms = hinge.square()
        ctx.save_for_backward(difference, torch.where(similar, 1.0, pull))
        return torch.where(similar, squared, terms).sum() / (2 * a.shape[0])

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        difference, pull = ctx.saved_tensors
        to_first = difference * (pull * (gradient / len(difference))).unsqueeze(1)  # (N, C)
        return to_first, -to_first if ctx.needs_input_grad[1] else None, None, None, None


def contrastive_loss(a: Tensor, b: Tensor, similar: Tensor, *, margin: float, legacy: bool) -> Tensor:
    """Return the loss () of the pairs (a, b), both (N, C), that are similar (N,) or not."""
    return cast(Tensor, ContrastiveLossRule.apply(a, b, similar, margin, legacy))


class ContrastiveLoss(nn.Module):
    """`1 / (2 N) sum of [y d^2 + (1 - y) max(margin - d, 0)^2]` with `d = |a - b|`, and Caffe's gradient.

    a and b (N, C), labels y (N): 0 means different, any other integer similar -> ()
    With `legacy` the second term is `(1 - y) max(margin - d^2, 0)`.
    """

    def __init__(self, margin: float = 1.0, *, legacy: bool = False) -> None:
        super().__init__()
        self.margin = margin
        self.legacy = legacy

    def forward(self, a: Tensor, b: Tensor, labels: Tensor) -> Tensor:
        """Return half the mean loss of the pairs."""
        similar = labels.reshape(-1).abs() >= 1  # (N,)
        return contrastive_loss(a.flatten(1), b.flatten(1), similar, margin=self.margin, legacy=self.legacy)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` or `.pt` file, by name. No code in the file is run."""
    if path.suffix != ".safetensors":
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    content = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(content[:8], "little")  # the data follow the length of the header and the header
    header = json.loads(content[8:begin])
    header.pop("__metadata__", None)
    dtypes = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    tensors = {}
    for name, entry in header.items():
        shape, count = entry["shape"], math.prod(entry["shape"])
        dtype = dtypes[entry["dtype"]]
        start = begin + entry["data_offsets"][0]
        flat = torch.frombuffer(content, dtype=dtype, count=count, offset=start) if count else torch.empty(0)
        tensors[name] = flat.reshape(shape)
    return tensors


def main() -> None:
    """Run the net on a random batch, with its weights if they exist."""
    weights = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".safetensors")
    net = MnistSiamese().eval()
    if len(sys.argv) > 1 or weights.exists():
        net.load_state_dict(read_weights(weights))
    with torch.no_grad():
        output = net(pair_data=torch.rand(64, 2, 28, 28), sim=torch.rand(64))
    print("loss", tuple(output.shape))


if __name__ == "__main__":
    main()
