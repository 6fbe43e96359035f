"""Measure the peak memory of a training step: ours with joined and with separate towers, and hand-written.

    python benchmarks/memory.py [--batch 64] [--steps 30] [--rounds 3] [--threads 1]

Each variant runs in a separate process. The result is the peak of resident memory (VmHWM of Linux, reset before the
first step) minus the resident memory before the first step, which includes parameters and batch. The minimum of all
rounds is printed. The C library keeps freed memory in all processes, as in `siamese-proto train`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

OURS = {"siamese_proto, joined towers": True, "siamese_proto, separate towers": False}


def measure(name: str, batch: int, steps: int, threads: int) -> float:
    """Return the MiB that the steps need in this process."""
    import torch
    from by_hand import FORMS
    from cases import cases

    from siamese_proto.cli.train import keep_freed_memory

    torch.set_num_threads(threads)
    keep_freed_memory()
    case = replace(cases()[0], shape=(batch, 2, 28, 28))
    work, net = case.here(fuse=OURS.get(name, True))
    if name not in OURS:
        work = case.by_hand(next(form for form in FORMS if str(form) == name), net)
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak
    before = _kibibytes("VmRSS")
    work(steps)
    return (_kibibytes("VmHWM") - before) / 1024


def _kibibytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise SystemExit(f"/proc/self/status: field {field} is missing; this benchmark needs Linux")


def main() -> None:
    """Measure each variant in separate processes, and print the results."""
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
    sizes = {name: min(measure_in_process(name, arguments) for _ in range(arguments.rounds)) for name in names}
    first = sizes[names[0]]
    for name, size in sizes.items():
        print(f"  {name:42s} {size:7.1f} MiB  {size / first:.3f} of the first")


def measure_in_process(name: str, arguments: argparse.Namespace) -> float:
    """Measure one variant in a new process."""
    settings = (f"--{field}={getattr(arguments, field)}" for field in ("batch", "steps", "threads"))
    process = subprocess.run(
        [sys.executable, __file__, "--one", name, *settings], check=True, capture_output=True, text=True
    )
    return float(process.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
