"""What the drawing shows, before it is drawn: boxes of layers, wires between them, colours of shared parameters."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from siamese_proto.drawing import palette
from siamese_proto.graph.ir import Blob, Graph, Node, Param
from siamese_proto.graph.twins import Towers, find_towers, shared_blobs


@dataclass(frozen=True)
class Box:
    """A layer, and below it the layers that change its output in place."""

    nodes: tuple[Node, ...]

    @property
    def id(self) -> str:
        """Name of the box in DOT text; made of letters, digits and `_` only."""
        return f"layer_{self.nodes[0].id}"


@dataclass(frozen=True)
class Wire:
    """A blob on its way from one box to another."""

    blob: Blob
    source: Box
    target: Box
    is_label: bool  # read as a label: nothing is learned along it


@dataclass(frozen=True)
class Picture:
    """Everything a drawing shows."""

    graph: Graph
    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]
    outputs: tuple[tuple[Blob, Box], ...]  # blobs that leave the net, and the box that makes them
    towers: tuple[Towers, ...]
    users: Mapping[str, tuple[Node, ...]]  # of every parameter, by its id
    paints: Mapping[str, palette.Paint]  # of every shared parameter, by its id
    private: frozenset[tuple[str, int]]  # (node id, blob index) not shared, though towers share others

    def box_of(self, node: Node) -> Box | None:
        """The box that begins with this layer."""
        return next((box for box in self.boxes if box.nodes[0].id == node.id), None)


def both_phases(train: Graph, test: Graph) -> Graph:
    """The layers of both phases in one, for drawing only: here a blob may have a maker in each phase."""

    def written(node: Node) -> tuple[object, ...]:
        return (node.location, node.name, node.type, tuple(top.name for top in node.tops))

    known, ids = {written(node) for node in train.nodes}, {node.id for node in train.nodes}
    extra = []
    for node in test.nodes:
        if written(node) not in known:
            fresh = node.id
            while fresh in ids:
                fresh += "_test"
            ids.add(fresh)
            extra.append(replace(node, id=fresh))
    owned = {param.id for param in train.params}
    read = {bottom.name for node in (*train.nodes, *extra) for bottom in node.bottoms}
    made_in_train = {top.name for node in train.nodes for top in node.tops}
    outputs = [blob for blob in test.outputs if blob.name not in made_in_train | read]
    return replace(
        train,
        nodes=tuple(sorted((*train.nodes, *extra), key=lambda node: (node.location.line, node.location.column))),
        params=(*train.params, *(param for param in test.params if param.id not in owned)),
        outputs=(*(blob for blob in train.outputs if blob.name not in read), *outputs),
    )


def picture(graph: Graph) -> Picture:
    """Work out what to draw."""
    boxes = _fold(graph)
    home = {node.id: box for box in boxes for node in box.nodes}
    makers: defaultdict[str, list[tuple[Box, Blob]]] = defaultdict(list)
    for node in graph.nodes:
        for top in node.tops:
            makers[top.id].append((home[node.id], top))
    users: defaultdict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        for use in node.params:
            if node not in users[use.param.id]:
                users[use.param.id].append(node)
    towers = find_towers(graph)
    return Picture(
        graph=graph,
        boxes=boxes,
        wires=_wires(boxes, makers),
        outputs=tuple((blob, makers[blob.id][0][0]) for blob in graph.outputs if blob.id in makers),
        towers=towers,
        users={key: tuple(nodes) for key, nodes in users.items()},
        paints=_paints([param for param in graph.params if len(users[param.id]) > 1]),
        private=_private(towers),
    )


def _fold(graph: Graph) -> tuple[Box, ...]:
    readers = Counter(bottom.id for node in graph.nodes for bottom in node.bottoms)
    last_of: dict[str, list[Node]] = {}  # blob id -> the box whose only output it is
    boxes: list[list[Node]] = []
    for node in graph.nodes:
        in_place = len(node.bottoms) == len(node.tops) == 1 and node.bottoms[0].name == node.tops[0].name
        # where another layer reads the blob as it was before, the two states need boxes of their own
        folded = in_place and readers[node.bottoms[0].id] == 1 and node.bottoms[0].id in last_of
        if folded:
            box = last_of[node.bottoms[0].id]
            box.append(node)
        else:
            box = [node]
            boxes.append(box)
        if len(node.tops) == 1 and (folded or node.bottoms):
            last_of[node.tops[0].id] = box
    return tuple(Box(tuple(box)) for box in boxes)


def _wires(boxes: tuple[Box, ...], makers: Mapping[str, list[tuple[Box, Blob]]]) -> tuple[Wire, ...]:
    wires: list[Wire] = []
    for box in boxes:
        first = box.nodes[0]
        labels = first.layer.labels if first.layer else ()
        for index, bottom in enumerate(first.bottoms):
            # of both phases drawn in one, each may have a layer that makes the blob
            wires.extend(Wire(blob, source, box, index in labels) for source, blob in makers.get(bottom.id, ()))
    return tuple(wires)


def _paints(shared: list[Param]) -> dict[str, palette.Paint]:
    owners = list(dict.fromkeys(param.owner for param in shared))
    return {param.id: palette.shared_paint(owners.index(param.owner), param.index) for param in shared}


def _private(towers: tuple[Towers, ...]) -> frozenset[tuple[str, int]]:
    found: set[tuple[str, int]] = set()
    for group in towers:
        if not group.shares_any:
            continue  # different weights on purpose: there is nothing to stand out from
        for row in group.rows:
            for index, shared in enumerate(shared_blobs(row)):
                if not shared:
                    users = Counter(node.params[index].param.id for node in row if index < len(node.params))
                    found.update(
                        (node.id, index)
                        for node in row
                        if index < len(node.params) and users[node.params[index].param.id] == 1
                    )
    return frozenset(found)
