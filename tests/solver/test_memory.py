"""Memory that a step frees is used by the next one."""

import platform
import subprocess
import sys

import paths
import pytest

pytestmark = pytest.mark.slow

FAULTS = """
import resource, torch
from siamese_proto.cli.train import keep_freed_memory
assert keep_freed_memory()
def step():
    blocks = [torch.zeros(2**21) for _ in range(6)]  # 8 MB each
for _ in range(8):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_steps_allocate_their_pages_once() -> None:
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 2000  # a step writes to 12,000 pages


GROWTH = """
import logging, sys, torch, siamese_proto as sp
logging.disable()
torch.set_num_threads(1)
settings = f'net: "{sys.argv[1]}" base_lr: 0.01 lr_policy: "fixed" max_iter: 999 snapshot_after_train: false'
batch = {"pair_data": torch.rand(64, 2, 28, 28), "sim": torch.zeros(64)}
solver = sp.Solver(settings, data={"pair_data": [batch]}, fuse=False)
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024
solver.step(5)
before = resident()
solver.step(40)
print(resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_a_long_run_uses_no_more_memory_than_a_short_one() -> None:
    # Storing one tensor per loss once made the run grow by 100 MiB.
    net = paths.GOLDEN / "flagship" / "net.prototxt"
    run = subprocess.run([sys.executable, "-c", GROWTH, str(net)], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 40  # MiB
