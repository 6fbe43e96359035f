"""Helpers for tests of solver runs: a net without a database, and the compared values."""

import math
from pathlib import Path

import numpy as np
import torch

from siamese_proto.solver import Solver

PLAIN = """
layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 4
  weight_filler { type: "xavier" } } }
layer { name: "tanh" type: "TanH" bottom: "ip" top: "ip" }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" }
"""
PLAIN_SOLVER = 'net: "plain.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 20 snapshot_prefix: "plain" '


def plain_batches(bad: int = -1) -> list[tuple[np.ndarray, np.ndarray]]:
    batches = [(np.ones((2, 3), np.float32), np.ones((2, 4), np.float32)) for _ in range(20)]
    if bad >= 0:
        batches[bad][0][1, 2] = math.nan
    return batches


def plain(tmp_path: Path, settings: str, **how: object) -> Solver:
    (tmp_path / "plain.prototxt").write_text(PLAIN)
    (tmp_path / "plain_solver.prototxt").write_text(PLAIN_SOLVER + settings)
    return Solver(tmp_path / "plain_solver.prototxt", **how)


def tensors(solver: Solver) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in solver.net.tensors.items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
