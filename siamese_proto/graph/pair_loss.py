"""Losses of pairs that are fed with what cannot be the two towers' features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from siamese_proto.errors import quoted
from siamese_proto.graph.ir import Finding, Graph, Node
from siamese_proto.graph.place import Place, warning
from siamese_proto.graph.twins import Towers

PAIR_LOSSES = ("ContrastiveLoss",)
_CODE = "pair-bottoms"
Towered = tuple[int, int]  # a group of towers, and the tower in it


def wrong_pairs(graph: Graph, towers: Sequence[Towers], place: Place) -> Iterator[Finding]:
    """A finding for each loss of pairs whose first two bottoms are not the same layer's output of two towers."""
    losses = [node for node in graph.nodes if node.type in PAIR_LOSSES and len(node.bottoms) == 3]
    if not losses:
        return
    wiring = _Ancestors(graph, towers)
    for node in losses:
        problem = _same_blob(node) or wiring.told(node)
        if problem:
            index, text = problem
            yield warning(node, place(node, f"bottom[{index}]"), _CODE, text)


def _same_blob(node: Node) -> tuple[int, str] | None:
    first, second, label = node.bottoms
    if first.id == second.id:
        text = f"both its features are {quoted(first.name)}, so all distances are 0; give one of each tower"
        return 1, text
    if label.id in (first.id, second.id):
        return 2, f"its label is {quoted(label.name)}, which is one of its features; give the labels of the pairs"
    return None


class _Ancestors:
    """For each blob: the blobs it is computed from, and the towers it passes."""

    def __init__(self, graph: Graph, towers: Sequence[Towers]) -> None:
        place: Mapping[str, tuple[int, int, int]] = {
            node.id: (group, row_index, tower)
            for group, found in enumerate(towers)
            for row_index, row in enumerate(found.rows)
            for tower, node in enumerate(row)
        }
        self.there_are_towers = bool(towers)
        self.row: dict[str, tuple[int, int]] = {}  # group and row of the layer that makes a blob
        self.towers: dict[str, frozenset[Towered]] = {}
        self.before: dict[str, int] = {}  # the set of blobs it depends on, itself included, one bit each
        self.bit: dict[str, int] = {}
        for node in graph.nodes:
            passed = frozenset[Towered]().union(*(self.towers.get(blob.id, frozenset()) for blob in node.bottoms))
            before = 0
            for blob in node.bottoms:
                before |= self.before.get(blob.id, 0)
            if node.id in place:
                group, row, tower = place[node.id]
                passed |= {(group, tower)}
                self.row.update({top.id: (group, row) for top in node.tops})
            for top in node.tops:
                self.bit[top.id] = 1 << len(self.bit)
                self.before[top.id] = before | self.bit[top.id]
                self.towers[top.id] = passed

    def told(self, node: Node) -> tuple[int, str] | None:
        """What is wrong with the bottoms of a loss, and with which of them."""
        first, second, label = (blob.id for blob in node.bottoms)
        names = [quoted(blob.name) for blob in node.bottoms]
        if any(blob not in self.before for blob in (first, second, label)):
            return None  # behind a layer at fault
        if self.towers[label] and not self.towers[label] & self._inputs_of(first, second):
            return 2, f"its label {names[2]} is computed by a tower; the order is feature, feature, label"
        if self.before[second] & self.bit[first] or self.before[first] & self.bit[second]:
            inner, outer = (0, 1) if self.before[second] & self.bit[first] else (1, 0)
            return (
                outer,
                f"its feature {names[outer]} is computed from its other one, {names[inner]}; give one of each tower",
            )
        one, other = self.towers[first], self.towers[second]
        if len(one) == 1 and one == other:
            return 1, f"its features {names[0]} and {names[1]} come from the same tower; give one of each"
        if self.there_are_towers and bool(one) != bool(other):
            index = 0 if not one else 1
            return index, f"its feature {names[index]} comes from none of the towers that {names[1 - index]} comes from"
        rows = self.row.get(first), self.row.get(second)
        if None not in rows and rows[0] != rows[1]:
            return 1, f"its features {names[0]} and {names[1]} are made at different places of their towers"
        return None

    def _inputs_of(self, first: str, second: str) -> frozenset[Towered]:
        """Towers that both features pass: a Slice of the records is in both, and the labels may come through it."""
        return self.towers[first] & self.towers[second]
