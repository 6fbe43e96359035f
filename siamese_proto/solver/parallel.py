"""Several processes that train one net together, as `caffe train -gpu 0,1` does (parallel.cpp, solver_count).

Each process runs batches of its own, `batch_size` records each; gradients and losses are averaged before every update,
so that all hold the same parameters all the time, and N processes do what one would with N times the batch. Of every N
batches the process of rank r takes the one numbered r, and draws the rows of random masks that belong to it.

What a layer computes over its batch it computes over the batch of its process, as in Caffe: BatchNorm's statistics (the
first process's are in snapshots), the pairs and triplets that TripletLoss mines, the normalisers of losses that leave
labels out, and the state that recurrent layers carry on (snapshots hold the first process's; others begin anew). Tests,
snapshots and log lines are the first process's.
"""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from siamese_proto.data.feeder import PrefetchFeeder
from siamese_proto.errors import SolverError
from siamese_proto.graph.ir import Graph
from siamese_proto.layers.base import Feeder, Layer
from siamese_proto.solver.run_lock import restarts

Value = TypeVar("Value")

# How long the others wait while the first process tests. Processes that have died are noticed at once.
_PATIENCE = datetime.timedelta(hours=6)
_REQUESTS = ("stop", "snapshot")


class Team:
    """The processes of a run: here one alone, to whom it is all its own."""

    rank = 0
    count = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that tests, logs and writes files."""
        return self.rank == 0

    def same(self, value: Value) -> Value:
        """What the first process has."""
        return value

    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the numbers of the first."""

    def average(self, params: Sequence[Tensor], loss: Tensor) -> Tensor:
        """Put the mean of all processes' gradients into each `grad`; the mean of their losses, a scalar."""
        return loss

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        return value

    def union(self, requests: set[str]) -> set[str]:
        """What any process asks for: `stop`, `snapshot`."""
        return set(requests)

    def wait(self) -> None:
        """Go on when all have come as far."""

    def mean_outputs(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs that are one number averaged over all processes; of the others this process's."""
        return {name: self.mean(value.detach()) if value.numel() == 1 else value for name, value in outputs.items()}


class Together(Team):
    """The processes of the group that torch.distributed has been told of."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.count = dist.get_world_size()
        # requests and objects go by the CPU, so that nobody waits for a GPU to tell them
        self._talk = dist.group.WORLD if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
        self._flat: Tensor | None = None

    def same(self, value: Value) -> Value:
        """What the first process has."""
        values = [value]
        _heard(lambda: dist.broadcast_object_list(values, src=0, group=self._talk))
        return values[0]

    @torch.no_grad()
    def share(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the numbers of the first."""
        for tensor in tensors:
            numbers = tensor.detach().contiguous()
            _heard(functools.partial(dist.broadcast, numbers, src=0))
            tensor.detach().copy_(numbers)

    @torch.no_grad()
    def average(self, params: Sequence[Tensor], loss: Tensor) -> Tensor:
        """Put the mean of all processes' gradients into each `grad`; the mean of their losses, a scalar.

        All go in one piece, with the loss at its end: one call however many parameters there are.
        """
        learned = [param for param in params if param.requires_grad]
        for param in learned:
            if param.grad is None:  # what did not take part here may have done so elsewhere
                param.grad = torch.zeros_like(param)
        grads = [param.grad for param in learned if param.grad is not None]
        size = sum(grad.numel() for grad in grads) + 1
        if self._flat is None or self._flat.numel() != size:
            self._flat = torch.empty(size, dtype=loss.dtype, device=loss.device)
        flat = self._flat
        pieces = [
            piece.view(grad.shape)
            for piece, grad in zip(torch.split(flat[:-1], [grad.numel() for grad in grads]), grads, strict=True)
        ]
        torch._foreach_copy_(pieces, grads)
        flat[-1] = loss
        _heard(lambda: dist.all_reduce(flat))
        flat.div_(self.count)
        torch._foreach_copy_(grads, pieces)
        return flat[-1].clone()

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        total = value.detach().clone()
        _heard(lambda: dist.all_reduce(total))
        return total / self.count

    def union(self, requests: set[str]) -> set[str]:
        """What any process asks for."""
        flags = torch.tensor([name in requests for name in _REQUESTS], dtype=torch.int32)
        _heard(lambda: dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._talk))
        return {name for name, flag in zip(_REQUESTS, flags.tolist(), strict=True) if flag}

    def wait(self) -> None:
        """Go on when all have come as far."""
        self.union(set())


def _heard(say: Callable[[], object]) -> None:
    try:
        say()
    except RuntimeError as error:  # of torch.distributed, whose own kinds are among them
        raise SolverError(
            "another process of this run cannot be reached any more; what it said last tells why "
            f"({str(error).splitlines()[0][:120]})"
        ) from error


def current() -> Team:
    """The processes that this one trains with: those of torch.distributed's group, where there is one."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return Together()
    return Team()


def started_together() -> bool:
    """Whether whoever started this process, torchrun say, has started others to train with."""
    told = all(name in os.environ for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
    return told and int(os.environ["WORLD_SIZE"]) > 1


def local_rank() -> int:
    """Which of the processes on this machine this is."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def joined(device: torch.device) -> Iterator[Team]:
    """Meet the processes that were started together with this one, for the time of the block."""
    if not started_together() or dist.is_initialized():
        yield current()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store, rank, count = next(rendezvous("env://"))
        # torchrun's store outlives its restarts, and with it the addresses of processes that do not
        store = PrefixStore(f"siamese_proto/{restarts()}", store)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise SolverError(f"the processes of this run cannot meet: {str(error).splitlines()[0]}") from error
    try:
        yield current()
    finally:
        dist.destroy_process_group()


def check_graph(graph: Graph, team: Team) -> None:
    """Raise SolverError where a layer of a net to train cannot run in several processes."""
    for node in graph.nodes if team.count > 1 else ():
        if isinstance(node.layer, Layer) and node.layer.writes_files:
            text = f"each of {team.count} processes would write its file; train with one, or write in the TEST phase"
            raise SolverError(text, location=node.location, layer=node.name)


class SharedFeeder:
    """Of every `count` batches of a feeder the one numbered `rank`.

    `batches` counts those delivered to all processes together, so that a run can go on with more or fewer of them.
    """

    def __init__(self, feeder: Feeder, rank: int, count: int) -> None:
        self.batches = 0
        self._feeder, self._rank, self._count = feeder, rank, count
        feeder.skip(rank)
        if isinstance(feeder, PrefetchFeeder):
            feeder.step = count  # so that nothing is made that is not delivered

    def next_batch(self) -> Sequence[Tensor]:
        """One tensor a top."""
        batch = self._feeder.next_batch()
        self.batches += self._count
        if self._feeder.batches < self.batches + self._rank:
            self._feeder.skip(self.batches + self._rank)
        return batch

    def skip(self, batches: int) -> None:
        """Go on as if so many batches had been delivered to all processes together."""
        self._feeder.skip(batches + self._rank)
        self.batches = batches

    def close(self) -> None:
        """Give files and threads back."""
        self._feeder.close()
