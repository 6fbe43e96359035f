"""What a step frees is there for the next one."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from siamese_proto.solver.memory import keep_freed_memory
if "keep" in sys.argv:
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


def faults(*arguments: str) -> int:
    """Pages that eight steps take anew."""
    run = subprocess.run([sys.executable, "-c", FAULTS, *arguments], capture_output=True, text=True, check=True)
    return int(run.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such setting")
def test_steps_take_their_pages_once() -> None:
    assert 20 * faults("keep") < faults()
