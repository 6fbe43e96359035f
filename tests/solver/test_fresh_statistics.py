"""The warning about a test whose BatchNorm layers have no statistics yet."""

import logging
from pathlib import Path

import numpy as np
import pytest

from siamese_proto.solver import Solver

NET = """
layer { name: "in" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 4 dim: 3 }
  shape { dim: 4 dim: 2 } data_filler { type: "gaussian" std: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "a" inner_product_param { num_output: 5
  weight_filler { type: "xavier" } } }
layer { name: "bn1" type: "BatchNorm" bottom: "a" top: "b" %s }
layer { name: "out" type: "InnerProduct" bottom: "b" top: "c" inner_product_param { num_output: 2
  weight_filler { type: "xavier" } } }
layer { name: "bn2" type: "BatchNorm" bottom: "c" top: "d" %s }
layer { name: "loss" type: "EuclideanLoss" bottom: "d" bottom: "y" top: "loss" }
"""
STORED = ("", "batch_norm_param { use_global_stats: false }")


@pytest.mark.parametrize(
    ("settings", "layers"), [(("", ""), "'bn1' and 1 more"), (STORED, "'bn1'"), (STORED[1:] * 2, "")]
)
def test_a_test_before_any_training_is_explained_once(
    settings: tuple[str, str], layers: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "net.prototxt").write_text(NET % settings)
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 4 test_iter: 3 test_interval: 2 random_seed: 1'
        " snapshot_after_train: false"
    )
    with caplog.at_level(logging.WARNING):
        solver = Solver(tmp_path / "solver.prototxt")
        losses: list[float] = []
        solver.test_callbacks.append(lambda _, scores: losses.append(float(scores[0]["loss"])))
        solver.solve()
    assert len(losses) == 3
    messages = [record.getMessage() for record in caplog.records if "statistics" in record.getMessage()]
    assert messages == (
        [
            f"layer {layers}: BatchNorm has no statistics yet and divides by sqrt(eps), so the losses of this test are "
            "huge and mean nothing; test after some training (test_initialization: false), or give weights"
        ]
        if layers
        else []
    )
    if layers == "'bn1' and 1 more":
        assert losses[0] > 1e8 > 1e5 > losses[1]
        assert np.isfinite(losses).all()
