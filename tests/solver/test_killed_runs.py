"""A run killed at any moment leaves whole files behind, and goes on to the same end."""

import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from siamese_proto.solver import Solver
from siamese_proto.weights import read_state, read_weights

ITERATIONS = 120
TRAIN = "from siamese_proto.cli.train import train; train()"


def newest_state() -> Path | None:
    states = Path().glob("snap_iter_*.solverstate")
    return max(states, key=lambda path: int(re.findall(r"\d+", path.name)[-1]), default=None)


def start(resume: Path | None) -> subprocess.Popen[bytes]:
    arguments = ["--solver", "solver.prototxt", *(["--snapshot", str(resume)] if resume else [])]
    return subprocess.Popen([sys.executable, "-c", TRAIN, *arguments], stderr=subprocess.DEVNULL)


def check_files() -> None:
    """Whatever bears a final name can be read to its end, and every state finds its weights."""
    for path in Path().glob("snap_iter_*"):
        if path.name.endswith(".solverstate"):
            state = read_state(path)
            assert len(state.history) == 4
            assert Path(state.learned_net).exists()
        else:
            counts = {layer.name: len(layer.blobs) for layer in read_weights(path).layers if layer.blobs}
            assert counts == {"hidden": 2, "feat": 2, "hidden_p": 2, "feat_p": 2}


def wait_for_a_new_state(process: subprocess.Popen[bytes], before: Path | None) -> None:
    while process.poll() is None and newest_state() == before:
        time.sleep(0.002)


def test_a_run_killed_again_and_again_ends_where_an_uninterrupted_one_does(write_run) -> None:
    fields = {"max_iter": ITERATIONS, "random_seed": 7, "display": 0, "test_interval": 50}
    # Snapshots after every iteration: most kills fall into the writing of one.
    write_run(**fields, snapshot=1)
    moments = random.Random(5)
    kills = 0
    for _ in range(5):
        before = newest_state()
        process = start(before)
        wait_for_a_new_state(process, before)
        time.sleep(moments.uniform(0, 0.12))
        process.kill()
        kills += process.wait() != 0
        check_files()
    assert kills >= 3, "too many runs ended before they were killed"
    assert start(newest_state()).wait() == 0
    check_files()

    uninterrupted = Solver(write_run(**fields, snapshot=0, snapshot_after_train="false"))
    uninterrupted.solve()
    uninterrupted.close()
    resumed = Solver("solver.prototxt", snapshot=f"snap_iter_{ITERATIONS}.solverstate")
    for one, two in zip(resumed.net.tensors.values(), uninterrupted.net.tensors.values(), strict=True):
        assert np.array_equal(one.detach().numpy(), two.detach().numpy())
    for one, two in zip(resumed.rule.export_history(), uninterrupted.rule.export_history(), strict=True):
        assert np.array_equal(one.numpy(), two.numpy())
    resumed.close()
