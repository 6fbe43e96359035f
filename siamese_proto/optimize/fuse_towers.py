"""Towers that share all their parameters run as one, over their joined batches: graph in, graph out, same results."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from siamese_proto.graph.ir import Arity, Blob, Graph, LayerContext, LayerLike, Node, Phase, Shape
from siamese_proto.graph.towers import Row, find_towers
from siamese_proto.layers.base import Layer, RunState
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor

Ids = tuple[str, ...]  # of blobs that stand side by side, one a tower

# What may differ between layers that compute the same: their wires, who they share with, when they are there.
_OWN_FIELDS = (
    "name",
    "bottom",
    "top",
    "param",
    "include",
    "exclude",
    "phase",
    "propagate_down",
    "loss_weight",
    "blobs",
)


class JoinBatches(Layer):
    """Batches of several towers as one.

    (N_i, *K) each -> (sum of N_i, *K)
    """

    type = "JoinBatches"
    bottoms = Arity(2, None)

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [(sum(shape[0] for shape in bottoms), *bottoms[0][1:])]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        return [torch.cat(list(bottoms))]


class PartBatches(Layer):
    """A joined batch taken apart again; each bottom but the first is what was joined, and tells a number of rows.

    (sum of N_i, *K), (N_i, ...) each -> (N_i, *K) each
    """

    type = "PartBatches"
    bottoms = Arity(3, None)
    tops = Arity(2, None)

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [(shape[0], *bottoms[0][1:]) for shape in bottoms[1:]]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        return torch.split_with_sizes(bottoms[0], [joined.shape[0] for joined in bottoms[1:]])


@dataclass(frozen=True)
class Region:
    """Connected rows of towers that compute the same function, row by row of their batches."""

    rows: tuple[Row, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every layer of every tower."""
        return tuple(node for row in self.rows for node in row)


def fuse_towers(graph: Graph) -> tuple[Graph, frozenset[str]]:
    """The graph with towers that share all their parameters run once over their joined batches, and their layers' ids.

    A layer is fused with its copies where all use the same tensors, have equal settings, treat the rows of a batch
    independently (the configured layer says so) and carry no loss. What else reads a blob of a fused layer reads its
    part of the joined one. Towers of any number, and parts of towers, are fused; the rest of the graph stays.
    """
    regions = [region for towers in find_towers(graph) for region in _regions(towers.rows)]
    while regions:
        fused = _fused(graph, regions)
        if fused is not None:
            return fused, frozenset(node.id for region in regions for node in region.nodes)
        regions.pop()  # its layers wait for one another; the others may do without it
    return graph, frozenset()


def _regions(rows: Sequence[Row]) -> Iterator[Region]:
    """The connected parts of what can be fused; a part without parameters would gain nothing."""
    maker: dict[Ids, int] = {}  # the row, of those taken so far, that makes blobs side by side
    taken: list[Row] = []
    leader: list[int] = []  # for each row taken one before it in its region, or itself
    made: set[str] = set()  # what the rows taken so far make
    for row in rows:
        bottoms = [_ids(blobs) for blobs in zip(*(node.bottoms for node in row), strict=True)]
        # Towers may wire their layers in another order: then what stands side by side was not made side by side.
        is_crossed = any(ids not in maker and made.intersection(ids) for ids in bottoms)
        if is_crossed or not _computes_the_same(row):
            continue
        met = {_first(leader, maker[ids]) for ids in bottoms if ids in maker}
        for index in met:
            leader[index] = min(met)
        maker.update({_ids(blobs): len(taken) for blobs in zip(*(node.tops for node in row), strict=True)})
        made.update(top.id for node in row for top in node.tops)
        leader.append(min(met, default=len(taken)))
        taken.append(row)
    regions: defaultdict[int, list[Row]] = defaultdict(list)
    for index, row in enumerate(taken):
        regions[_first(leader, index)].append(row)
    return (Region(tuple(rows)) for rows in regions.values() if any(row[0].params for row in rows))


def _first(leader: list[int], index: int) -> int:
    """The first row of the region of a row."""
    while leader[index] != index:
        leader[index] = leader[leader[index]]
        index = leader[index]
    return index


