"""One training step of the LeNet twin: siamese_proto against the same net written by hand in PyTorch.

By hand: two passes through one tower module, a contrastive loss, torch.optim.SGD, batches that lie in memory. Here: the
Solver on the prototxt, reading its records from a LevelDB while it trains. Both run in turns in one process, from the
same weights; the ratio is by-hand time over ours, above 1 where we are faster.

    python benchmarks/train_step.py [--threads 1 2] [--rounds 15] [--steps 10]
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import siamese_proto as sp
from siamese_proto.data.digits import load_digits
from siamese_proto.data.pairs import draw_pairs, write_pairs

NETWORK = Path(__file__).resolve().parent.parent / "prototxt" / "mnist_siamese"
BATCH = 64
PAIRS = 6400
SOLVER = f"""
net: "{NETWORK / "train_test.prototxt"}"
base_lr: 0.01 lr_policy: "inv" gamma: 0.0001 power: 0.75 momentum: 0.9 max_iter: 100000
display: 0 snapshot: 0 snapshot_after_train: false solver_mode: CPU random_seed: 1
"""


class Tower(nn.Module):
    """LeNet as one writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.ip1 = nn.Linear(800, 500)
        self.ip2 = nn.Linear(500, 10)
        self.feat = nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 28, 28) -> (N, 2)."""
        x = functional.max_pool2d(self.conv1(x), 2)
        x = functional.max_pool2d(self.conv2(x), 2)
        x = functional.relu(self.ip1(x.flatten(1)))
        features: Tensor = self.feat(self.ip2(x))
        return features


class ByHand:
    """The training loop as one writes it."""

    def __init__(self, net: sp.Net, pairs: Tensor, labels: Tensor) -> None:
        self.tower = Tower()
        with torch.no_grad():
            for name, module in self.tower.named_children():
                for mine, theirs in zip(module.parameters(), net.params[name], strict=True):
                    mine.copy_(theirs)
        weights = [p for name, p in self.tower.named_parameters() if name.endswith("weight")]
        biases = [p for name, p in self.tower.named_parameters() if name.endswith("bias")]
        groups = [{"params": weights, "lr": 0.01}, {"params": biases, "lr": 0.02}]
        self.optimizer = torch.optim.SGD(groups, momentum=0.9)
        self.batches = list(zip(torch.split(pairs, BATCH), torch.split(labels, BATCH), strict=True))
        self.losses: list[float] = []
        self.iteration = 0

    def step(self, iterations: int) -> None:
        """Train for so many iterations."""
        for _ in range(iterations):
            rate = 0.01 * (1 + 0.0001 * self.iteration) ** -0.75
            for group, factor in zip(self.optimizer.param_groups, (1, 2), strict=True):
                group["lr"] = rate * factor
            pair, same = self.batches[self.iteration % len(self.batches)]
            first, second = self.tower(pair[:, :1]), self.tower(pair[:, 1:])
            distance = ((first - second).square().sum(1) + 1e-12).sqrt()  # (N,)
            loss = (same * distance**2 + (1 - same) * (1 - distance).clamp(min=0) ** 2).mean() / 2
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())
            self.iteration += 1


def seconds(step: Callable[[int], None], steps: int) -> float:
    """The time of one iteration, in seconds."""
    begin = time.perf_counter()
    step(steps)
    return (time.perf_counter() - begin) / steps


def compare(threads: int, rounds: int, steps: int) -> None:
    """Run both in turns and print what came out."""
    torch.set_num_threads(threads)
    (images, digits), _ = load_digits()
    drawn = draw_pairs(digits, PAIRS)
    write_pairs("digits_train_leveldb", "LEVELDB", images, drawn, overwrite=True)
    pairs = (
        torch.from_numpy(images)[torch.from_numpy(drawn.first)],
        torch.from_numpy(images)[torch.from_numpy(drawn.second)],
    )
    solver = sp.Solver(SOLVER)
    by_hand = ByHand(solver.net, torch.stack(pairs, 1) / 256, torch.from_numpy(drawn.same).float())
    solver.step(20)
    by_hand.step(20)
    drift = max(abs(a - b) for a, b in zip(solver.losses, by_hand.losses, strict=True))
    hand, here = [], []
    for _ in range(rounds):
        hand.append(seconds(by_hand.step, steps))
        here.append(seconds(solver.step, steps))
    solver.net.close()
    ratios = [a / b for a, b in zip(hand, here, strict=True)]
    print(
        f"{threads} thread(s), batch {BATCH}, {rounds} rounds of {steps} steps; "
        f"losses of 20 steps differ by at most {drift:.1e}"
    )
    for name, times in (("by hand, two passes", hand), ("siamese_proto", here)):
        print(f"  {name:20s} {1e3 * statistics.median(times):7.2f} ms a step (min {1e3 * min(times):.2f})")
    print(f"  ratio, by hand / here: median {statistics.median(ratios):.3f}, {min(ratios):.3f} to {max(ratios):.3f}")


def main() -> None:
    """Parse the arguments and compare for each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    logging.getLogger("siamese_proto").setLevel(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for threads in arguments.threads:
            compare(threads, arguments.rounds, arguments.steps)


if __name__ == "__main__":
    main()
