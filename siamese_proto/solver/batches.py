"""Where a training net's batches come from, and how a run finds its place in them again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from siamese_proto.data.feeder import PrefetchFeeder
from siamese_proto.errors import NetError, SolverError, did_you_mean, quoted
from siamese_proto.graph.ir import Graph, Node
from siamese_proto.layers.base import DataLayer, Feeder
from siamese_proto.net.net import Net
from siamese_proto.net.program import is_source
from siamese_proto.solver.given_batches import Kind, as_batches, by_top, check_shapes, is_like, kind_of
from siamese_proto.solver.parallel import SharedFeeder


class GivenBatches:
    """Batches that the caller gives for one data layer: any iterable, begun again at its end.

    A batch is a mapping from top to array, a sequence of arrays (one a top), or the array of an only top. A run that is
    resumed passes over as many batches as were delivered: it goes on as it would have gone where the source delivers
    the same ones whenever it is iterated, which a DataLoader that shuffles does only with a seeded generator.
    """

    def __init__(self, layer: str, tops: Sequence[str], batches: Iterable[Any]) -> None:
        self.layer = layer
        self.tops = tops
        self.batches = 0  # delivered so far, to all processes
        self.rank, self.ranks = 0, 1  # of every so many batches the one that is delivered here
        self._source = batches
        self._iterator = iter(batches)
        self._peeked: list[dict[str, Any]] = []
        self._first: dict[str, Kind] = {}  # of the first batch
        self._last: list[dict[str, Any]] = []  # delivered together

    def next_batch(self) -> dict[str, Any]:
        """The next batch, by top."""
        batches = [self._next_named() for _ in range(self.ranks)]
        self.batches += self.ranks
        self._last = batches
        return batches[self.rank]

    def again(self, number: int) -> dict[str, Any]:
        """A batch that was delivered before, by top: one of the last, or one of a list; else empty."""
        first = self.batches - len(self._last)
        if number >= first:
            return self._last[number - first]
        return self._named(self._source[number % len(self._source)]) if isinstance(self._source, list) else {}

    def skip(self, batches: int) -> None:
        """Go on as if `batches` batches had been delivered since the first."""
        if batches < self.batches:
            raise SolverError(f"the batches given for layer {quoted(self.layer)} have been used up to a later point")
        while self.batches < batches:
            self._next_named()
            self.batches += 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each top, taken from the next batch, which stays the next."""
        if not self._peeked:
            self._peeked.append(self._named(self._next()))
        return {top: tuple(array.shape) for top, array in self._peeked[0].items()}

    def _next_named(self) -> dict[str, Any]:
        return self._peeked.pop() if self._peeked else self._named(self._next())

    def _next(self) -> Any:
        for batch in self._iterator:
            return batch
        self._iterator = iter(self._source)
        for batch in self._iterator:
            return batch
        raise SolverError(
            f"the batches given for layer {quoted(self.layer)} have come to an end; give more, or something that can "
            "be iterated again, such as a list"
        )

    def _named(self, batch: Any) -> dict[str, Any]:
        if self._first and is_like(batch, self._first):  # most are, and small nets would notice more
            return dict(batch)
        named = by_top(self.layer, self.tops, batch)
        self._first = self._first or {top: kind_of(tensor) for top, tensor in named.items()}
        check_shapes(self.layer, named, self._first)
        return named


class Delivered(NamedTuple):
    """A batch that a source layer has delivered before."""

    node: Node
    tops: Mapping[str, Tensor]
    feeder: Feeder | None  # None: the caller gave the batch
    number: int

    def record(self, row: int) -> str:
        """Where a row comes from, as in `row 3 of 'a.h5'`; empty where nobody knows."""
        return self.feeder.record(self.number, row) if isinstance(self.feeder, PrefetchFeeder) else ""


