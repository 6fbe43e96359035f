"""Towers: copies of a part of a net that run side by side, found by what they share and how they are built.

Names play no part: `_p`, `_b`, `_left` and no system at all are all met in the wild.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from siamese_proto.graph.ir import Blob, Graph, Node

Row = tuple[Node, ...]
# The number of first bottoms that are features.
_FEATURE_COUNTS = {"ContrastiveLoss": 2, "TripletLoss": 3, "Distance": 2}


@dataclass(frozen=True)
class Towers:
    """Copies of one part of a net: `rows[i][t]` is layer i of tower t.

    The layers of a row have one type, stand at the same place of their towers, and none depends on another. Rows are
    in the order they run. A row may share all, some or none of its parameters.
    """

    rows: tuple[Row, ...]

    @property
    def count(self) -> int:
        """How many towers there are, two or more."""
        return len(self.rows[0])

    def tower(self, index: int) -> tuple[Node, ...]:
        """The layers of one tower, in the order they run."""
        return tuple(row[index] for row in self.rows)

    @property
    def shares_any(self) -> bool:
        """Whether at least one parameter is used by every tower."""
        return any(shared for row in self.rows for shared in shared_blobs(row))

    @property
    def shares_all(self) -> bool:
        """Whether the towers use one set of parameters: then they compute the same function."""
        return all(shared for row in self.rows for shared in shared_blobs(row))


def compared_features(node: Node) -> tuple[Blob, ...]:
    """Return the features that a pair or triplet loss, a distance or a difference compares; empty for other layers."""
    if node.type == "Eltwise":
        signs = {coefficient > 0 for coefficient in node.message.eltwise_param.coeff}
        return node.bottoms if len(node.bottoms) == 2 and len(signs) == 2 else ()
    count = _FEATURE_COUNTS.get(node.type, 0)
    return node.bottoms[:count] if len(node.bottoms) >= count else ()


def shared_blobs(row: Row) -> tuple[bool, ...]:
    """For each parameter blob of the row's layers: whether all of them use one tensor for it."""
    most = max(len(node.params) for node in row)
    return tuple(
        all(index < len(node.params) for node in row) and len({node.params[index].param.id for node in row}) == 1
        for index in range(most)
    )


def find_towers(graph: Graph) -> tuple[Towers, ...]:
    """Every group of towers in the graph, the groups in the order they run; no layer is in two of them.

    A group starts at layers that share a parameter, the most users first, and grows in step towards the inputs and
    the outputs as long as all towers go on alike. Where nothing is shared by name, towers that start at different
    inputs, are built alike, and meet in one layer are a group as well (a twin whose weights were copied). They may
    start at one input where that layer is a loss of pairs or triplets, or a distance.
    """
    wiring = _Wiring(graph)
    groups: list[list[Row]] = []
    taken: set[str] = set()
    seeds = [(row, None) for row in _shared_seeds(graph)]
    for seed, meeting in [*seeds, *_structural_seeds(graph, wiring)]:
        rows = _grow(seed, wiring, taken, alike=meeting is not None)
        if not rows or (meeting is not None and not _from_different_inputs(rows, wiring, meeting)):
            continue
        taken.update(node.id for row in rows for node in row)
        groups.append(rows)
    place = {node.id: index for index, node in enumerate(graph.nodes)}
    ordered = [sorted(rows, key=lambda row: min(place[node.id] for node in row)) for rows in groups]
    ordered.sort(key=lambda rows: min(place[node.id] for node in rows[0]))
    return tuple(Towers(_in_file_order(rows, place)) for rows in ordered)


class _Wiring:
    """Who makes and who reads each blob, and what depends on what."""

    def __init__(self, graph: Graph) -> None:
        self.producer: dict[str, tuple[Node, int]] = {}
        self.readers: defaultdict[str, list[Node]] = defaultdict(list)
        self._bit: dict[str, int] = {}
        self._before: dict[str, int] = {}  # the set of all layers a layer depends on, one bit each
        self._learning = sum(1 << index for index, node in enumerate(graph.nodes) if node.params)
        for index, node in enumerate(graph.nodes):
            before = 0
            for bottom in node.bottoms:
                self.readers[bottom.id].append(node)
                if bottom.id in self.producer:
                    source = self.producer[bottom.id][0].id
                    before |= self._before[source] | self._bit[source]
            self._bit[node.id], self._before[node.id] = 1 << index, before
            self.producer.update({top.id: (node, place) for place, top in enumerate(node.tops)})

    def learns_before(self, node: Node) -> bool:
        """Whether this layer or one that it depends on has parameters."""
        return bool((self._bit[node.id] | self._before[node.id]) & self._learning)

    def parallel(self, row: Row) -> bool:
        """Whether these are different layers, none of which depends on another."""
        members = 0
        for node in row:
            members |= self._bit[node.id]
        return members.bit_count() == len(row) and not any(self._before[node.id] & members for node in row)

    def makers(self, blobs: Sequence[Blob]) -> Row | None:
        """The layers that make these blobs, each as the same top; None where that is not so."""
        made = [self.producer.get(blob.id) for blob in blobs]
        found = [entry for entry in made if entry is not None]
        if len(found) < len(made) or len({place for _, place in found}) != 1:
            return None
        return tuple(node for node, _ in found)


