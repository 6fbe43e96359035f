"""Towers whose layers read something other than the same layers of the other towers do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from siamese_proto.check.faults import has_gap
from siamese_proto.check.place import Place, warning
from siamese_proto.errors import did_you_mean, quoted
from siamese_proto.graph.ir import Blob, Finding, Graph, Node
from siamese_proto.graph.towers import Row, Towers, built_alike, compared_features
from siamese_proto.proto import schema

# So many layers at most may stand between two layers of one tower and not of another.
_MOST_LEFT_OUT = 4


def wrong_reads(graph: Graph, towers: Sequence[Towers], place: Place) -> Iterator[Finding]:
    """A finding for each layer of a tower that does not read what its place in the tower asks for.

    Either what it should read is read by no layer, or a layer is left out before it. Where a layer at fault has lost
    a bottom, a blob that is not read is most likely that bottom.
    """
    if not towers:
        return
    wiring = _Wiring(graph, towers)
    complete = not any(has_gap(node) for node in graph.nodes)
    sharing = [group for group in towers if group.shares_any]
    for group in towers:
        for row in group.rows:
            for index in range(len(row[0].bottoms)):
                if complete:
                    yield from _unread(row, index, wiring, place)
                if group in sharing:
                    yield from _left_out(row, index, wiring, place)
    for node in graph.nodes if sharing else ():
        yield from _left_out_at_the_end(node, wiring, place)


def _unread(row: Row, index: int, wiring: _Wiring, place: Place) -> Iterator[Finding]:
    for tower, node, others in _compared(row, index):
        for other in others:
            twin = row[other]
            mine, its = node.bottoms[index], twin.bottoms[index]
            expected = wiring.counterpart(its, other, tower) or (mine.id == its.id and wiring.sibling(its, row, tower))
            if not expected or wiring.is_read(expected):
                continue
            same, name = mine.id == its.id, quoted(twin.name)
            compared = f"as layer {name} does" if same else f"where layer {name} reads {quoted(its.name)}"
            text = (
                f"reads {quoted(mine.name)}, {compared}, and {quoted(expected.name)} is read by no layer; "
                f"should it read {quoted(expected.name)}?"
            )
            yield warning(node, place(node, f"bottom[{index}]"), "unread-input", text)
            break


def _left_out(row: Row, index: int, wiring: _Wiring, place: Place) -> Iterator[Finding]:
    for tower, node, others in _compared(row, index):
        for other in others:
            twin = row[other]
            extra = wiring.extra_layer(node.bottoms[index], twin.bottoms[index], tower)
            if extra is not None:
                text = _has_no_counterpart(extra, f"which layer {quoted(twin.name)} reads", node.bottoms[index])
                yield warning(node, place(node, f"bottom[{index}]"), "unlike-towers", text)
                break


def _compared(row: Row, index: int) -> Iterator[tuple[int, Node, Sequence[int]]]:
    """Each layer of a row, with its tower and those to compare it with: not each of a thousand with each other.

    These are the first other tower and the first that reads the same blob.
    """
    readers: dict[str, list[int]] = {}
    for tower, node in enumerate(row):
        readers.setdefault(node.bottoms[index].id, []).append(tower)
    for tower, node in enumerate(row):
        first = 1 if tower == 0 else 0
        same = [other for other in readers[node.bottoms[index].id][:2] if other not in (tower, first)]
        yield tower, node, [first, *same[:1]]


def _left_out_at_the_end(node: Node, wiring: _Wiring, place: Place) -> Iterator[Finding]:
    features = compared_features(node)
    for index, mine in enumerate(features):
        for its in features:
            extra = wiring.extra_layer(mine, its, wiring.place(mine)[1])
            if extra is not None:
                text = _has_no_counterpart(extra, "the feature of another tower", mine)
                yield warning(node, place(node, f"bottom[{index}]"), "unlike-towers", text)


def _has_no_counterpart(extra: Node, where: str, mine: Blob) -> str:
    top = quoted(extra.tops[0].name)
    return (
        f"reads {quoted(mine.name)}, which lacks the counterpart of layer {quoted(extra.name)} of type {extra.type}; "
        f"that layer makes {top}, {where}, so the towers compute different functions"
    )


class _Wiring:
    """Who makes and who reads each blob, and which places in the towers that is."""

    def __init__(self, graph: Graph, towers: Sequence[Towers]) -> None:
        self._maker: Mapping[str, tuple[Node, int]] = {
            top.id: (node, index) for node in graph.nodes for index, top in enumerate(node.tops)
        }
        self._read = {bottom.id for node in graph.nodes for bottom in node.bottoms}
        self._place: Mapping[str, tuple[Row, int]] = {
            node.id: (row, tower) for group in towers for row in group.rows for tower, node in enumerate(row)
        }
        self._nodes = graph.nodes

    def is_read(self, blob: Blob) -> bool:
        """Whether any layer reads a blob, in the version that it is."""
        return blob.id in self._read

    def place(self, blob: Blob) -> tuple[Row, int]:
        """The row of the layer that makes a blob, and the tower in it; an empty row where it is in no tower."""
        maker, _ = self._maker.get(blob.id, (None, 0))
        return self._place.get(maker.id, ((), -1)) if maker is not None else ((), -1)

    def counterpart(self, blob: Blob, tower: int, other: int) -> Blob | None:
        """What the same layer of another tower makes of a blob that one tower makes."""
        row, made_by = self.place(blob)
        index = self._maker[blob.id][1] if row else 0
        if made_by != tower or other >= len(row) or index >= len(row[other].tops):
            return None
        return row[other].tops[index]

    def sibling(self, blob: Blob, row: Row, tower: int) -> Blob | None:
        """What a tower may be meant to read where all read one blob: the one of its place, or one that is not read."""
        if self.place(blob)[0]:
            return None
        inputs = self._inputs_like(blob)
        unread = [each for each in inputs if not self.is_read(each)]
        if len(inputs) != len(row):
            inputs = [each for each in inputs if each.id == blob.id or each in unread]
        place = next((index for index, each in enumerate(inputs) if each.id == blob.id), 0)
        if not unread or tower == (place if place < len(row) else 0):
            return None  # the tower that this input is for
        return inputs[tower] if tower < len(inputs) and inputs[tower] in unread else unread[0]

    def _inputs_like(self, blob: Blob) -> list[Blob]:
        """The tops of its maker that are like a blob, or of layers built like its maker; itself included."""
        maker, index = self._maker[blob.id]
        tops = [top for top in _images(maker, blob) if top.shape == blob.shape]
        if len(tops) > 1:
            return tops
        if maker.bottoms:
            return [node.tops[index] for node in self._nodes if built_alike(maker, node)]
        like = [node for node in self._nodes if not node.bottoms and node.type == maker.type]
        return [node.tops[index] for node in like if index < len(node.tops) and node.tops[index].shape == blob.shape]

    def extra_layer(self, mine: Blob, its: Blob, tower: int) -> Node | None:
        """The first of the layers that another tower has between its counterpart of `mine` and `its`."""
        blob, extra = its, None
        for _ in range(_MOST_LEFT_OUT):
            maker, _ = self._maker.get(blob.id, (None, 0))
            if maker is None or maker.layer is None or len(maker.bottoms) != 1 or maker.id in self._place:
                return None
            blob, extra = maker.bottoms[0], maker
            other = self.place(blob)[1]
            counterpart = self.counterpart(blob, other, tower) if other != tower else None
            if counterpart is not None and counterpart.id == mine.id:
                return extra
        return None


def _images(maker: Node, blob: Blob) -> Sequence[Blob]:
    """The tops that may hold what towers read: by their shapes, or as far as these are unknown, by type and name."""
    if maker.type == "Slice" or all(top.shape is not None for top in maker.tops):
        return maker.tops
    if maker.type == "PairData" and len(maker.tops) > 2:
        return maker.tops[: 3 if maker.message.pair_data_param.tuple == schema.PairDataParameter.TRIPLET else 2]
    return [top for top in maker.tops if top.id == blob.id or did_you_mean(blob.name, [top.name])]
