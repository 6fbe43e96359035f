"""Run towers that share all their parameters as one, over their joined batches."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from siamese_proto.graph.ir import Blob, Graph, LayerContext, Node, Phase, Shape
from siamese_proto.graph.towers import Row, find_towers
from siamese_proto.graph.traversal import topological_order
from siamese_proto.layers.base import Layer
from siamese_proto.passes.joined_layers import JoinBatches, PartBatches, joined_layer
from siamese_proto.passes.rewriting import Rewritten, free_id
from siamese_proto.proto import schema

Ids = tuple[str, ...]  # of corresponding blobs, one of each tower

# Fields that may differ between layers that compute the same.
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


@dataclass(frozen=True)
class Region:
    """Connected rows of towers that compute the same function of each row of a batch."""

    rows: tuple[Row, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The layers of all towers."""
        return tuple(node for row in self.rows for node in row)


def fuse_towers(graph: Graph) -> Rewritten:
    """Run towers that share all their parameters once, over their joined batches.

    A layer is fused with the same layer of the other towers if all use the same tensors, have equal settings, treat the
    rows of a batch independently (the configured layer says so) and carry no loss. Other readers of a blob of a fused
    layer read its part of the joined blob. Any number of towers, and parts of towers, are fused.
    """
    regions = [region for towers in find_towers(graph) for region in _regions(towers.rows)]
    while regions:
        fused = _fused(graph, regions)
        if fused is not None:
            return Rewritten(fused, frozenset(node.id for region in regions for node in region.nodes))
        regions.pop()  # its layers wait for one another; the other regions may not need it
    return Rewritten(graph)


def _regions(rows: Sequence[Row]) -> Iterator[Region]:
    """Yield the connected parts that can be fused; a part without parameters would gain nothing."""
    producer: dict[Ids, int] = {}  # index in `fusible` of the row that computes these blobs
    fusible: list[Row] = []
    leader: list[int] = []  # for each fusible row an earlier row of its region, or itself
    computed: set[str] = set()  # ids of the tops of fusible rows
    for row in rows:
        bottoms = [_ids(blobs) for blobs in zip(*(node.bottoms for node in row), strict=True)]
        # Towers may connect their layers in another order: then corresponding bottoms are not corresponding tops.
        is_crossed = any(ids not in producer and computed.intersection(ids) for ids in bottoms)
        if is_crossed or not _computes_the_same(row):
            continue
        leaders = {_first(leader, producer[ids]) for ids in bottoms if ids in producer}
        for index in leaders:
            leader[index] = min(leaders)
        producer.update({_ids(blobs): len(fusible) for blobs in zip(*(node.tops for node in row), strict=True)})
        computed.update(top.id for node in row for top in node.tops)
        leader.append(min(leaders, default=len(fusible)))
        fusible.append(row)
    regions: defaultdict[int, list[Row]] = defaultdict(list)
    for index, row in enumerate(fusible):
        regions[_first(leader, index)].append(row)
    return (Region(tuple(rows)) for rows in regions.values() if any(row[0].params for row in rows))


def _first(leader: list[int], index: int) -> int:
    """Return the first row of the region of a row."""
    while leader[index] != index:
        leader[index] = leader[leader[index]]
        index = leader[index]
    return index


def _ids(blobs: Sequence[Blob]) -> Ids:
    return tuple(blob.id for blob in blobs)


def _computes_the_same(row: Row) -> bool:
    first = row[0]
    layer = first.layer
    if not isinstance(layer, Layer) or not (layer.rows_independent() or _joined_row(row) is not None):
        return False
    row_shapes = _row_shapes(first)
    uses = [(use.param.id, use.shape, use.takes_gradient) for use in first.params]
    return None not in row_shapes and all(
        _settings(node) == _settings(first)
        and [(use.param.id, use.shape, use.takes_gradient) for use in node.params] == uses
        and node.cut == first.cut
        and not any(node.loss_weights)
        and _row_shapes(node) == row_shapes
        for node in row
    )


def _row_shapes(node: Node) -> list[Shape | None]:
    """Return the shape of one row of each bottom and top; None if it is unknown, or there are no rows."""
    return [blob.shape[1:] if blob.shape else None for blob in (*node.bottoms, *node.tops)]


def _joined_row(row: Row) -> Layer | None:
    return joined_layer([node.layer for node in row if isinstance(node.layer, Layer)])


def _ends_in_a_sum(region: Region) -> frozenset[str]:
    """Return ids of the first tower's InnerProduct layers that only InnerProduct layers of the region follow.

    The gradients of their biases may be exactly 0, because those of the towers cancel.
    """
    ids: set[str] = set()
    read_by_others: set[str] = set()  # blobs that other layers read
    for row in reversed(region.rows):
        node = row[0]
        if node.type == "InnerProduct" and not any(top.id in read_by_others for top in node.tops):
            ids.add(node.id)
        else:
            read_by_others.update(blob.id for blob in node.bottoms)
    return frozenset(ids)


def _settings(node: Node) -> bytes:
    message = schema.LayerParameter()
    message.CopyFrom(node.message)
    for name in _OWN_FIELDS:
        message.ClearField(name)
    return message.SerializeToString(deterministic=True)


