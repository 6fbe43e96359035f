"""The most memory that a training step takes: ours, towers run as one and one by one, and by hand.

    python benchmarks/memory.py [--batch 64] [--steps 30] [--rounds 3] [--threads 1]

Each runs in a process of its own. What counts is the most memory ever resident (VmHWM of Linux, reset before the first
step) above what was there before the first step, parameters and batch included; the least of the rounds is printed.
The C library keeps freed memory in all of them, as in every training run of ours.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

OURS = {"siamese_proto, towers as one": True, "siamese_proto, towers one by one": False}


def measure(name: str, batch: int, steps: int, threads: int) -> float:
    """MiB that the steps take in this process."""
    import torch
    from by_hand import FORMS
    from cases import cases

    torch.set_num_threads(threads)
    case = replace(cases()[0], shape=(batch, 2, 28, 28))
    work, net = case.here(fuse=OURS.get(name, True))
    if name not in OURS:
        work = case.by_hand(next(form for form in FORMS if str(form) == name), net)
    Path("/proc/self/clear_refs").write_text("5")  # begin to count anew
    before = _kibibytes("VmRSS")
    work(steps)
    return (_kibibytes("VmHWM") - before) / 1024


def _kibibytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise SystemExit(f"this system does not tell {field}")


def main() -> None:
    """Measure each in processes of their own, and print."""
    from by_hand import FORMS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(measure(arguments.one, arguments.batch, arguments.steps, arguments.threads))
        return
    names = [str(form) for form in FORMS if form.optimizer == "foreach"] + list(OURS)
    found = {name: min(apart(name, arguments) for _ in range(arguments.rounds)) for name in names}
    first = found[names[0]]
    for name, size in found.items():
        print(f"  {name:42s} {size:7.1f} MiB  {size / first:.3f} of the first")


def apart(name: str, arguments: argparse.Namespace) -> float:
    """What one of them takes, measured in a process of its own."""
    settings = (f"--{field}={getattr(arguments, field)}" for field in ("batch", "steps", "threads"))
    done = subprocess.run(
        [sys.executable, __file__, "--one", name, *settings], check=True, capture_output=True, text=True
    )
    return float(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