def _ids(blobs: Sequence[Blob]) -> Ids:
    return tuple(blob.id for blob in blobs)


def _computes_the_same(row: Row) -> bool:
    first = row[0]
    layer = first.layer
    if not isinstance(layer, Layer) or not (layer.rows_independent() or _told_apart(row) is not None):
        return False
    row_shapes = _shapes_of_rows(first)
    return None not in row_shapes and all(
        _settings(node) == _settings(first)
        and [(use.param.id, use.shape, use.takes_gradient) for use in node.params]
        == [(use.param.id, use.shape, use.takes_gradient) for use in first.params]
        and node.cut == first.cut
        and not any(node.loss_weights)
        and _shapes_of_rows(node) == row_shapes
        for node in row
    )


def _shapes_of_rows(node: Node) -> list[Shape | None]:
    """The shape of one row of each bottom and top; None where it is unknown, or there are no rows."""
    return [blob.shape[1:] if blob.shape else None for blob in (*node.bottoms, *node.tops)]


def _told_apart(row: Row) -> Layer | None:
    """The row as one layer that still tells towers apart; None where its type has none."""
    layers = [node.layer for node in row if isinstance(node.layer, Layer)]
    return layers[0].joined(layers)


def _ends_in_a_sum(region: Region) -> frozenset[str]:
    """Ids of the first tower's fully connected layers behind which nothing but such layers follows in the region.

    The gradients of their biases may be 0 because what the towers get cancels.
    """
    found: set[str] = set()
    read_by_others: set[str] = set()  # blobs that a layer reads which is not among those found
    for row in reversed(region.rows):
        node = row[0]
        if node.type == "InnerProduct" and not any(top.id in read_by_others for top in node.tops):
            found.add(node.id)
        else:
            read_by_others.update(blob.id for blob in node.bottoms)
    return frozenset(found)


def _settings(node: Node) -> bytes:
    message = schema.LayerParameter()
    message.CopyFrom(node.message)
    for name in _OWN_FIELDS:
        message.ClearField(name)
    return message.SerializeToString(deterministic=True)


def _fused(graph: Graph, regions: Sequence[Region]) -> Graph | None:
    """The graph with these regions fused; None where no order lets every layer run behind what it reads."""
    inside = {node.id for region in regions for node in region.nodes}
    taken = {node.id for node in graph.nodes}
    readers = _readers(graph)
    units = [[node] for node in graph.nodes if node.id not in inside]
    for number, region in enumerate(regions):
        units.append(_joined_layers(graph.phase, region, f"towers_{number}", taken, readers))
    place = {node.id: index for index, node in enumerate(graph.nodes)}
    last = max(place.values()) + 1
    ordered = _in_order(units, [min(place.get(node.id, last) for node in unit) for unit in units])
    return replace(graph, nodes=tuple(node for unit in ordered for node in unit)) if ordered is not None else None


def _readers(graph: Graph) -> Mapping[str, set[str]]:
    """For each blob the ids of the layers that read it; an output is read by the user, ""."""
    readers: defaultdict[str, set[str]] = defaultdict(set)
    for node in graph.nodes:
        for blob in node.bottoms:
            readers[blob.id].add(node.id)
    for blob in graph.outputs:
        readers[blob.id].add("")
    return readers


