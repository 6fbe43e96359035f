"""One process per GPU, as `--gpu 0,1` and `--gpu all` start them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import click

from siamese_proto.cli.caffe_flags import check_gpus, split
from siamese_proto.proto.values import whole_number
from siamese_proto.solver.settings import Settings

_GRACE = 30.0  # seconds in which the other processes must end when one has failed
_POLL_INTERVAL = 0.05  # seconds


def chosen_gpus(gpu: str | None) -> list[int]:
    """Return the GPUs that `--gpu` names, [] without the option. Raises NetError if one does not exist."""
    if gpu is None:
        return []
    if gpu == "all":
        import torch

        ids = list(range(torch.cuda.device_count())) or [0]
        check_gpus(ids)
        return ids
    parts = split(gpu)
    if not parts or not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"{gpu!r} is neither a list of GPU numbers nor 'all'", param_hint="--gpu")
    ids = [whole_number(part) for part in parts]
    if len(set(ids)) < len(ids):
        raise click.BadParameter(f"{gpu!r} names a GPU twice", param_hint="--gpu")
    check_gpus(ids)
    return ids


def with_own_gpu(settings: Settings, gpus: Sequence[int]) -> Settings:
    """Return the settings with the GPU of this process: one of `gpus`, or if torchrun started it, of the machine."""
    from siamese_proto.solver.parallel import is_distributed_launch, local_rank

    rank = local_rank() if is_distributed_launch() else 0
    if gpus:
        if rank >= len(gpus):
            raise click.BadParameter(f"there are more processes than the {len(gpus)} GPUs named", param_hint="--gpu")
        return replace(settings, use_gpu=True, asks_for_gpu=True, device_id=gpus[rank])
    return replace(settings, device_id=rank) if is_distributed_launch() else settings


def run_processes(count: int, arguments: Sequence[str]) -> int:
    """Run this command in `count` processes that train together, and forward signals to them.

    When one process fails, the others are terminated.

    Returns:
        The exit status of the first process that fails, or 0.
    """
    environment = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count)),
        **os.environ,
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    command = [sys.executable, "-P", "-m", "siamese_proto", *arguments]  # -P: import nothing from the working folder
    running: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: object) -> None:
        for process in running:
            if process.poll() is None:
                process.send_signal(number)

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), forward) for name in names}
    try:
        for rank in range(count):
            own = {**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            running.append(subprocess.Popen(command, env=own))
        return _status(running)
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


def _status(running: Sequence[subprocess.Popen[bytes]]) -> int:
    failed: int | None = None
    deadline = float("inf")
    while any(process.poll() is None for process in running):
        for process in running:
            if failed is None and process.returncode:
                failed, deadline = process.returncode, time.monotonic() + _GRACE
                for other in running:
                    if other.poll() is None:
                        other.terminate()
        if time.monotonic() > deadline:
            for process in running:
                process.kill()
        time.sleep(_POLL_INTERVAL)
    failed = failed or next((process.returncode for process in running if process.returncode), 0)
    return 128 - failed if failed < 0 else failed


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
