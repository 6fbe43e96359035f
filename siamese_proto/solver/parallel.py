"""Several processes that train one net, as `caffe train -gpu 0,1` does (parallel.cpp, solver_count).

Each process runs its own batches of `batch_size` records. Gradients and losses are averaged before every update, so all
processes always hold the same parameters, and N processes train like one process with N times the batch. Of every N
batches, the process of rank r takes batch number r, and it draws the rows of random masks that belong to its batch.

What a layer computes over its batch covers the batch of its process, as in Caffe: BatchNorm's statistics (snapshots
hold those of the first process), the pairs and triplets that TripletLoss mines, the normalizers of losses that ignore
labels, and the state of recurrent layers (snapshots hold that of the first process; the others start from zero). The
first process tests, logs and writes snapshots.
"""

import datetime
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from siamese_proto.errors import SolverError
from siamese_proto.graph.ir import Graph
from siamese_proto.layers.base import Layer
from siamese_proto.solver.run_lock import restarts

Value = TypeVar("Value")

# How long the others wait while the first process tests. A process that has died is noticed immediately.
_TIMEOUT = datetime.timedelta(hours=6)
_REQUESTS = ("stop", "snapshot")


class ProcessGroup:
    """The processes that train one net together; this class is a group of one process."""

    rank = 0
    size = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that tests, logs and writes files."""
        return self.rank == 0

    def broadcast_object(self, value: Value) -> Value:
        """Return the value of the first process."""
        return value

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Copy the tensors of the first process into those of every other process."""

    def all_reduce_gradients(self, params: Sequence[Tensor], loss: Tensor) -> Tensor:
        """Replace each `grad` by its mean over all processes; returns the mean of their losses, a scalar."""
        return loss

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """Return the mean of a tensor over all processes."""
        return value

    def all_reduce_requests(self, requests: set[str]) -> set[str]:
        """Return the requests (`stop`, `snapshot`) of any process."""
        return set(requests)

    def mean_outputs(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Average outputs that are one number over all processes; other outputs are those of this process."""
        scalars = {name: self.all_reduce_mean(value.detach()) for name, value in outputs.items() if value.numel() == 1}
        return {**outputs, **scalars}


class DistributedGroup(ProcessGroup):
    """The default process group of torch.distributed."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        # Requests and objects are exchanged on the CPU, so that no process waits for a GPU.
        self._cpu_group = dist.group.WORLD if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")

    def broadcast_object(self, value: Value) -> Value:
        values = [value]
        with _lost_processes_reported():
            dist.broadcast_object_list(values, src=0, group=self._cpu_group)
        return values[0]

    @torch.no_grad()
    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            contiguous = tensor.detach().contiguous()
            with _lost_processes_reported():
                dist.broadcast(contiguous, src=0)
            tensor.detach().copy_(contiguous)

    @torch.no_grad()
    def all_reduce_gradients(self, params: Sequence[Tensor], loss: Tensor) -> Tensor:
        # One flat tensor with the loss at its end: one call for any number of parameters.
        trained = [param for param in params if param.requires_grad]
        for param in trained:
            if param.grad is None:  # a layer that is not used here may be used in another process
                param.grad = torch.zeros_like(param)
        grads = [param.grad for param in trained if param.grad is not None]
        flat = torch.cat([*(grad.reshape(-1) for grad in grads), loss.reshape(1)])
        with _lost_processes_reported():
            dist.all_reduce(flat)
        flat.div_(self.size)
        pieces = torch.split(flat[:-1], [grad.numel() for grad in grads])
        torch._foreach_copy_(grads, [piece.view(grad.shape) for piece, grad in zip(pieces, grads, strict=True)])
        return flat[-1].clone()

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        total = value.detach().clone()
        with _lost_processes_reported():
            dist.all_reduce(total)
        return total / self.size

    def all_reduce_requests(self, requests: set[str]) -> set[str]:
        flags = torch.tensor([name in requests for name in _REQUESTS], dtype=torch.int32)
        with _lost_processes_reported():
            dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._cpu_group)
        return {name for name, flag in zip(_REQUESTS, flags.tolist(), strict=True) if flag}


@contextmanager
def _lost_processes_reported() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # the base class of torch.distributed's own errors
        raise SolverError(
            "another process of this run no longer answers: see its last message for the reason "
            f"({str(error).splitlines()[0][:120]})"
        ) from error


def current_group() -> ProcessGroup:
    """Return the group of torch.distributed if it has several processes, else a group of this process alone."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return DistributedGroup()
    return ProcessGroup()


def is_distributed_launch() -> bool:
    """Whether this process was started together with others to train with, by torchrun for example."""
    variables = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return all(name in os.environ for name in variables) and int(os.environ["WORLD_SIZE"]) > 1


def local_rank() -> int:
    """Return the rank of this process among those on this machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that were started together with this one, for the duration of the block."""
    if not is_distributed_launch() or dist.is_initialized():
        yield current_group()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store, rank, size = next(rendezvous("env://"))
        # torchrun's store outlives its restarts, and with it the addresses of processes that have ended
        store = PrefixStore(f"siamese_proto/{restarts()}", store)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise SolverError(f"the processes of this run cannot connect: {str(error).splitlines()[0]}") from error
    try:
        yield current_group()
    finally:
        dist.destroy_process_group()


def check_graph(graph: Graph, group: ProcessGroup) -> None:
    """Raise SolverError if a layer of the training net cannot run in several processes."""
    for node in graph.nodes if group.size > 1 else ():
        if isinstance(node.layer, Layer) and node.layer.writes_files:
            text = f"each of {group.size} processes would write its file; train with one, or write in the TEST phase"
            raise SolverError(text, location=node.location, layer=node.name)