def _shared_seeds(graph: Graph) -> list[Row]:
    users: defaultdict[tuple[str, str, int], list[Node]] = defaultdict(list)
    for node in graph.nodes:
        for index, use in enumerate(node.params):
            users[(use.param.id, node.type, index)].append(node)
    rows = [tuple(nodes) for nodes in users.values() if len(nodes) > 1]
    # the most users first: of three towers two may share more names than all three do
    return sorted(rows, key=len, reverse=True)


def _structural_seeds(graph: Graph, wiring: _Wiring) -> Iterator[tuple[Row, Node]]:
    """Layers that meet in one, which is the second of each pair."""
    for node in reversed(graph.nodes):
        by_type: defaultdict[str, list[Node]] = defaultdict(list)
        for bottom in node.bottoms:
            if bottom.id in wiring.producer:
                maker = wiring.producer[bottom.id][0]
                by_type[maker.type].append(maker)
        for makers in by_type.values():
            if len(makers) > 1:
                yield tuple(makers), node


def built_alike(first: Node, other: Node) -> bool:
    """Whether two layers are built alike: type, number of blobs, shapes of parameters and outputs."""

    def key(node: Node) -> tuple[object, ...]:
        return (
            node.type,
            node.layer.describe() if node.layer else "",
            len(node.bottoms),
            [top.shape for top in node.tops],
            [use.shape for use in node.params],
        )

    return key(first) == key(other)


def _grow(seed: Row, wiring: _Wiring, taken: set[str], *, alike: bool) -> list[Row]:
    """All rows reached from the seed in step; `alike` asks for equal settings too, where no shared name vouches."""
    rows: list[Row] = []
    tower_of: dict[str, int] = {}
    waiting = [seed]
    while waiting:
        row = waiting.pop(0)
        if not _is_row(row, wiring, taken, tower_of, alike=alike):
            continue
        rows.append(row)
        tower_of.update({node.id: tower for tower, node in enumerate(row)})
        waiting.extend(_rows_before(row, wiring))
        if not alike:
            waiting.extend(_rows_after(row, wiring))
    return rows


def _is_row(row: Row, wiring: _Wiring, taken: set[str], tower_of: Mapping[str, int], *, alike: bool) -> bool:
    if any(node.id in taken or node.id in tower_of or not node.bottoms for node in row):
        return False
    first = row[0]
    same = all(built_alike(first, node) if alike else node.type == first.type for node in row)
    if not same or len({len(node.bottoms) for node in row}) != 1 or not wiring.parallel(row):
        return False
    for tower, node in enumerate(row):
        for bottom in node.bottoms:
            maker = wiring.producer.get(bottom.id)
            if maker and tower_of.get(maker[0].id, tower) != tower:
                return False  # it reads another tower: the towers have met
    return True


def _rows_before(row: Row, wiring: _Wiring) -> Iterator[Row]:
    for bottoms in zip(*(node.bottoms for node in row), strict=True):
        makers = wiring.makers(bottoms)
        if makers is not None:
            yield makers


def _rows_after(row: Row, wiring: _Wiring) -> Iterator[Row]:
    if len({len(node.tops) for node in row}) != 1:
        return
    for tops in zip(*(node.tops for node in row), strict=True):
        readers: list[dict[str, list[Node]]] = []
        for top in tops:
            by_type: defaultdict[str, list[Node]] = defaultdict(list)
            for reader in wiring.readers[top.id]:
                by_type[reader.type].append(reader)
            readers.append(by_type)
        for type_name in readers[0]:
            columns = [by_type.get(type_name, []) for by_type in readers]
            if len({len(column) for column in columns}) == 1:
                yield from zip(*columns, strict=True)


def _from_different_inputs(rows: Sequence[Row], wiring: _Wiring, meeting: Node) -> bool:
    """Whether every tower reads blobs of its own (a block's two paths read one) and there is something to learn.

    Towers that are compared may read one blob: one of them was given the wrong one.
    """
    one_input = meeting.type != "Eltwise" and bool(compared_features(meeting))
    inside = {node.id for row in rows for node in row}
    for row in rows:
        for bottoms in zip(*(node.bottoms for node in row), strict=True):
            makers = [wiring.producer.get(bottom.id) for bottom in bottoms]
            if any(maker and maker[0].id in inside for maker in makers):
                continue
            if len({bottom.id for bottom in bottoms}) != len(bottoms) and not one_input:
                return False
            if any(maker and wiring.learns_before(maker[0]) for maker in makers):
                return False  # they are two parts of one net, as the two paths of a residual block
    return any(node.params for row in rows for node in row)


def _in_file_order(rows: Sequence[Row], place: Mapping[str, int]) -> tuple[Row, ...]:
    """The towers in the order in which their first layers stand in the file."""
    order = sorted(range(len(rows[0])), key=lambda tower: min(place[row[tower].id] for row in rows))
    return tuple(tuple(row[tower] for tower in order) for row in rows)
