"""Losses and distances of pairs and triplets that are fed with what cannot be their towers' features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from siamese_proto.check.faults import has_gap
from siamese_proto.check.place import Place, warning
from siamese_proto.errors import quoted
from siamese_proto.graph.ir import Finding, Graph, Node
from siamese_proto.graph.towers import Towers, compared_features

PAIR_LOSSES = ("ContrastiveLoss",)
# What else compares features, and what its bottoms are called. Less is certain of these than of a pair's loss: two of
# them may be slices of one tower's output, and a distance may be taken within a tower.
_COMPARED = {
    "TripletLoss": ("anchor", "positive", "negative"),
    "Distance": ("first bottom", "second bottom"),
}
_CODE = "pair-bottoms"
Towered = tuple[int, int]  # a group of towers, and the tower in it


def wrong_pairs(graph: Graph, towers: Sequence[Towers], place: Place) -> Iterator[Finding]:
    """A finding for each comparison whose bottoms are not the same layer's output of its towers.

    Of losses of pairs the first two bottoms are; of triplets and distances only what cannot be meant is reported.
    """
    compared = [node for node in graph.nodes if node.layer is not None]  # of one at fault that is reported
    wiring = _Ancestors(graph, towers) if any(node.type in (*PAIR_LOSSES, *_COMPARED) for node in compared) else None
    for node in compared:
        if wiring is None:
            problem = _always_zero(node)
        elif node.type in PAIR_LOSSES and len(node.bottoms) == 3:
            problem = _same_blob(node) or wiring.told(node)
        elif len(node.bottoms) == len(_COMPARED.get(node.type, ())):
            problem = wiring.told_of_join(node) if node.bottoms else None
        else:
            problem = _always_zero(node)
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


def _always_zero(node: Node) -> tuple[int, str] | None:
    """A difference of a blob and itself, or a loss that compares a blob with itself."""
    if len(node.bottoms) != 2 or node.bottoms[0].id != node.bottoms[1].id:
        return None
    both = f"both its bottoms are {quoted(node.bottoms[0].name)}"
    if compared_features(node):
        return 1, f"{both}, so their difference is always 0; give one of each tower"
    if node.layer is not None and node.layer.is_loss:
        return 1, f"{both}; give a prediction and a label"
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
        self._doubtful: set[str] = set()  # blobs that a layer with a gap has a part in
        for node in graph.nodes:
            passed = frozenset[Towered]().union(*(self.towers.get(blob.id, frozenset()) for blob in node.bottoms))
            before = 0
            if has_gap(node) or any(blob.id in self._doubtful for blob in node.bottoms):
                self._doubtful.update(top.id for top in node.tops)
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
        if any(blob not in self.before or blob in self._doubtful for blob in (first, second, label)):
            return None  # after a layer at fault
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

    def told_of_join(self, node: Node) -> tuple[int, str] | None:
        """What is wrong with the bottoms of a triplet's loss or a distance, and with which of them."""
        roles = _COMPARED[node.type]
        for one, other in combinations(range(len(roles)), 2):
            first, second = node.bottoms[one], node.bottoms[other]
            both = f"its {roles[one]} and its {roles[other]}"
            if first.id == second.id:
                return other, f"{both} are {quoted(first.name)}, so their distance is always 0; give one of each tower"
            if self._at_different_places(first.id, second.id):
                names = f"{quoted(first.name)} and {quoted(second.name)}"
                return other, f"{both}, {names}, are made at different places of their towers"
        return None

    def _at_different_places(self, first: str, second: str) -> bool:
        """Whether two towers of one group make these blobs in layers that are no counterparts."""
        one, other = self.row.get(first), self.row.get(second)
        if {first, second} & self._doubtful:
            return False
        towers = self.towers.get(first, frozenset()), self.towers.get(second, frozenset())
        if one is None or other is None or one[0] != other[0] or one == other:
            return False
        return len(towers[0]) == len(towers[1]) == 1 and towers[0] != towers[1]

    def _inputs_of(self, first: str, second: str) -> frozenset[Towered]:
        """Towers that both features pass: a Slice of the records is in both, and the labels may come through it."""
        return self.towers[first] & self.towers[second]