def _joined_layers(
    phase: Phase, region: Region, name: str, taken: Collection[str], readers: Mapping[str, set[str]]
) -> list[Node]:
    """What a region becomes: joins of what comes from outside, each row once, parts of what goes outside."""
    made: dict[Ids, Blob] = {}  # joined blobs
    parted: list[tuple[Blob, ...]] = []
    nodes: list[Node] = []
    source: tuple[Blob, ...] = ()  # blobs whose numbers of rows are those of the towers
    ends = _ends_in_a_sum(region)
    for row in region.rows:
        wires = list(zip(*(node.bottoms for node in row), strict=True))
        for bottoms in wires:
            if _ids(bottoms) not in made:
                made[_ids(bottoms)] = _joined(bottoms)
                source = bottoms
                join = free_id(f"{name}_join_{len(nodes)}", taken)
                nodes.append(_new_node(phase, row[0], JoinBatches, join, bottoms, [made[_ids(bottoms)]]))
        tops = tuple(zip(*(node.tops for node in row), strict=True))
        made.update({_ids(blobs): _joined(blobs) for blobs in tops})
        parted += tops
        node = replace(
            row[0],
            bottoms=tuple(made[_ids(blobs)] for blobs in wires),
            tops=tuple(made[_ids(blobs)] for blobs in tops),
        )
        if isinstance(node.layer, Layer) and (row[0].id in ends or not node.layer.rows_independent()):
            node = _with_rows(node, _told_apart(row), source, free_id(f"{name}_{row[0].id}", taken))
        nodes.append(node)
    inside = {node.id for node in region.nodes}
    for blobs in parted:
        if any(readers[blob.id] - inside for blob in blobs if blob.id in readers):
            row = region.rows[-1]
            part = free_id(f"{name}_part_{len(nodes)}", taken)
            nodes.append(_new_node(phase, row[0], PartBatches, part, (made[_ids(blobs)], *source), list(blobs)))
    return nodes


def _with_rows(node: Node, layer: Layer | None, source: tuple[Blob, ...], name: str) -> Node:
    """The node computed by a layer that is also told the rows of each tower."""
    if layer is None:
        return node
    more = (False,) * len(source)
    return replace(
        node,
        id=name,
        layer=layer,
        bottoms=(*node.bottoms, *source),
        propagate_down=(*node.propagate_down, *more),
        cut=(*node.cut, *more),
    )


def _joined(blobs: Sequence[Blob]) -> Blob:
    shapes = [blob.shape for blob in blobs if blob.shape is not None]
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    # No blob of a file has a version below 0: so the name cannot be one of the file's.
    name = " + ".join(blob.id for blob in blobs)
    return Blob(name, -1, shape, needs_gradient=any(blob.needs_gradient for blob in blobs))


def _new_node(
    phase: Phase, like: Node, kind: type[Layer], name: str, bottoms: Sequence[Blob], tops: Sequence[Blob]
) -> Node:
    message = schema.LayerParameter(
        name=name, type=kind.type, bottom=[blob.id for blob in bottoms], top=[blob.id for blob in tops]
    )
    layer: LayerLike = kind(message, LayerContext(phase))
    return replace(
        like,
        id=name,
        name=name,
        type=kind.type,
        layer=layer,
        bottoms=tuple(bottoms),
        tops=tuple(tops),
        params=(),
        loss_weights=(0.0,) * len(tops),
        propagate_down=(like.needs_backward,) * len(bottoms),
        cut=(False,) * len(bottoms),
        message=message,
    )


def free_id(name: str, taken: Collection[str]) -> str:
    """The name, or one like it that no node has."""
    while name in taken:
        name = f"{name}_"
    return name


def _in_order(units: Sequence[list[Node]], priority: Sequence[int]) -> list[list[Node]] | None:
    """The units so that each runs behind what it reads, otherwise as in the file; None where they wait in a circle."""
    maker = {top.id: index for index, unit in enumerate(units) for node in unit for top in node.tops}
    waits: list[set[int]] = [
        {maker[blob.id] for node in unit for blob in node.bottoms} - {index} for index, unit in enumerate(units)
    ]
    writers: dict[str, int] = {}  # of each statistic, the last so far: they add to it in turn
    for index in sorted(range(len(units)), key=lambda index: priority[index]):
        for param in {use.param.id for node in units[index] for use in node.params if use.param.statistic}:
            waits[index] |= {writers[param]} - {index} if param in writers else set()
            writers[param] = index
    readers: Mapping[int, list[int]] = {index: [] for index in range(len(units))}
    for index, needed in enumerate(waits):
        for other in needed:
            readers[other].append(index)
    ready = [(priority[index], index) for index, needed in enumerate(waits) if not needed]
    heapq.heapify(ready)
    ordered: list[list[Node]] = []
    while ready:
        _, index = heapq.heappop(ready)
        ordered.append(units[index])
        for reader in readers[index]:
            waits[reader].discard(index)
            if not waits[reader]:
                heapq.heappush(ready, (priority[reader], reader))
    return ordered if len(ordered) == len(units) else None
