"""Where a training net's batches come from, and how a resumed run finds its place in them again."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from siamese_proto.data.feeder import PrefetchFeeder
from siamese_proto.errors import NetError
from siamese_proto.graph.ir import Node
from siamese_proto.layers.base import DataLayer, Feeder
from siamese_proto.net.net import Net
from siamese_proto.solver.given_batches import GivenBatches


class DeliveredBatch(NamedTuple):
    """A batch that a source layer has delivered before."""

    node: Node
    tops: Mapping[str, Tensor]
    feeder: Feeder | None  # None: the caller gave the batch
    number: int

    def record(self, row: int) -> str:
        """Return the origin of a row, such as `row 3 of 'a.h5'`; empty if it is unknown."""
        return self.feeder.record(self.number, row) if isinstance(self.feeder, PrefetchFeeder) else ""


class BatchSource:
    """The batches of a training net: those given by the caller, and those that the other data layers read."""

    def __init__(self, net: Net, given_batches: Sequence[GivenBatches]) -> None:
        self.net = net
        self.given_batches = {feeder.layer: feeder for feeder in given_batches}
        for feeder in given_batches:
            feeder.rank, feeder.ranks = net.run_state.rank, net.run_state.ranks

    def next_batch(self) -> dict[str, Any]:
        """Return the next batch of every data layer, by blob."""
        batch = {top: array for feeder in self.given_batches.values() for top, array in feeder.next_batch().items()}
        for node in self.net.graph.nodes if self.net.run_state.ranks > 1 else ():
            is_read = isinstance(node.layer, DataLayer) and node.name not in self.given_batches
            if is_read and node.id not in self.net.feeders:
                self.net.feeders[node.id] = open_feeder(self.net, node)
        return {**batch, **self.net.pull(batch)}

    def delivered(self, ago: int, passes: int) -> Iterator[DeliveredBatch]:
        """Yield the batches of `passes` passes again, beginning `ago` passes before the next one, of all processes.

        Batches that the caller gave and that cannot be had again are left out.

        Raises:
            NetError: A source can no longer be read.
        """
        positions = self.positions()
        ranks = self.net.run_state.ranks
        for node in self.net.graph.nodes:
            own = self.given_batches.get(node.name)
            position = positions.get(node.name if own is not None else node.id, 0)
            numbers = range(max(0, position - ago * ranks), max(0, position - (ago - passes) * ranks))
            if own is not None:
                for number in numbers:
                    yield DeliveredBatch(node, own.delivered(number), None, number)
            elif isinstance(node.layer, DataLayer) and numbers:
                feeder = node.layer.open(self.net.run_state)
                try:
                    feeder.skip(numbers.start)
                    for number in numbers:
                        tops = dict(zip([top.name for top in node.tops], feeder.next_batch(), strict=True))
                        yield DeliveredBatch(node, tops, feeder, number)
                finally:
                    feeder.close()

    def positions(self) -> dict[str, int]:
        """Return the number of batches each data layer has delivered: by node id, and by layer name for given ones."""
        read = {node_id: feeder.batches for node_id, feeder in self.net.feeders.items()}
        return {**read, **{layer: feeder.batches for layer, feeder in self.given_batches.items()}}

    def go_to(self, positions: Mapping[str, int]) -> None:
        """Continue after the given numbers of batches; layers without one begin with their first record."""
        for layer, feeder in self.given_batches.items():
            feeder.skip(positions.get(layer, feeder.batches))
        skipped = {node.id for node in self.net.graph.nodes if node.name in self.given_batches}
        place_feeders(self.net, {node_id: count for node_id, count in positions.items() if node_id not in skipped})


def place_feeders(net: Net, positions: Mapping[str, int]) -> None:
    """Open the net's data layers again, each after the given number of batches, which are by node id."""
    net.close()
    for node in net.graph.nodes:
        if isinstance(node.layer, DataLayer) and positions.get(node.id, 0):
            net.feeders[node.id] = open_feeder(net, node)
            net.feeders[node.id].skip(positions[node.id])


def open_feeder(net: Net, node: Node) -> Feeder:
    """Begin to read a data layer; if several processes train the net, the share of this one."""
    assert isinstance(node.layer, DataLayer)  # as the callers check
    try:
        feeder = node.layer.open(net.run_state)
    except NetError as problem:
        raise problem.at(location=node.location, layer=node.name) from None
    return SharedFeeder(feeder, net.run_state.rank, net.run_state.ranks) if net.run_state.ranks > 1 else feeder


class SharedFeeder:
    """Delivers batch number `rank` of every `count` batches of a feeder.

    `batches` counts those delivered to all processes, so that a run can be resumed with another number of processes.
    """

    def __init__(self, feeder: Feeder, rank: int, count: int) -> None:
        self.batches = 0
        self._feeder, self._rank, self._count = feeder, rank, count
        feeder.skip(rank)
        if isinstance(feeder, PrefetchFeeder):
            feeder.step = count  # so that it decodes only the batches delivered here

    def next_batch(self) -> Sequence[Tensor]:
        """Return one tensor per top."""
        batch = self._feeder.next_batch()
        self.batches += self._count
        if self._feeder.batches < self.batches + self._rank:
            self._feeder.skip(self.batches + self._rank)
        return batch

    def skip(self, batches: int) -> None:
        """Continue as if the given number of batches had been delivered to all processes together."""
        self._feeder.skip(batches + self._rank)
        self.batches = batches

    def close(self) -> None:
        """Stop reading ahead, and release files and threads."""
        self._feeder.close()
