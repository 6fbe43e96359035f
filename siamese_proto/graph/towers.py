"""Towers: copies of a part of a net, detected by what they share and how they are built.

Names are not used: published nets have `_p`, `_b`, `_left`, or no system at all.
"""

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

    The layers of a row have the same type and the same place in their towers, and none depends on another. Rows are
    in the order they run. A row may share all, some or none of its parameters.
    """

    rows: tuple[Row, ...]

    @property
    def count(self) -> int:
        """The number of towers, two or more."""
        return len(self.rows[0])

    def tower(self, index: int) -> tuple[Node, ...]:
        """Return the layers of one tower, in the order they run."""
        return tuple(row[index] for row in self.rows)

    @property
    def shares_any(self) -> bool:
        """Whether at least one parameter is used by every tower."""
        return any(shared for row in self.rows for shared in shared_blobs(row))

    @property
    def shares_all(self) -> bool:
        """Whether the towers share all their parameters, so that they compute the same function."""
        return all(shared for row in self.rows for shared in shared_blobs(row))


def compared_features(node: Node) -> tuple[Blob, ...]:
    """Return the features that a pair or triplet loss, a distance or a difference compares; empty for other layers."""
    if node.type == "Eltwise":
        signs = {coefficient > 0 for coefficient in node.message.eltwise_param.coeff}
        return node.bottoms if len(node.bottoms) == 2 and len(signs) == 2 else ()
    count = _FEATURE_COUNTS.get(node.type, 0)
    return node.bottoms[:count] if len(node.bottoms) >= count else ()


def shared_blobs(row: Row) -> tuple[bool, ...]:
    """Return for each parameter blob of the row's layers whether all of them use the same tensor."""
    count = max(len(node.params) for node in row)
    return tuple(
        all(index < len(node.params) for node in row) and len({node.params[index].param.id for node in row}) == 1
        for index in range(count)
    )


def find_towers(graph: Graph) -> tuple[Towers, ...]:
    """Return the groups of towers in the graph, in the order they run; no layer is in two groups.

    A group starts at layers that share a parameter, those with the most users first, and grows towards the inputs and
    the outputs while all towers have the same layers. If nothing is shared by name, towers that start at different
    inputs, are built alike, and meet in one layer form a group too (a twin whose weights were copied). They may start
    at the same input if that layer is a loss of pairs or triplets, or a distance.
    """
    wiring = _Wiring(graph)
    groups: list[list[Row]] = []
    used: set[str] = set()
    seeds = [(row, None) for row in _shared_seeds(graph)]
    for seed, meeting in [*seeds, *_structural_seeds(graph, wiring)]:
        rows = _grow(seed, wiring, used, alike=meeting is not None)
        if not rows or (meeting is not None and not _from_different_inputs(rows, wiring, meeting)):
            continue
        used.update(node.id for row in rows for node in row)
        groups.append(rows)
    place = graph.order
    ordered = [sorted(rows, key=lambda row: min(place[node.id] for node in row)) for rows in groups]
    ordered.sort(key=lambda rows: min(place[node.id] for node in rows[0]))
    return tuple(Towers(_in_file_order(rows, place)) for rows in ordered)


class _Wiring:
    """The producer and the readers of each blob, and which layers depend on which."""

    def __init__(self, graph: Graph) -> None:
        self.producer: dict[str, tuple[Node, int]] = {}
        self.readers: defaultdict[str, list[Node]] = defaultdict(list)
        self._bit: dict[str, int] = {}
        self._before: dict[str, int] = {}  # the set of layers that a layer depends on, one bit each
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
        """Return whether this layer or one that it depends on has parameters."""
        return bool((self._bit[node.id] | self._before[node.id]) & self._learning)

    def parallel(self, row: Row) -> bool:
        """Return whether these are different layers that do not depend on one another."""
        members = 0
        for node in row:
            members |= self._bit[node.id]
        return members.bit_count() == len(row) and not any(self._before[node.id] & members for node in row)

    def makers(self, blobs: Sequence[Blob]) -> Row | None:
        """Return the layers that compute these blobs, if each blob is the same top of its layer; else None."""
        producers = [self.producer[blob.id] for blob in blobs if blob.id in self.producer]
        if len(producers) < len(blobs) or len({place for _, place in producers}) != 1:
            return None
        return tuple(node for node, _ in producers)


def _shared_seeds(graph: Graph) -> list[Row]:
    users: defaultdict[tuple[str, str, int], list[Node]] = defaultdict(list)
    for node in graph.nodes:
        for index, use in enumerate(node.params):
            users[(use.param.id, node.type, index)].append(node)
    rows = [tuple(nodes) for nodes in users.values() if len(nodes) > 1]
    # The most users first: two of three towers may share more names than all three do.
    return sorted(rows, key=len, reverse=True)


def _structural_seeds(graph: Graph, wiring: _Wiring) -> Iterator[tuple[Row, Node]]:
    """Yield layers that meet in one layer, and that layer."""
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
    """Return whether two layers are built alike: type, settings, number of bottoms, shapes of parameters and tops."""

    def key(node: Node) -> tuple[object, ...]:
        return (
            node.type,
            node.layer.describe() if node.layer else "",
            len(node.bottoms),
            [top.shape for top in node.tops],
            [use.shape for use in node.params],
        )

    return key(first) == key(other)


def _grow(seed: Row, wiring: _Wiring, used: set[str], *, alike: bool) -> list[Row]:
    """Return the rows reached from the seed; `alike` requires equal settings, for layers that share no name."""
    rows: list[Row] = []
    tower_of: dict[str, int] = {}
    waiting = [seed]
    while waiting:
        row = waiting.pop(0)
        if not _is_row(row, wiring, used, tower_of, alike=alike):
            continue
        rows.append(row)
        tower_of.update({node.id: tower for tower, node in enumerate(row)})
        below = (wiring.makers(bottoms) for bottoms in zip(*(node.bottoms for node in row), strict=True))
        waiting.extend(makers for makers in below if makers is not None)
        if not alike:
            waiting.extend(_rows_after(row, wiring))
    return rows


def _is_row(row: Row, wiring: _Wiring, used: set[str], tower_of: Mapping[str, int], *, alike: bool) -> bool:
    if any(node.id in used or node.id in tower_of or not node.bottoms for node in row):
        return False
    first = row[0]
    same = all(built_alike(first, node) if alike else node.type == first.type for node in row)
    if not same or len({len(node.bottoms) for node in row}) != 1 or not wiring.parallel(row):
        return False
    for tower, node in enumerate(row):
        for bottom in node.bottoms:
            maker = wiring.producer.get(bottom.id)
            if maker and tower_of.get(maker[0].id, tower) != tower:
                return False  # it reads another tower: the towers meet here
    return True


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
    """Return whether every tower reads other blobs (the two paths of a block read the same) and some have parameters.

    Towers that are compared may read the same blob, which is a mistake in one of them.
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
                return False  # two parts of one net, such as the paths of a residual block
    return any(node.params for row in rows for node in row)


def _in_file_order(rows: Sequence[Row], place: Mapping[str, int]) -> tuple[Row, ...]:
    """Return the rows with the towers in the order of their first layers in the file."""
    order = sorted(range(len(rows[0])), key=lambda tower: min(place[row[tower].id] for row in rows))
    return tuple(tuple(row[tower] for tower in order) for row in rows)
