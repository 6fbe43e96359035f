"""A run killed at any moment leaves complete files, and can be resumed with the same result."""

import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
from killed_run import THREADS, noted_losses, train

from siamese_proto.solver import Solver
from siamese_proto.weights import read_state, read_weights

ITERATIONS = 150
KILLS = 5 if os.environ.get("CI") else 20


def check_files(history: int) -> None:
    """Every file with a final name is complete, and every state finds its weights."""
    for path in Path().glob("snap_iter_*"):
        if ".solverstate" in path.name:
            state = read_state(path)
            assert len(state.history) == history
            assert Path(state.learned_net).exists()
        else:
            counts = {layer.name: len(layer.blobs) for layer in read_weights(path).layers if layer.blobs}
            assert counts.keys() >= {"hidden", "feat"}


def start() -> ForkServerProcess:
    context = multiprocessing.get_context("forkserver")  # torch is imported once, not for every run
    context.set_forkserver_preload(["siamese_proto.solver.solver"])
    process = context.Process(target=train, args=(os.getcwd(),))
    process.start()
    return process


def progress() -> int:
    return Path("losses.txt").stat().st_size if Path("losses.txt").exists() else 0


@pytest.fixture
def as_many_threads() -> Iterator[None]:
    """Use the threads of the killed runs: only then do sums have the same bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("as_many_threads")
@pytest.mark.parametrize(
    "fields",
    [{"snapshot": 1}, {"snapshot": 7, "type": '"Adam"', "snapshot_format": "HDF5"}],
    ids=["a snapshot every iteration", "Adam, HDF5"],
)
def test_a_run_killed_repeatedly_equals_an_uninterrupted_run(write_run, fields: dict[str, object]) -> None:
    common = {"max_iter": ITERATIONS, "random_seed": 7, "display": 0, "test_interval": 50}
    write_run(**common, **fields)
    moments = random.Random(5)
    killed = 0
    for _ in range(KILLS):
        before = progress()
        process = start()
        while process.is_alive() and progress() == before:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.03))
        process.kill()
        process.join()
        killed += process.exitcode != 0
        check_files(4 if "type" not in fields else 8)
    assert killed == KILLS, "a run ended before it was killed"
    process = start()
    process.join()
    assert process.exitcode == 0
    check_files(4 if "type" not in fields else 8)
    assert not list(Path().glob(".*.partial"))

    whole = Solver(write_run(**common, **{**fields, "snapshot": 0, "snapshot_after_train": "false"}))
    whole.solve()
    whole.close()
    assert noted_losses(Path()) == {iteration: {loss.hex()} for iteration, loss in enumerate(whole.losses)}
    resumed = Solver("solver.prototxt", snapshot="auto")
    assert resumed.iteration == ITERATIONS
    for one, two in zip(resumed.net.tensors.values(), whole.net.tensors.values(), strict=True):
        assert torch.equal(one, two)
    for one, two in zip(resumed.rule.export_history(), whole.rule.export_history(), strict=True):
        assert torch.equal(one, two)
    resumed.close()
