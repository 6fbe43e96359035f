"""Several processes train one net like one process with a larger batch."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_twin import NET, WriteRun
from torch import Tensor

from siamese_proto.errors import NetError
from siamese_proto.layers.base import RunState
from siamese_proto.layers.functional.draws import uniform
from siamese_proto.solver import Solver
from siamese_proto.solver.batches import SharedFeeder
from siamese_proto.solver.given_batches import GivenBatches
from siamese_proto.solver.parallel import ProcessGroup
from siamese_proto.weights import read_weights

# an output that no loss depends on: its parameters have no gradient
ASIDE = """
layer { name: "aside" type: "InnerProduct" bottom: "data" top: "aside" inner_product_param { num_output: 2
  weight_filler { type: "xavier" } } }
layer { name: "quiet" type: "Silence" bottom: "aside" }
"""
LARGER = NET.replace("batch_size: 10", "batch_size: 20") + ASIDE
TRAIN = ("siamese_proto", "train", "--solver", "solver.prototxt", "--log", "train.log")
LATER = 4e9  # a time in the year 2096
# arguments after -- belong to the command: torchrun takes --log for its --log-dir
# as --gpu 0,1 does, without GPUs
TOGETHER = (
    "-c",
    "import sys; from siamese_proto.cli.gpus import run_processes as run; sys.exit(run(2, sys.argv[2:]))",
)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def run(*arguments: str, status: int | None = 0) -> str:
    """Run a program in the working directory; returns its stderr."""
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=300)
    assert status is None or done.returncode == status, done.stderr
    return done.stderr


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program that runs during the test, in its own session."""
    command = [sys.executable, *arguments]
    process = subprocess.Popen(
        command, env=environment(), stderr=subprocess.PIPE, text=True, start_new_session=os.name != "nt"
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def workers(parent: int) -> list[int]:
    """The child processes of a process, in the order of their ranks."""
    processes = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(stat[1]) == parent:
            processes.update({int(entry[5:]): int(folder.name) for entry in variables if entry.startswith(b"RANK=")})
    return [processes[rank] for rank in sorted(processes)]


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a program; returns its status, and its stderr if it failed."""
    stderr = process.communicate(timeout=200)[1]
    return process.returncode, stderr if process.returncode else ""


def wait_for(text: str, path: str = "train.log", seconds: float = 120) -> None:
    """Wait until a log contains a text."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if Path(path).exists() and re.search(text, Path(path).read_text()):
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} does not say {text!r} in time")


def losses(path: str = "train.log") -> dict[int, float]:
    """Every displayed loss by iteration; the last one if an iteration was repeated."""
    displayed = re.findall(r"Iteration (\d+) \(.*loss = (\S+)", Path(path).read_text())
    return {int(iteration): float(loss) for iteration, loss in displayed}


def weights(path: str) -> dict[str, np.ndarray]:
    """Every blob of a weights file."""
    return {
        f"{layer.name}/{index}": np.asarray(blob.data).reshape(-1)
        for layer in read_weights(path).layers
        for index, blob in enumerate(layer.blobs)
    }


def one_process(solver: Path, net: str, iterations: int) -> Solver:
    """The run of one process with this net."""
    Path("net.prototxt").write_text(net)
    run = Solver(solver)
    run.step(iterations)
    run.close()
    return run


