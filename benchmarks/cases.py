"""The nets whose training step is measured, as prototxt and as hand-written modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from by_hand import ByHand, Form, LeNet, Loss, Small, contrastive, cross_entropy
from measuring import Work
from torch import Tensor, nn

import siamese_proto as sp

NETWORK = Path(__file__).resolve().parent.parent / "prototxt" / "mnist_siamese"
SOLVER = """
base_lr: 0.01 lr_policy: "inv" gamma: 0.0001 power: 0.75 momentum: 0.9 max_iter: 1000000
display: 0 snapshot: 0 snapshot_after_train: false solver_mode: CPU random_seed: 1
"""


@dataclass(frozen=True)
class Case:
    """One net at one batch size, for training or, if `trains` is false, for computing features."""

    name: str
    net: str  # the fields of a solver, or of a net where nothing is trained
    source: str  # the layer that the batches are for
    tops: tuple[str, ...]  # of that layer: the images of all towers as channels, the labels
    tower: Callable[[], nn.Module]
    towers: int
    loss: Loss
    shape: tuple[int, ...]
    classes: int = 2
    trains: bool = True

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return images and labels, the same in every call."""
        draw = torch.Generator().manual_seed(3)
        labels = torch.randint(self.classes, self.shape[:1], generator=draw)
        return torch.rand(self.shape, generator=draw), labels.float()

    def here(self, *, fuse: bool = True, compiled: bool = False) -> tuple[Work, sp.Net]:
        """Return the work done by siamese_proto, and its net."""
        batch = dict(zip(self.tops, self.batch(), strict=False))
        if self.trains:
            solver = sp.Solver(self.net + SOLVER, data={self.source: [batch]}, fuse=fuse, compiled=compiled)
            return solver.step, solver.net
        net = sp.Net(self.net, "TEST", shapes={name: tuple(blob.shape) for name, blob in batch.items()}, fuse=fuse)

        def infer(steps: int) -> None:
            with torch.no_grad():
                for _ in range(steps):
                    net(**batch)

        return infer, net

    def by_hand(self, form: Form, net: sp.Net) -> Work:
        """Return the same hand-written work, with the same weights."""
        tower = self.tower()
        params: Mapping[str, list[Tensor]] = net.params
        with torch.no_grad():
            for name, module in tower.named_children():
                for mine, theirs in zip(module.parameters(), params[name], strict=True):
                    mine.copy_(theirs)
        hand_written = ByHand(tower, self.towers, self.loss, form, *self.batch())
        return hand_written.train if self.trains else hand_written.infer


def cases() -> list[Case]:
    """Return the LeNet twin at batch 64 first, then small, wide, single and deploy nets."""
    twin = f'net: "{NETWORK / "train_test.prototxt"}"'
    tops = ("pair_data", "sim")
    nine = f"net_param {{ {towers(9, LENET, 'x0', 16, (9, 28, 28))} {SCORES} }}"
    one = f"net_param {{ {towers(1, LENET, 'x0', 64, (1, 28, 28))} {SCORES} }}"
    small = f"net_param {{ {towers(2, SMALL, 'x0', 16, (12,))} {PAIR} }}"
    deploy = str(NETWORK / "deploy.prototxt")
    features = str(NETWORK / "train_test.prototxt")
    return [
        *(
            Case(f"LeNet twin, batch {n}", twin, "pair_data", tops, LeNet, 2, contrastive, (n, 2, 28, 28))
            for n in (64, 8, 1)
        ),
        Case("nine LeNet towers, batch 16", nine, "in", ("x", "y"), LeNet, 9, cross_entropy, (16, 9, 28, 28)),
        Case("LeNet without a twin, batch 64", one, "in", ("x", "y"), LeNet, 1, cross_entropy, (64, 1, 28, 28)),
        Case("small twin, 6-8-2, batch 16", small, "in", ("x", "y"), Small, 2, contrastive, (16, 12)),
        Case(
            "LeNet twin, features, batch 64", features, "", tops[:1], LeNet, 2, contrastive, (64, 2, 28, 28),
            trains=False,
        ),
        *(
            Case(
                f"LeNet tower of deploy, batch {n}", deploy, "", ("data",), LeNet, 1, contrastive, (n, 1, 28, 28),
                trains=False,
            )
            for n in (64, 1)
        ),
    ]  # fmt: skip  # one line a case where it fits


def convolution(name: str, outputs: int) -> tuple[str, str]:
    """Return a convolution as name and fields, followed by a pooling layer."""
    settings = f'num_output: {outputs} kernel_size: 5 weight_filler {{ type: "xavier" }}'
    return name, f'type: "Convolution" convolution_param {{ {settings} }}'


def product(name: str, outputs: int) -> tuple[str, str]:
    """Return a fully connected layer as name and fields."""
    return (
        name,
        f'type: "InnerProduct" inner_product_param {{ num_output: {outputs} weight_filler {{ type: "xavier" }} }}',
    )


POOL = 'type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }'
LENET = (
    convolution("conv1", 20), ("pool1", POOL), convolution("conv2", 50), ("pool2", POOL),
    product("ip1", 500), ("relu1", 'type: "ReLU"'), product("ip2", 10), product("feat", 2),
)  # fmt: skip  # as the tower reads
SMALL = (product("ip1", 8), ("relu1", 'type: "ReLU"'), product("ip2", 2))
PAIR = 'layer { name: "loss" type: "ContrastiveLoss" bottom: "f0" bottom: "f1" bottom: "y" top: "loss" }'
SCORES = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "best" bottom: "y" top: "loss" }'


def towers(count: int, layers: tuple[tuple[str, str], ...], data: str, rows: int, shape: tuple[int, ...]) -> str:
    """Input, Slice and towers that share all their parameters, from x0, x1 .. to f0, f1 .. and their maximum."""
    dims = " ".join(f"dim: {size}" for size in (rows, *shape))
    sizes = f"shape {{ {dims} }} shape {{ dim: {rows} }}"
    text = f'layer {{ name: "in" type: "Input" top: "x" top: "y" input_param {{ {sizes} }} }}\n'
    parts = " ".join(f'top: "x{tower}"' for tower in range(count))
    text += f'layer {{ name: "slice" type: "Slice" bottom: "x" {parts} slice_param {{ axis: 1 }} }}\n'
    for tower in range(count):
        bottom = f"x{tower}"
        for index, (name, fields) in enumerate(layers):
            top = f"f{tower}" if index == len(layers) - 1 else f"{name}_{tower}"
            own = name if tower == 0 else f"{name}_{tower}"
            shared = (
                ""
                if "ReLU" in fields or "Pooling" in fields
                else (f'param {{ name: "{name}_w" lr_mult: 1 }} param {{ name: "{name}_b" lr_mult: 2 }}')
            )
            if "ReLU" in fields:
                top = bottom
            text += f'layer {{ name: "{own}" {fields} bottom: "{bottom}" top: "{top}" {shared} }}\n'
            bottom = top
    features = " ".join(f'bottom: "f{tower}"' for tower in range(count))
    if count == 1:
        return text.replace('"f0"', '"best"')
    if count > 2:
        text += f'layer {{ name: "best" type: "Eltwise" {features} top: "best" eltwise_param {{ operation: MAX }} }}\n'
    return text