def _fused(graph: Graph, regions: Sequence[Region]) -> Graph | None:
    """Fuse these regions; None if no order lets every layer run after what it reads."""
    inside = {node.id for region in regions for node in region.nodes}
    ids = {node.id for node in graph.nodes}
    readers = _readers(graph)
    units = [[node] for node in graph.nodes if node.id not in inside]
    for number, region in enumerate(regions):
        units.append(_joined_nodes(graph.phase, region, f"towers_{number}", ids, readers))
    place, last = graph.order, len(graph.nodes)
    ordered = _in_order(units, [min(place.get(node.id, last) for node in unit) for unit in units])
    return replace(graph, nodes=tuple(node for unit in ordered for node in unit)) if ordered is not None else None


def _readers(graph: Graph) -> Mapping[str, set[str]]:
    """Return for each blob the ids of the layers that read it; "" stands for the user, who reads the outputs."""
    readers: defaultdict[str, set[str]] = defaultdict(set)
    for node in graph.nodes:
        for blob in node.bottoms:
            readers[blob.id].add(node.id)
    for blob in graph.outputs:
        readers[blob.id].add("")
    return readers


def _joined_nodes(
    phase: Phase, region: Region, name: str, ids: Collection[str], readers: Mapping[str, set[str]]
) -> list[Node]:
    """Return the nodes of a fused region: joins of outside blobs, each row once, parts of blobs read outside."""
    joined: dict[Ids, Blob] = {}
    nodes: list[Node] = []
    source: tuple[Blob, ...] = ()  # blobs that have as many rows as the towers
    ends = _ends_in_a_sum(region)
    for row in region.rows:
        bottoms = list(zip(*(node.bottoms for node in row), strict=True))
        for blobs in bottoms:
            if _ids(blobs) not in joined:
                joined[_ids(blobs)] = _joined_blob(blobs)
                source = blobs
                join = free_id(f"{name}_join_{len(nodes)}", ids)
                nodes.append(_new_node(phase, row[0], JoinBatches, join, blobs, [joined[_ids(blobs)]]))
        tops = list(zip(*(node.tops for node in row), strict=True))
        joined.update({_ids(blobs): _joined_blob(blobs) for blobs in tops})
        node = replace(
            row[0],
            bottoms=tuple(joined[_ids(blobs)] for blobs in bottoms),
            tops=tuple(joined[_ids(blobs)] for blobs in tops),
        )
        if isinstance(node.layer, Layer) and (row[0].id in ends or not node.layer.rows_independent()):
            node = _by_tower(node, _joined_row(row), source, free_id(f"{name}_{row[0].id}", ids))
        nodes.append(node)
    inside = {node.id for node in region.nodes}
    for blobs in [blobs for row in region.rows for blobs in zip(*(node.tops for node in row), strict=True)]:
        if any(readers[blob.id] - inside for blob in blobs if blob.id in readers):
            part = free_id(f"{name}_part_{len(nodes)}", ids)
            bottoms_of_part = (joined[_ids(blobs)], *source)
            nodes.append(_new_node(phase, region.rows[-1][0], PartBatches, part, bottoms_of_part, list(blobs)))
    return nodes


def _by_tower(node: Node, layer: Layer | None, source: tuple[Blob, ...], name: str) -> Node:
    """Return the node computed by a layer that also reads the rows of each tower."""
    if layer is None:
        return node
    more = (False,) * len(source)
    return replace(
        node,
        id=name,
        layer=layer,
        bottoms=(*node.bottoms, *source),
        cut=(*node.cut, *more),
    )


def _joined_blob(blobs: Sequence[Blob]) -> Blob:
    shapes = [blob.shape for blob in blobs if blob.shape is not None]
    shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
    # No blob of a file has a version below 0, so this name cannot be one of the file's.
    name = " + ".join(blob.id for blob in blobs)
    return Blob(name, -1, shape)


def _new_node(
    phase: Phase, like: Node, kind: type[Layer], name: str, bottoms: Sequence[Blob], tops: Sequence[Blob]
) -> Node:
    message = schema.LayerParameter(
        name=name, type=kind.type, bottom=[blob.id for blob in bottoms], top=[blob.id for blob in tops]
    )
    return replace(
        like,
        id=name,
        name=name,
        type=kind.type,
        layer=kind(message, LayerContext(phase)),
        bottoms=tuple(bottoms),
        tops=tuple(tops),
        params=(),
        loss_weights=(0.0,) * len(tops),
        cut=(False,) * len(bottoms),
        message=message,
    )


def _in_order(units: Sequence[list[Node]], priority: Sequence[int]) -> list[list[Node]] | None:
    """Order the units so that each runs after what it reads, otherwise as in the file; None if they form a circle."""
    maker = {top.id: index for index, unit in enumerate(units) for node in unit for top in node.tops}
    waits: list[set[int]] = [
        {maker[blob.id] for node in unit for blob in node.bottoms} - {index} for index, unit in enumerate(units)
    ]
    writers: dict[str, int] = {}  # the last so far of each statistic: they update it in the order of the file
    for index in sorted(range(len(units)), key=lambda index: priority[index]):
        for param in {use.param.id for node in units[index] for use in node.params if use.param.statistic}:
            waits[index] |= {writers[param]} - {index} if param in writers else set()
            writers[param] = index
    order = topological_order(waits, priority)
    return [units[index] for index in order] if order is not None else None