RULES = {
    "SGD": {"momentum": 0.9, "clip_gradients": 0.2},
    "Adam": {"type": '"Adam"', "momentum2": 0.99, "base_lr": 0.003},
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES)
def test_two_processes_train_like_one_with_twice_the_batch(write_run: WriteRun, rule: str) -> None:
    """With shared twins, dropout, mirrors, two passes per update, and parameters without a gradient."""
    more = {"display": 1, "average_loss": 1, "random_seed": 5, "max_iter": 7, "snapshot": 0, **RULES[rule]}
    solver = write_run(NET + ASIDE, **more)
    run(*TORCHRUN, "-m", "--", *TRAIN)
    single = one_process(solver, LARGER, 7)
    together = losses()
    assert [together[iteration] for iteration in range(7)] == pytest.approx(single.losses, rel=2e-5)
    saved = weights("snap_iter_7.caffemodel")
    for name, tensors in single.net.params.items():
        for index, tensor in enumerate(tensors):
            own = tensor.detach().flatten().numpy()
            np.testing.assert_allclose(saved[f"{name}/{index}"], own, rtol=1e-4, atol=2e-6)
    log = Path("train.log").read_text()
    assert log.count("Testing net (#0)") == 2  # at the iterations 0 and 4, by one process
    assert log.count("Snapshotting to binary proto file") == 1


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_equals_an_uninterrupted_run(write_run: WriteRun) -> None:
    """torchrun restarts all processes, which resume from the last snapshot of the same run."""
    more = {"display": 1, "average_loss": 1, "random_seed": 5, "max_iter": 20, "snapshot": 4, "test_interval": 0}
    single = one_process(write_run(NET, **more, test_iter=None), LARGER, 20)
    for path in Path().glob("snap_iter_*"):
        if "_iter_20." in path.name:
            os.utime(path, (LATER, LATER))  # written before the clock was set back
            os.rename(path, path.name.replace("_20", "_40"))  # of another run
        else:
            path.unlink()
    Path("net.prototxt").write_text(NET + ASIDE)
    # one worker waits in iteration 9 to be killed
    Path("slow.py").write_text(
        """
import os, time
import siamese_proto.solver.solver as loop
step = loop.Solver._accumulate_gradients
def slow(self):
    if (self.iteration, os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == (9, "1", "0"):
        time.sleep(60)
    return step(self)
loop.Solver._accumulate_gradients = slow
"""
    )
    with running(*TORCHRUN, "--max-restarts", "1", "-m", "--", *TRAIN, "--layers", "slow.py") as process:
        wait_for("Iteration 8 ")
        os.kill(workers(process.pid)[1], signal.SIGKILL)
        status, stderr = ended(process)
        assert status == 0, stderr
    log = Path("train.log").read_text()
    assert "Resuming from snap_iter_8.solverstate" in log
    together = losses()
    assert [together[iteration] for iteration in range(20)] == pytest.approx(single.losses, rel=2e-5)
    assert not list(Path().glob(".snap*"))


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all(write_run: WriteRun) -> None:
    write_run(NET, max_iter=1_000_000, display=1, snapshot=0, test_interval=0, test_iter=None)
    with running(*TOGETHER, *TRAIN) as process:
        wait_for("Iteration 3 ")
        os.kill(workers(process.pid)[1], signal.SIGINT)
        assert process.wait(timeout=100) == 130
        stderr = process.stderr.read()
    stopped = re.search(r"stopped at iteration (\d+); continue with --snapshot (\S+)", stderr)
    assert Path(stopped[2]).exists()
    assert stderr.count("stopped at iteration") == 1
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_an_error_in_one_process_ends_all(write_run: WriteRun) -> None:
    write_run(NET, max_iter=1_000_000, display=1, snapshot=0, test_interval=0, test_iter=None)
    Path("fail.py").write_text(
        """
import os
import siamese_proto as sp
from siamese_proto.layers.loss import ContrastiveLoss
class Failing(ContrastiveLoss):
    def forward(self, bottoms, params, run):
        if run.iteration == 3 and os.environ["RANK"] == "1":
            raise sp.NetError("no more of this")
        return super().forward(bottoms, params, run)
sp.layer("ContrastiveLoss", replace=True)(Failing)
"""
    )
    stderr = run(*TOGETHER, *TRAIN, "--layers", "fail.py", status=1)
    assert "no more of this" in stderr
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_invalid_lists_of_gpus_are_refused(write_run: WriteRun) -> None:
    write_run(NET)
    assert "names a GPU twice" in run("-m", *TRAIN, "--gpu", "1,1", status=2)
    assert "neither a list of GPU numbers nor 'all'" in run("-m", *TRAIN, "--gpu", "0,x", status=2)


TORCHRUN_AS_DOCUMENTED = ("-P", *TORCHRUN, "--no-python", "--", "siamese-proto", *TRAIN[1:])


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [("-P", *TOGETHER, *TRAIN), TORCHRUN_AS_DOCUMENTED, ("-m", *TRAIN)],
    ids=["as --gpu 0,1 starts them", "torchrun as documented", "python -m siamese_proto"],
)
def test_modules_in_the_working_folder_are_not_run(write_run: WriteRun, arguments: tuple[str, ...]) -> None:
    write_run(NET, max_iter=1, snapshot=0, test_interval=0, test_iter=None)
    for name in ("numpy", "torch", "click", "h5py", "rich", "lmdb", "plyvel", "json", "socket", "siamese_proto_user"):
        Path(f"{name}.py").write_text(f"open('{name} was run', 'w')\n")
    run(*arguments)
    assert not list(Path().glob("* was run"))
    assert Path("snap_iter_1.caffemodel").exists()


# Parts of it, in one process


def share(rank: int, ranks: int, solver: Path) -> Solver:
    """A solver whose net reads its share of the data, without other processes."""
    part = Solver(solver)
    part.net.run_state.rank, part.net.run_state.ranks = rank, ranks
    return part


@pytest.mark.parametrize("position", [0, 1, 5])
def test_processes_divide_the_records_of_one(write_run: WriteRun, position: int) -> None:
    """From any position of a run that had another number of processes."""
    solver = write_run(NET, random_seed=5)
    whole = share(0, 1, solver)
    whole.batches.go_to({"pairs": position})
    expected = [whole.batches.next_batch() for _ in range(6)]
    for rank in range(3):
        part = share(rank, 3, solver)
        part.batches.go_to({"pairs": position})
        for turn in range(2):
            batch = part.batches.next_batch()
            for top in ("pair", "sim"):
                assert torch.equal(batch[top], expected[3 * turn + rank][top])
        assert part.batches.positions() == {"pairs": position + 6}
        part.close()
    whole.close()


