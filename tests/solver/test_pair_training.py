"""Training on pairs and triplets that are drawn during the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from solver_runs import assert_same, tensors

from siamese_proto.solver import Solver

pytestmark = pytest.mark.slow

TOWER = """
layer { name: "ip%(p)s" type: "InnerProduct" bottom: "%(bottom)s" top: "ip%(p)s" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 16 weight_filler { type: "xavier" } } }
"""
PAIRS = """
layer { name: "pairs" type: "PairData" top: "x" top: "x_p" top: "same"
  pair_data_param { source: "digits" batch_size: 16 %s }
  transform_param { scale: 0.00390625 crop_size: 24 mirror: true } }
"""
LOSS = 'layer { name: "loss" type: "ContrastiveLoss" bottom: "ip" bottom: "ip_p" bottom: "same" top: "loss" }'
TRIPLETS = """
layer { name: "triplets" type: "PairData" top: "x" top: "x_p" top: "x_n"
  pair_data_param { source: "digits" tuple: TRIPLET batch_size: 16 } transform_param { scale: 0.00390625 } }
"""
TRIPLET_LOSS = 'layer { name: "loss" type: "TripletLoss" bottom: "ip" bottom: "ip_p" bottom: "ip_n" top: "loss" }'
TWO_LAYERS = """
layer { name: "left" type: "PairData" top: "x" top: "unused" top: "same"
  pair_data_param { source: "digits" batch_size: 16 } transform_param { scale: 0.00390625 crop_size: 24 mirror: true } }
layer { name: "right" type: "PairData" top: "unused_p" top: "x_p" top: "same_p"
  pair_data_param { source: "digits" batch_size: 16 } transform_param { scale: 0.00390625 crop_size: 24 mirror: true } }
layer { name: "silence" type: "Silence" bottom: "unused" bottom: "unused_p" bottom: "same_p" }
"""


def tower(suffix: str) -> str:
    return TOWER % {"p": suffix, "bottom": f"x{suffix}"}


NETS = {
    "pairs": PAIRS % "" + tower("") + tower("_p") + LOSS,
    "a set of pairs": PAIRS % "tuples: 50 shuffle: true" + tower("") + tower("_p") + LOSS,
    "balanced": PAIRS % "tuple: BALANCED" + tower("") + tower("_p") + LOSS,
    "triplets": TRIPLETS + tower("") + tower("_p") + tower("_n") + TRIPLET_LOSS,
    "two layers": TWO_LAYERS + tower("") + tower("_p") + LOSS,
}


def solver(folder: Path, net: str, **how: object) -> Solver:
    (folder / "net.prototxt").write_text(NETS[net])
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.02 lr_policy: "fixed" momentum: 0.9 max_iter: 100 snapshot: 6'
        ' snapshot_prefix: "s" solver_mode: CPU random_seed: 3 snapshot_after_train: false'
    )
    return Solver(folder / "solver.prototxt", **how)


@pytest.mark.parametrize("net", NETS)
def test_a_resumed_run_draws_the_same_tuples_and_crops(in_tmp: Path, net: str) -> None:
    whole = solver(in_tmp, net)
    whole.step(15)
    resumed = solver(in_tmp, net, snapshot="s_iter_6.solverstate")
    resumed.step(9)
    assert_same(tensors(resumed), tensors(whole))
    assert list(resumed.losses)[-9:] == list(whole.losses)[-9:]
    whole.close()
    resumed.close()


def test_two_layers_of_one_seed_stay_in_step(in_tmp: Path) -> None:
    apart, together = solver(in_tmp, "two layers"), solver(in_tmp, "pairs")
    apart.step(10)
    together.step(10)
    assert apart.losses == together.losses
    apart.close()
    together.close()


def test_a_net_learns_from_drawn_pairs(in_tmp: Path) -> None:
    run = solver(in_tmp, "pairs")
    run.step(150)
    assert sum(run.losses[-20:]) / 20 < 0.75 * sum(run.losses[:10]) / 10
    run.close()