class BatchSource:
    """The batches of a training net: those given by the caller, and for other data layers those of their feeders."""

    def __init__(self, net: Net, given: Sequence[GivenBatches]) -> None:
        self.net = net
        self.given = given
        for feeder in given:
            feeder.rank, feeder.ranks = net.run.rank, net.run.ranks

    def next_batch(self) -> dict[str, Any]:
        """The next batch of every data layer, by blob."""
        batch = {top: array for feeder in self.given for top, array in feeder.next_batch().items()}
        if self.net.run.ranks > 1:
            self._open_shares()
        return {**batch, **self.net.pull(batch)}

    def delivered(self, ago: int, passes: int) -> Iterator[Delivered]:
        """The batches of `passes` passes once more, from that on which was made `ago` passes before the next one.

        Those of all processes that train together. Batches that the caller gave and that cannot be had again are left
        out. Raises NetError where a source can no longer be read.
        """
        given = {feeder.layer: feeder for feeder in self.given}
        positions = self.positions()
        ranks = self.net.run.ranks
        for node in self.net.graph.nodes:
            position = positions.get(node.name if node.name in given else node.id, 0)
            numbers = range(max(0, position - ago * ranks), max(0, position - (ago - passes) * ranks))
            if node.name in given:
                for number in numbers:
                    yield Delivered(node, given[node.name].again(number), None, number)
            elif isinstance(node.layer, DataLayer) and numbers:
                feeder = node.layer.open(self.net.run)
                try:
                    feeder.skip(numbers.start)
                    for number in numbers:
                        tops = dict(zip([top.name for top in node.tops], feeder.next_batch(), strict=True))
                        yield Delivered(node, tops, feeder, number)
                finally:
                    feeder.close()

    def _open_shares(self) -> None:
        given = self.given_layers()
        for node in self.net.graph.nodes:
            if isinstance(node.layer, DataLayer) and node.name not in given and node.id not in self.net.feeders:
                self.net.feeders[node.id] = open_feeder(self.net, node)

    def positions(self) -> dict[str, int]:
        """How many batches each data layer has delivered: by node id, and by layer name where the caller gives them."""
        read = {layer: feeder.batches for layer, feeder in self.net.feeders.items()}
        return {**read, **{feeder.layer: feeder.batches for feeder in self.given}}

    def go_to(self, positions: Mapping[str, int]) -> None:
        """Go on behind so many batches; layers that are not named begin with their first record."""
        for feeder in self.given:
            feeder.skip(positions.get(feeder.layer, feeder.batches))
        given = {node.id for node in self.net.graph.nodes if node.name in self.given_layers()}
        place_feeders(self.net, {node: n for node, n in positions.items() if node not in given})

    def given_layers(self) -> set[str]:
        """Names of the layers whose batches the caller gives."""
        return {feeder.layer for feeder in self.given}


def place_feeders(net: Net, positions: Mapping[str, int]) -> None:
    """Open the net's data layers anew, each behind so many batches, which are told by node id."""
    net.close()
    for node in net.graph.nodes:
        if isinstance(node.layer, DataLayer) and positions.get(node.id, 0):
            net.feeders[node.id] = open_feeder(net, node)
            net.feeders[node.id].skip(positions[node.id])


def open_feeder(net: Net, node: Node) -> Feeder:
    """Begin to read a data layer; of a net that several processes train, this one's share of its batches."""
    if not isinstance(node.layer, DataLayer):
        raise TypeError(f"{node.type} is no data layer")
    try:
        feeder = node.layer.open(net.run)
    except NetError as problem:
        raise problem.at(location=node.location, layer=node.name) from None
    return SharedFeeder(feeder, net.run.rank, net.run.ranks) if net.run.ranks > 1 else feeder


def given_batches(graph: Graph, data: Mapping[str, Iterable[Any]]) -> list[GivenBatches]:
    """The caller's batches, by the name of the data or Input layer they are for."""
    sources = {node.name: node for node in graph.nodes if is_source(node)}
    for name in data:
        if name not in sources:
            known = ", ".join(map(quoted, sources)) or "none"
            hint = did_you_mean(name, sources)
            raise SolverError(f"data for {quoted(name)}, which is no data layer of the training net ({known}){hint}")
    nodes = [(sources[name], batches) for name, batches in data.items()]
    return [GivenBatches(node.name, [t.name for t in node.tops], as_batches(batches, node)) for node, batches in nodes]