PAIRS = """
name: "pairs"
layer { name: "pairs" type: "PairData" top: "a" top: "b" top: "sim" transform_param { crop_size: 5 mirror: true }
  pair_data_param { source: "images" kind: FOLDER batch_size: %d } }
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "ip" param { name: "w" } param { name: "c" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "ip_b" type: "InnerProduct" bottom: "b" top: "ip_b" param { name: "w" } param { name: "c" }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "ContrastiveLoss" bottom: "ip" bottom: "ip_b" bottom: "sim" top: "loss" }
"""


def test_processes_divide_the_pairs_that_one_with_larger_batches_draws(write_run: WriteRun) -> None:
    draw = np.random.default_rng(3)
    for person in range(4):
        folder = Path("images", f"person{person}")
        folder.mkdir(parents=True)
        for number in range(3):
            Image.fromarray(draw.integers(0, 256, (7, 6), np.uint8)).save(folder / f"{number}.png")
    more = {"random_seed": 5, "test_interval": 0, "test_iter": None}
    whole = share(0, 1, write_run(PAIRS % 6, **more))
    parts = [share(rank, 2, write_run(PAIRS % 3, **more)) for rank in range(2)]
    for _ in range(4):
        batch = whole.batches.next_batch()
        own = [part.batches.next_batch() for part in parts]
        for top in ("a", "b", "sim"):
            assert torch.equal(torch.cat([one[top] for one in own]), batch[top])
    for solver in (whole, *parts):
        solver.close()


def test_a_feeder_without_a_step_is_shared_too() -> None:
    class Counting:
        batches = 0

        def next_batch(self) -> list[torch.Tensor]:
            self.batches += 1
            return [torch.tensor(self.batches - 1)]

        def skip(self, batches: int) -> None:
            self.batches = batches

        def close(self) -> None:
            pass

    feeder = SharedFeeder(Counting(), 2, 3)
    assert [int(feeder.next_batch()[0]) for _ in range(3)] == [2, 5, 8]
    assert feeder.batches == 9
    feeder.skip(4)
    assert int(feeder.next_batch()[0]) == 6


def test_given_batches_are_shared() -> None:
    batches = [np.full((2, 1), number, np.float32) for number in range(7)]
    source = GivenBatches("in", ["x"], batches)
    source.rank, source.ranks = 1, 2
    assert [source.next_batch()["x"][0, 0] for _ in range(4)] == [1, 3, 5, 0]  # seven, and then the first again
    assert source.batches == 8


def test_a_batch_that_the_caller_reuses_is_copied() -> None:
    def filled() -> Iterator[dict[str, Tensor]]:
        batch = {"x": torch.zeros(2, 1)}
        for number in range(8):
            batch["x"] = torch.full((2, 1), float(number))
            yield batch

    source = GivenBatches("in", ["x"], filled())
    source.rank, source.ranks = 0, 2
    assert [float(source.next_batch()["x"][0, 0]) for _ in range(4)] == [0, 2, 4, 6]


def test_the_masks_of_all_processes_are_those_of_one() -> None:
    x = torch.zeros(4, 3)
    whole = uniform(x, (12, 3), RunState(7, 2, 1), "drop")
    parts = [uniform(x, (4, 3), RunState(7, 2, 1, rank, 3), "drop") for rank in range(3)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(uniform(x, (12, 3), RunState(7, 2, 1), "drop"), whole)


def test_a_group_of_one_process_changes_nothing() -> None:
    group = ProcessGroup()
    loss = torch.tensor(3.0)
    param = torch.nn.Parameter(torch.ones(2))
    assert group.all_reduce_gradients([param], loss) is loss
    assert param.grad is None
    assert (group.rank, group.size, group.is_first) == (0, 1, True)
    assert group.all_reduce_requests({"stop"}) == {"stop"}
    assert group.broadcast_object("x") == "x"


def test_a_file_that_every_process_would_write_is_refused(write_run: WriteRun, monkeypatch: pytest.MonkeyPatch) -> None:
    output = """layer { name: "file" type: "HDF5Output" bottom: "feat" bottom: "sim" include { phase: TRAIN }
                hdf5_output_param { file_name: "out.h5" } }"""
    solver = write_run(NET + output)

    class Two(ProcessGroup):
        size = 2

    monkeypatch.setattr("siamese_proto.solver.setup.current_group", Two)
    with pytest.raises(NetError, match="each of 2 processes would write its file"):
        Solver(solver)
