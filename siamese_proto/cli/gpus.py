"""One process per GPU, as `--gpu 0,1` and `--gpu all` start them."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import click

from siamese_proto.cli.caffe_flags import check_gpus, gpu_ids
from siamese_proto.solver.settings import Settings

_GRACE = 30.0  # seconds in which the other processes must end when one has failed
_POLL_INTERVAL = 0.05  # seconds
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows, SIGTERM ends a process immediately


def chosen_gpus(gpu: str | None) -> list[int]:
    """Return the GPUs that `--gpu` names, [] without the option. Raises NetError if one does not exist."""
    if gpu is None:
        return []
    ids = gpu_ids(gpu)
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count)),
        **os.environ,
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    command = [sys.executable, "-P", "-m", "siamese_proto", *arguments]  # -P: import nothing from the working folder
    processes: list[subprocess.Popen[bytes]] = []

    def forward(number: int, frame: object) -> None:
        _signal_running(processes, number)

    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = {number: signal.signal(number, forward) for number in numbers}
    try:
        for rank in map(str, range(count)):
            environment |= {"RANK": rank, "LOCAL_RANK": rank}
            processes.append(subprocess.Popen(command, env=environment))
        return _wait(processes)
    finally:
        _signal_running(processes, _KILL)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _signal_running(processes: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all processes; returns the exit status of the first that fails, or 0."""
    status = 0
    deadline = float("inf")
    while None in (codes := [process.poll() for process in processes]):
        status = status or next(filter(None, codes), 0)
        if status and deadline == float("inf"):
            deadline = time.monotonic() + _GRACE
            _signal_running(processes, signal.SIGTERM)
        if time.monotonic() > deadline:
            _signal_running(processes, _KILL)
        time.sleep(_POLL_INTERVAL)
    status = status or next(filter(None, codes), 0)
    return 128 - status if status < 0 else status
