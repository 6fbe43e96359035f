"""The content of a drawing: boxes of layers, wires between them, colors of shared parameters."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from siamese_proto.export.drawing.palette import Paint, Style
from siamese_proto.export.summary import Row, Summary, summarize
from siamese_proto.graph.ir import Blob, Graph, Node, Param
from siamese_proto.graph.towers import Towers, find_towers, shared_blobs
from siamese_proto.layers.base import Layer


@dataclass(frozen=True, eq=False)
class Box:
    """A layer, and the layers that change its output in place."""

    nodes: tuple[Node, ...]
    copies: tuple[Node, ...] = ()  # layers of other towers that it represents

    @property
    def id(self) -> str:
        """The name of the box in DOT text, made of letters, digits and `_`."""
        return f"layer_{self.nodes[0].id}"

    @property
    def count(self) -> int:
        """The number of towers that it represents."""
        return 1 + len(self.copies) // len(self.nodes)


@dataclass(frozen=True)
class Wire:
    """The blobs from one box to another: one, unless a box represents several towers."""

    blobs: tuple[Blob, ...]
    source: Box
    target: Box
    is_label: bool  # read as a label, which has no gradient
    top: int  # index of the top
    bottom: int


@dataclass(frozen=True)
class Output:
    """Outputs of the net: one, unless the box represents several towers."""

    blobs: tuple[Blob, ...]
    source: Box


@dataclass(frozen=True)
class Stack:
    """Boxes that represent all towers of a group."""

    boxes: tuple[Box, ...]
    count: int


@dataclass(frozen=True)
class Picture:
    """Everything a drawing shows."""

    graph: Graph
    boxes: tuple[Box, ...]
    wires: tuple[Wire, ...]
    outputs: tuple[Output, ...]
    towers: tuple[Towers, ...]  # those drawn side by side
    stacks: tuple[Stack, ...]  # those drawn once
    users: Mapping[str, tuple[Node, ...]]  # by parameter id
    paints: Mapping[str, Paint]  # of shared parameters, by id
    private: frozenset[tuple[str, int]]  # (node id, blob index) that towers do not share, although they share others
    summary: Summary
    facts: Mapping[str, Row]  # by node id
    node_numbers: Mapping[str, int]  # positions in the graph, by id
    param_numbers: Mapping[str, int]
    blob_numbers: Mapping[str, int]

    @cached_property
    def begins(self) -> Mapping[str, Box]:
        """Boxes by the id of their first layer; in-place layers in the box of another layer have none."""
        return {box.nodes[0].id: box for box in self.boxes}

    @cached_property
    def longest_names(self) -> Mapping[str, int]:
        """Length of the longest name in a box, by DOT name; corresponding boxes of towers have the same number."""
        longest = {box.id: max(len(node.name) for node in box.nodes) for box in self.boxes}
        for row in (row for group in self.towers for row in group.rows):
            twins = [self.begins[node.id].id for node in row if node.id in self.begins]
            longest.update(dict.fromkeys(twins, max((longest[box] for box in twins), default=0)))
        return longest

    @cached_property
    def straight(self) -> frozenset[tuple[str, str]]:
        """Pairs of DOT names of boxes that are drawn in one line.

        They are on the longest path through the net, or have no other wires between them. If the path splits into more
        than two, a straight line would push all others to its sides.
        """
        leaving = Counter(wire.source.id for wire in self.wires if not wire.is_label)
        joining = Counter(wire.target.id for wire in self.wires if not wire.is_label)
        alone = {
            (wire.source.id, wire.target.id)
            for wire in self.wires
            if not wire.is_label and leaving[wire.source.id] == joining[wire.target.id] == 1
        }
        path = (pair for pair in pairwise(self._longest_path()) if leaving[pair[0]] <= 2 and joining[pair[1]] <= 2)
        return frozenset(alone.union(path))

    @cached_property
    def lines(self) -> Mapping[str, str]:
        """Names of the lines of boxes, by DOT name, except those of towers."""
        towers = {f"layer_{node.id}" for group in self.towers for row in group.rows for node in row}
        line_of: dict[str, str] = {}
        for box in self.boxes:
            line_of.setdefault(box.id, f"line_{box.id}")
            for source, target in self._next.get(box.id, ()):
                line_of[target] = line_of[source]
        sizes = Counter(line_of.values())
        return {box: line for box, line in line_of.items() if sizes[line] > 1 and box not in towers}

    @cached_property
    def _next(self) -> Mapping[str, list[tuple[str, str]]]:
        entries: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
        for pair in sorted(self.straight):
            entries[pair[0]].append(pair)
        return entries

    def _longest_path(self) -> list[str]:
        before: dict[str, str] = {}
        for wire in self.wires:
            if not wire.is_label and self._depths[wire.target.id] == self._depths[wire.source.id] + 1:
                before.setdefault(wire.target.id, wire.source.id)
        path = [max(self._depths, key=lambda box: self._depths[box])] if self._depths else []
        while path and path[-1] in before:
            path.append(before[path[-1]])
        return path[::-1]

    @cached_property
    def _depths(self) -> Mapping[str, int]:
        """The number of boxes between each box and the data, by DOT name."""
        depths = {box.id: 0 for box in self.boxes}
        for wire in self.wires:  # in the order of their targets, which follow their sources
            if not wire.is_label:
                depths[wire.target.id] = max(depths[wire.target.id], depths[wire.source.id] + 1)
        return depths

    @property
    def length(self) -> int:
        """The number of boxes in the longest path through the net."""
        return max(self._depths.values(), default=0) + 1

    @cached_property
    def breadth(self) -> int:
        """The approximate number of boxes side by side at the widest place."""
        return max((*Counter(self._depths.values()).values(), *(group.count for group in self.towers)), default=1)


def blob_numbers(graph: Graph) -> dict[str, int]:
    """Return the position of each blob, by id, in the order in which they are computed."""
    ids = dict.fromkeys(top.id for node in graph.nodes for top in node.tops)
    return {blob: number for number, blob in enumerate(ids)}


def picture(graph: Graph, style: Style) -> Picture:
    """Return what to draw, with all towers side by side."""
    boxes = _fold(graph)
    home = {node.id: box for box in boxes for node in box.nodes}
    makers: defaultdict[str, list[tuple[Box, Blob, int]]] = defaultdict(list)
    users: defaultdict[str, dict[str, Node]] = defaultdict(dict)
    for node in graph.nodes:
        for place, top in enumerate(node.tops):
            makers[top.id].append((home[node.id], top, place))
        for use in node.params:
            users[use.param.id][node.id] = node
    towers = find_towers(graph)
    summary = summarize(graph)
    return Picture(
        graph=graph,
        boxes=boxes,
        wires=tuple(_wires(boxes, makers)),
        outputs=tuple(Output((blob,), makers[blob.id][0][0]) for blob in graph.outputs if blob.id in makers),
        towers=towers,
        stacks=(),
        users={key: tuple(nodes.values()) for key, nodes in users.items()},
        paints=_paints([param for param in graph.params if len(users[param.id]) > 1], style),
        private=_private(towers),
        summary=summary,
        facts={node.id: row for node, row in zip(graph.nodes, summary.rows, strict=True)},
        node_numbers={node.id: number for number, node in enumerate(graph.nodes)},
        param_numbers={param.id: number for number, param in enumerate(graph.params)},
        blob_numbers=blob_numbers(graph),
    )


def _computed_from(node: Node) -> tuple[Blob, ...]:
    """Return the bottoms whose values a layer reads, without those of which it reads only the shape."""
    return node.bottoms[: node.layer.value_bottoms] if isinstance(node.layer, Layer) else node.bottoms


def _fold(graph: Graph) -> tuple[Box, ...]:
    readers = Counter(bottom.id for node in graph.nodes for bottom in _computed_from(node))
    last_of: dict[str, list[Node]] = {}  # blob id -> the box whose only output it is
    boxes: list[list[Node]] = []
    for node in graph.nodes:
        # fused towers have joined blobs, but the message is that of the first tower
        read = _computed_from(node)
        in_place = len(read) == len(node.tops) == 1 and node.message.bottom[:] == node.message.top[:]
        # if another layer reads the blob before the change, both states need a box
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


def _wires(boxes: tuple[Box, ...], makers: Mapping[str, list[tuple[Box, Blob, int]]]) -> Iterator[Wire]:
    for box in boxes:
        first = box.nodes[0]
        labels = first.layer.labels if first.layer else ()
        for index, bottom in enumerate(_computed_from(first)):
            # in a drawing of both phases, each phase may have a layer that computes the blob
            for source, blob, top in makers.get(bottom.id, ()):
                yield Wire((blob,), source, box, index in labels, top, index)


def _paints(shared: list[Param], style: Style) -> dict[str, Paint]:
    owners = {owner: place for place, owner in enumerate(dict.fromkeys(param.owner for param in shared))}
    return {param.id: style.shared(owners[param.owner], param.index) for param in shared}


def _private(towers: tuple[Towers, ...]) -> frozenset[tuple[str, int]]:
    entries: set[tuple[str, int]] = set()
    for group in towers:
        if not group.shares_any:
            continue  # all weights differ, so nothing is an exception
        for row in group.rows:
            for index, shared in enumerate(shared_blobs(row)):
                if not shared:
                    users = Counter(node.params[index].param.id for node in row if index < len(node.params))
                    entries.update(
                        (node.id, index)
                        for node in row
                        if index < len(node.params) and users[node.params[index].param.id] == 1
                    )
    return frozenset(entries)
