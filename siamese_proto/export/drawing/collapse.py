"""Identical towers drawn as one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from siamese_proto.export.drawing.boxes import Box, Output, Picture, Stack, Wire
from siamese_proto.graph.ir import Node
from siamese_proto.graph.towers import Row, Towers


def collapsed(shown: Picture) -> Picture:
    """The same picture with every group of identical towers as one tower.

    Towers are identical where they share all their parameters and have the same types, settings and shapes. What feeds
    each of them alone, and is alike too, goes with them.
    """
    groups = [group for group in shown.towers if group.shares_all and all(map(_alike, group.rows))]
    stacks: list[list[Row]] = []
    kept = [group for group in shown.towers if group not in groups]
    for group in groups:
        rows = list(group.rows)
        if all(_folded_alike(shown, row) for row in rows):
            stacks.append([*_feeding(shown, group), *rows])
        else:
            kept.append(group)
    first_of = {node.id: row[0] for rows in stacks for row in rows for node in row}
    if not first_of:
        return shown
    copies: defaultdict[str, list[Node]] = defaultdict(list)
    for box in shown.boxes:
        first = first_of.get(box.nodes[0].id)
        if first is not None and first is not box.nodes[0]:
            copies[first.id].extend(box.nodes)
    new_boxes = {
        box.nodes[0].id: replace(box, copies=tuple(copies[box.nodes[0].id]))
        for box in shown.boxes
        if first_of.get(box.nodes[0].id) in (None, box.nodes[0])
    }

    def moved(box: Box) -> Box:
        first = first_of.get(box.nodes[0].id, box.nodes[0])
        return new_boxes[first.id]

    return replace(
        shown,
        boxes=tuple(new_boxes.values()),
        wires=_joined_wires(
            replace(wire, source=moved(wire.source), target=moved(wire.target)) for wire in shown.wires
        ),
        outputs=_joined_outputs(replace(output, source=moved(output.source)) for output in shown.outputs),
        towers=tuple(kept),
        stacks=tuple(_stack(rows, new_boxes) for rows in stacks),
    )


def _stack(rows: Sequence[Row], boxes: Mapping[str, Box]) -> Stack:
    return Stack(tuple(boxes[row[0].id] for row in rows if row[0].id in boxes), len(rows[0]))


def _alike(row: Row) -> bool:
    return len({_looks(node) for node in row}) == 1


def _looks(node: Node) -> tuple[object, ...]:
    settings = node.layer.describe() if node.layer else ""
    shapes = tuple(blob.shape for blob in (*node.bottoms, *node.tops))
    return (node.type, settings, shapes, tuple(use.param.id for use in node.params), node.phases, node.loss_weights)


def _folded_alike(shown: Picture, row: Row) -> bool:
    """Whether the row's layers all begin boxes of as many layers, or all stand in boxes of others."""
    boxes = [shown.begins.get(node.id) for node in row]
    return len({len(box.nodes) if box else 0 for box in boxes}) == 1


def _feeding(shown: Picture, group: Towers) -> Iterator[Row]:
    """Rows of boxes without bottoms, each of which feeds one tower and nothing else."""
    tower_of = {node.id: number for number in range(group.count) for node in group.tower(number)}
    feeds: defaultdict[str, set[int | None]] = defaultdict(set)
    makers: defaultdict[tuple[str, int], Box] = defaultdict()
    for wire in shown.wires:
        feeds[wire.source.id].add(tower_of.get(wire.target.nodes[0].id))
        makers[wire.target.id, wire.bottom] = wire.source
    found: dict[str, None] = {}
    for row in group.rows:
        if row[0].id not in shown.begins:
            continue
        for index in range(len(row[0].bottoms)):
            boxes = [makers.get((shown.begins[node.id].id, index)) for node in row]
            sources = [box for box in boxes if box is not None and not box.nodes[0].bottoms]
            if len({box.id for box in sources}) != group.count or sources[0].id in found:
                continue
            alone = all(feeds[box.id] == {number} for number, box in enumerate(sources))
            if alone and _alike(tuple(box.nodes[0] for box in sources)):
                found[sources[0].id] = None
                yield tuple(box.nodes[0] for box in sources)


def _joined_wires(wires: Iterator[Wire]) -> tuple[Wire, ...]:
    joined: dict[tuple[object, ...], Wire] = {}
    for number, wire in enumerate(wires):
        # wires between boxes that stand for one layer each stay apart, however many there are
        top = wire.top if wire.source.copies else None
        bottom = wire.bottom if wire.target.copies else None
        key = (wire.source.id, wire.target.id, top, bottom, number if top is bottom is None else None)
        if key in joined:
            blobs = dict.fromkeys((*joined[key].blobs, *wire.blobs))
            joined[key] = replace(joined[key], blobs=tuple(blobs))
        else:
            joined[key] = wire
    return tuple(joined.values())


def _joined_outputs(outputs: Iterator[Output]) -> tuple[Output, ...]:
    joined: dict[tuple[str, object], Output] = {}
    for output in outputs:
        key = (output.source.id, None if output.source.copies else output.blobs)
        joined[key] = replace(output, blobs=(*joined[key].blobs, *output.blobs)) if key in joined else output
    return tuple(joined.values())
