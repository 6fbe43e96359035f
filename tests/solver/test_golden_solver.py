"""Every update rule and policy against 40 iterations of real Caffe, from the start and from Caffe's own snapshots."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from siamese_proto.solver import Solver

GOLDEN = Path(__file__).parent.parent / "golden" / "solver"
CASES = sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir())
# The batches are handed in: what is held to Caffe here is the solver, not the layer that reads the file.
PAIRS = """layer { name: "pairs" type: "Input" top: "pair" top: "sim"
  input_param { shape { dim: 8 dim: 2 dim: 6 dim: 6 } shape { dim: 8 } } }"""


def batches(first: int = 0) -> Iterator[dict[str, Any]]:
    """The records of data.h5 in order, begun again at the end, as the layer HDF5Data delivers them."""
    with h5py.File(GOLDEN / "data.h5") as file:
        records = {name: file[name][:] for name in ("pair", "sim")}
    count = len(records["sim"])
    for batch in range(first, 1000):
        rows = [(8 * batch + row) % count for row in range(8)]
        yield {name: array[rows] for name, array in records.items()}


def make_solver(case: str, folder: Path, first_batch: int = 0, **how: Any) -> Solver:
    layers = (GOLDEN / "net.prototxt").read_text().splitlines()
    (folder / "net.prototxt").write_text("\n".join([layers[0], PAIRS, *layers[2:]]))
    (folder / "solver.prototxt").write_bytes((GOLDEN / case / "solver.prototxt").read_bytes())
    # feat_b has a gradient of exactly zero, which a sum over a fused batch does not keep
    return Solver(folder / "solver.prototxt", data={"pairs": batches(first_batch)}, fuse=False, **how)


def follow(solver: Solver, case: str) -> None:
    """Train to iteration 40 and compare every loss and the parameters of iterations 10, 20 and 40."""
    expected = np.load(GOLDEN / case / "trajectory.npz")
    while solver.iteration < 40:
        solver.step(1)
        assert solver.outputs["loss"].item() == pytest.approx(expected["loss"][solver.iteration - 1], abs=1e-6)
        for key in expected.files:
            iteration, layer, index = key.split("/") if "/" in key else ("", "", "")
            if iteration == f"iter{solver.iteration}":
                found = solver.net.params[layer][int(index)].detach().numpy()
                np.testing.assert_allclose(found, expected[key], rtol=0, atol=2e-6, err_msg=key)


def test_the_folder_holds_all_cases() -> None:
    assert len(CASES) == 13


@pytest.mark.parametrize("case", CASES)
def test_training_from_the_start_follows_caffe(case: str, tmp_path: Path) -> None:
    follow(make_solver(case, tmp_path, weights=GOLDEN / "init.caffemodel"), case)


@pytest.mark.parametrize(
    ("case", "file"),
    [(case, path.name) for case in CASES for path in sorted((GOLDEN / case).iterdir()) if ".solverstate" in path.name],
)
def test_training_resumed_from_a_snapshot_of_caffe_follows_caffe(case: str, file: str, tmp_path: Path) -> None:
    passes = 20 * (3 if case == "sgd_iter_size" else 1)
    follow(make_solver(case, tmp_path, first_batch=passes, snapshot=GOLDEN / case / file), case)


def test_the_recorded_loss_is_the_mean_of_the_accumulated_passes(tmp_path: Path) -> None:
    solver = make_solver("sgd_iter_size", tmp_path, weights=GOLDEN / "init.caffemodel")
    solver.step(1)
    once = make_solver("sgd_fixed", tmp_path, weights=GOLDEN / "init.caffemodel")
    passes = [once.net.loss(once.net(**batch)).item() for _, batch in zip(range(3), batches(), strict=False)]
    assert solver.losses == pytest.approx([sum(passes) / 3], rel=1e-6)
