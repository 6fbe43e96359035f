"""Warn about layers of a tower whose bottoms do not fit those of the same layers in other towers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, product

from siamese_proto.check.findings import LayerWarning
from siamese_proto.check.wiring import has_gap
from siamese_proto.errors import did_you_mean, quoted
from siamese_proto.graph.ir import Blob, Graph, Node
from siamese_proto.graph.towers import Row, Towers, built_alike, compared_features
from siamese_proto.proto import schema

# Number of layers, at most, that one tower may have between two layers and another may lack.
_MOST_LEFT_OUT = 4


def wrong_inputs(graph: Graph, towers: Sequence[Towers]) -> Iterator[LayerWarning]:
    """Yield a warning for each layer of a tower that reads another blob than its counterparts suggest.

    Either no layer reads the blob that it should read, or a layer before it is missing. If a layer with errors has lost
    a bottom, a blob that no layer reads is most likely that bottom.
    """
    if not towers:
        return
    wiring = _TowerWiring(graph, towers)
    is_complete = not any(has_gap(node) for node in graph.nodes)
    shares_any = any(group.shares_any for group in towers)
    for group in towers:
        rules = [*([_unread] if is_complete else []), *([_missing_layer] if group.shares_any else [])]
        for row in group.rows:
            for index, rule in product(range(len(row[0].bottoms)), rules):
                for tower, others in _compared(row, index):
                    warnings = (rule(wiring, row, index, tower, other) for other in others)
                    yield from islice((warning for warning in warnings if warning is not None), 1)
    for node in graph.nodes if shares_any else ():
        features = compared_features(node)
        for (index, feature), other in product(enumerate(features), features):
            extra = wiring.extra_layer(feature, other, wiring.row_of(feature)[1])
            if extra is not None:
                yield _no_counterpart(node, index, extra, "the feature of another tower")


def _compared(row: Row, index: int) -> Iterator[tuple[int, Sequence[int]]]:
    """Yield each tower with at most two towers to compare it with, because there may be a thousand.

    These are the first other tower and the first one that reads the same blob.
    """
    readers: dict[str, list[int]] = {}
    for tower, node in enumerate(row):
        readers.setdefault(node.bottoms[index].id, []).append(tower)
    for tower, node in enumerate(row):
        first = 1 if tower == 0 else 0
        same = [other for other in readers[node.bottoms[index].id][:2] if other not in (tower, first)]
        yield tower, [first, *same[:1]]


def _unread(wiring: _TowerWiring, row: Row, index: int, tower: int, other: int) -> LayerWarning | None:
    """Return a warning if no layer reads the blob that a layer should read, like its counterpart in another tower."""
    bottom, other_bottom = row[tower].bottoms[index], row[other].bottoms[index]
    is_same = bottom.id == other_bottom.id
    expected = wiring.counterpart(other_bottom, other, tower)
    if expected is None and is_same:
        expected = wiring.sibling(other_bottom, row, tower)
    if expected is None or wiring.is_read(expected):
        return None
    name = quoted(row[other].name)
    compared = f"as layer {name} does" if is_same else f"where layer {name} reads {quoted(other_bottom.name)}"
    text = (
        f"reads {quoted(bottom.name)}, {compared}, and no layer reads {quoted(expected.name)}; "
        f"should it read {quoted(expected.name)}?"
    )
    return LayerWarning(row[tower], f"bottom[{index}]", "unread-input", text)


def _missing_layer(wiring: _TowerWiring, row: Row, index: int, tower: int, other: int) -> LayerWarning | None:
    """Return a warning if another tower has an additional layer before the counterpart of a layer."""
    extra = wiring.extra_layer(row[tower].bottoms[index], row[other].bottoms[index], tower)
    if extra is None:
        return None
    return _no_counterpart(row[tower], index, extra, f"which layer {quoted(row[other].name)} reads")


def _no_counterpart(node: Node, index: int, extra: Node, use: str) -> LayerWarning:
    text = (
        f"reads {quoted(node.bottoms[index].name)}, but another tower has layer {quoted(extra.name)} of type "
        f"{extra.type} there; it computes {quoted(extra.tops[0].name)}, {use}, so the towers compute different "
        "functions"
    )
    return LayerWarning(node, f"bottom[{index}]", "unlike-towers", text)


class _TowerWiring:
    """Which layer computes each blob, and its place in the towers."""

    def __init__(self, graph: Graph, towers: Sequence[Towers]) -> None:
        self._producer: Mapping[str, tuple[Node, int]] = {
            top.id: (node, index) for node in graph.nodes for index, top in enumerate(node.tops)
        }
        self._read = {bottom.id for node in graph.nodes for bottom in node.bottoms}
        self._row: Mapping[str, tuple[Row, int]] = {
            node.id: (row, tower) for group in towers for row in group.rows for tower, node in enumerate(row)
        }
        self._nodes = graph.nodes

    def is_read(self, blob: Blob) -> bool:
        """Return whether any layer reads a blob, in this version."""
        return blob.id in self._read

    def row_of(self, blob: Blob) -> tuple[Row, int]:
        """Return the row of the layer that computes a blob, and its tower; an empty row if it is in no tower."""
        producer, _ = self._producer.get(blob.id, (None, 0))
        return self._row.get(producer.id, ((), -1)) if producer is not None else ((), -1)

    def counterpart(self, blob: Blob, tower: int, other: int) -> Blob | None:
        """Return the output of another tower that corresponds to a blob of this tower."""
        row, its_tower = self.row_of(blob)
        index = self._producer[blob.id][1] if row else 0
        if its_tower != tower or other >= len(row) or index >= len(row[other].tops):
            return None
        return row[other].tops[index]

    def sibling(self, blob: Blob, row: Row, tower: int) -> Blob | None:
        """Return the input that a tower may be meant to read if all towers read `blob`.

        It is the input with the number of the tower, or one that no layer reads.
        """
        if self.row_of(blob)[0]:
            return None
        inputs = self._inputs_like(blob)
        unread = [each for each in inputs if not self.is_read(each)]
        if len(inputs) != len(row):
            inputs = [each for each in inputs if each.id == blob.id or each in unread]
        number = next((index for index, each in enumerate(inputs) if each.id == blob.id), 0)
        if not unread or tower == (number if number < len(row) else 0):
            return None  # the tower that this input is for
        return inputs[tower] if tower < len(inputs) and inputs[tower] in unread else unread[0]

    def _inputs_like(self, blob: Blob) -> list[Blob]:
        """Return the tops of its layer that are like a blob, or of layers with the same structure; itself included."""
        producer, index = self._producer[blob.id]
        tops = [top for top in _images(producer, blob) if top.shape == blob.shape]
        if len(tops) > 1:
            return tops
        if producer.bottoms:
            return [node.tops[index] for node in self._nodes if built_alike(producer, node)]
        like = [node for node in self._nodes if not node.bottoms and node.type == producer.type]
        return [node.tops[index] for node in like if index < len(node.tops) and node.tops[index].shape == blob.shape]

    def extra_layer(self, blob: Blob, other_blob: Blob, tower: int) -> Node | None:
        """Return the first layer that another tower has between its counterpart of `blob` and `other_blob`."""
        for _ in range(_MOST_LEFT_OUT):
            extra, _ = self._producer.get(other_blob.id, (None, 0))
            if extra is None or extra.layer is None or len(extra.bottoms) != 1 or extra.id in self._row:
                return None
            other_blob = extra.bottoms[0]
            other = self.row_of(other_blob)[1]
            counterpart = self.counterpart(other_blob, other, tower) if other != tower else None
            if counterpart is not None and counterpart.id == blob.id:
                return extra
        return None


def _images(producer: Node, blob: Blob) -> Sequence[Blob]:
    """Return the tops that may be inputs of towers, by shape or, if shapes are unknown, by type and name."""
    if producer.type == "Slice" or all(top.shape is not None for top in producer.tops):
        return producer.tops
    if producer.type == "PairData" and len(producer.tops) > 2:
        is_triplet = producer.message.pair_data_param.tuple == schema.PairDataParameter.TRIPLET
        return producer.tops[: 3 if is_triplet else 2]
    return [top for top in producer.tops if top.id == blob.id or did_you_mean(blob.name, [top.name])]
