"""Warn about losses and distances of pairs and triplets whose bottoms cannot be the features of their towers."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from siamese_proto.check.findings import LayerWarning
from siamese_proto.check.wiring import has_gap
from siamese_proto.errors import quoted
from siamese_proto.graph.ir import Graph, Node
from siamese_proto.graph.towers import Towers, compared_features

PAIR_LOSSES = ("ContrastiveLoss",)
# Other layers that compare features, and the names of their bottoms. Less is certain than for the loss of a pair: two
# bottoms may be slices of one tower's output, and a distance may be taken within a tower.
_COMPARED = {
    "TripletLoss": ("anchor", "positive", "negative"),
    "Distance": ("first bottom", "second bottom"),
}
_ONE_EACH = "use one of each tower"
Tower = tuple[int, int]  # a group of towers, and the tower in it
Problem = tuple[int, str]  # the index of a bottom, and the text


def wrong_pairs(graph: Graph, towers: Sequence[Towers]) -> Iterator[LayerWarning]:
    """Yield a warning for each comparison whose bottoms are not the outputs of one layer in each of its towers.

    For losses of pairs these are the first two bottoms. For triplets and distances only certain mistakes are reported.
    """
    compared = [node for node in graph.nodes if node.layer is not None]  # layers with errors are reported as such
    needs_ancestors = any(node.type in (*PAIR_LOSSES, *_COMPARED) for node in compared)
    ancestors = _Ancestors(graph, towers) if needs_ancestors else None
    for node in compared:
        problem = None
        if ancestors is not None and node.type in PAIR_LOSSES and len(node.bottoms) == 3:
            problem = _same_blob(node) or ancestors.problem_of_pair(node)
        elif ancestors is not None and len(node.bottoms) == len(_COMPARED.get(node.type, ())):
            problem = ancestors.problem_of_comparison(node) if node.bottoms else None
        else:
            problem = _always_zero(node)
        if problem:
            index, text = problem
            yield LayerWarning(node, f"bottom[{index}]", "pair-bottoms", text)


def _same_blob(node: Node) -> Problem | None:
    first, second, label = node.bottoms
    if first.id == second.id:
        return 1, f"both features are {quoted(first.name)}, so all distances are 0; {_ONE_EACH}"
    if label.id in (first.id, second.id):
        return 2, f"the label {quoted(label.name)} is also one of the features; use the labels of the pairs"
    return None


def _always_zero(node: Node) -> Problem | None:
    """Return a problem for the difference of a blob and itself, and for a loss that compares a blob with itself."""
    if len(node.bottoms) != 2 or node.bottoms[0].id != node.bottoms[1].id:
        return None
    both = f"both bottoms are {quoted(node.bottoms[0].name)}"
    if compared_features(node):
        return 1, f"{both}, so their difference is always 0; {_ONE_EACH}"
    if node.is_loss:
        return 1, f"{both}; use a prediction and a label"
    return None


class _Ancestors:
    """For each blob, the blobs it is computed from and the towers that it passes through."""

    def __init__(self, graph: Graph, towers: Sequence[Towers]) -> None:
        place: Mapping[str, tuple[int, int, int]] = {
            node.id: (group, row_index, tower)
            for group, of_group in enumerate(towers)
            for row_index, row in enumerate(of_group.rows)
            for tower, node in enumerate(row)
        }
        self.has_towers = bool(towers)
        self.row: dict[str, tuple[int, int]] = {}  # group and row of the layer that computes a blob
        self.towers: dict[str, frozenset[Tower]] = {}
        self.before: dict[str, int] = {}  # the blobs that it depends on and itself, one bit each
        self.bit: dict[str, int] = {}
        self._uncertain: set[str] = set()  # blobs that depend on a layer with a gap
        for node in graph.nodes:
            passed = frozenset[Tower]().union(*(self.towers.get(blob.id, frozenset()) for blob in node.bottoms))
            before = 0
            if has_gap(node) or any(blob.id in self._uncertain for blob in node.bottoms):
                self._uncertain.update(top.id for top in node.tops)
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

    def problem_of_pair(self, node: Node) -> Problem | None:
        """Return what is wrong with the bottoms of a loss of pairs."""
        first, second, label = (blob.id for blob in node.bottoms)
        names = [quoted(blob.name) for blob in node.bottoms]
        if any(blob not in self.before or blob in self._uncertain for blob in (first, second, label)):
            return None  # after a layer with errors
        # Towers that both features pass through may start at a Slice of the records, and the labels come from it too.
        if self.towers[label] and not self.towers[label] & self.towers[first] & self.towers[second]:
            return 2, f"the label {names[2]} is computed by a tower; the bottoms must be feature, feature, label"
        if self.before[second] & self.bit[first] or self.before[first] & self.bit[second]:
            inner, outer = (0, 1) if self.before[second] & self.bit[first] else (1, 0)
            text = f"the feature {names[outer]} is computed from the other feature, {names[inner]}; {_ONE_EACH}"
            return outer, text
        one, other = self.towers[first], self.towers[second]
        if len(one) == 1 and one == other:
            return 1, f"the features {names[0]} and {names[1]} come from the same tower; {_ONE_EACH}"
        if self.has_towers and bool(one) != bool(other):
            index = 0 if not one else 1
            text = f"the feature {names[index]} comes from no tower, but {names[1 - index]} does; {_ONE_EACH}"
            return index, text
        rows = self.row.get(first), self.row.get(second)
        if None not in rows and rows[0] != rows[1]:
            text = f"the features {names[0]} and {names[1]} are outputs of different layers of their towers"
            return 1, f"{text}; use the same layer of each"
        return None

    def problem_of_comparison(self, node: Node) -> Problem | None:
        """Return what is wrong with the bottoms of a loss of triplets or a distance."""
        roles = _COMPARED[node.type]
        for one, other in combinations(range(len(roles)), 2):
            first, second = node.bottoms[one], node.bottoms[other]
            if first.id == second.id:
                both = f"the {roles[one]} and the {roles[other]} are both {quoted(first.name)}"
                return other, f"{both}, so their distance is always 0; {_ONE_EACH}"
            if self._at_different_places(first.id, second.id):
                both = f"the {roles[one]} {quoted(first.name)} and the {roles[other]} {quoted(second.name)}"
                return other, f"{both} are outputs of different layers of their towers; use the same layer of each"
        return None

    def _at_different_places(self, first: str, second: str) -> bool:
        """Return whether two towers of one group compute these blobs in layers that are no counterparts."""
        one, other = self.row.get(first), self.row.get(second)
        if {first, second} & self._uncertain:
            return False
        towers = self.towers.get(first, frozenset()), self.towers.get(second, frozenset())
        if one is None or other is None or one[0] != other[0] or one == other:
            return False
        return len(towers[0]) == len(towers[1]) == 1 and towers[0] != towers[1]
