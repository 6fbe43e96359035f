"""Towers: side by side with ties between shared parameters, or identical ones drawn once."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, product

import graphviz

from siamese_proto.export.drawing.boxes import Box, Output, Picture, Stack, Wire
from siamese_proto.export.drawing.contents import Look
from siamese_proto.graph.ir import Node, Param
from siamese_proto.graph.towers import Row, Towers


def align(figure: graphviz.Digraph, look: Look, shown: Picture, towers: Towers, number: int, *, upwards: bool) -> None:
    """Align the boxes of a row, the first tower leftmost or topmost, and put a tower that is a chain in a line.

    Dashed lines in the color of a shared parameter connect adjacent boxes of a row.
    """
    rows = [
        [shown.begins[node.id] for node in row] for row in towers.rows if all(node.id in shown.begins for node in row)
    ]
    levels = _levels(shown, rows)
    spine = towers.count % 2 == 0  # between the two middle towers, so that their source and their join are centered
    middles = [_middle(figure, f"middle_{number}_{place}") if spine else None for place in range(len(levels))]
    for place, (level, middle) in enumerate(zip(levels, middles, strict=True)):
        if len(level) == 1:
            for index, box in enumerate(level[0]):
                figure.node(box.id, group=f"tower_{number}_{index}")
            _line_up(figure, look, shown, level[0], middle, f"tie-{number}-{place}", upwards=upwards)
        else:
            _part(figure, level, middle, upwards=upwards)
    if spine and levels:
        _hang(figure, shown, levels, [middle for middle in middles if middle])


def _levels(shown: Picture, rows: Sequence[Sequence[Box]]) -> list[list[Sequence[Box]]]:
    """Return the rows of each level: one for a chain, several if the towers have branches."""
    row_of = {box.id: place for place, row in enumerate(rows) for box in row}
    sources: dict[int, set[int]] = {place: set() for place in range(len(rows))}
    for wire in shown.wires:
        if wire.target.id in row_of and wire.source.id in row_of:
            sources[row_of[wire.target.id]].add(row_of[wire.source.id])
    depth: dict[int, int] = {}
    for place in range(len(rows)):
        depth[place] = 1 + max((depth[source] for source in sources[place] if source in depth), default=-1)
    levels: list[list[Sequence[Box]]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for place, row in enumerate(rows):
        levels[depth[place]].append(row)
    return levels


def _line_up(
    figure: graphviz.Digraph,
    look: Look,
    shown: Picture,
    row: Sequence[Box],
    middle: str | None,
    name: str,
    *,
    upwards: bool,
) -> None:
    ids = [box.id for box in row]
    ties = [_tie(look, shown, left, right) for left, right in pairwise(row)]
    if middle:
        half = len(row) // 2
        ids.insert(half, middle)
        ties.insert(half, ties[half - 1])
    pairs = [(*pair, tie) for pair, tie in zip(pairwise(ids), ties, strict=True)]
    if upwards:  # in a horizontal drawing, left to right becomes bottom to top
        pairs = [(right, left, tie) for left, right, tie in reversed(pairs)]
    with figure.subgraph() as same:
        same.attr("graph", rank="same")
        for place, (left, right, tie) in enumerate(pairs):
            named = {"id": f"{name}-{place}"} if "class" in tie else {}
            same.edge(left, right, **named, **tie)


def _part(figure: graphviz.Digraph, level: Sequence[Sequence[Box]], middle: str | None, *, upwards: bool) -> None:
    """Keep all boxes of a tower on one side of those of the next tower."""
    columns = [[box.id for box in column] for column in zip(*level, strict=True)]
    if middle:
        columns.insert(len(columns) // 2, [middle])
    if upwards:
        columns.reverse()
    with figure.subgraph() as same:
        same.attr("graph", rank="same")
        for left, right in pairwise(columns):
            for one, other in product(left, right):
                same.edge(one, other, style="invis")


def _tie(look: Look, shown: Picture, left: Box, right: Box) -> dict[str, str]:
    """Return the attributes of the line between two boxes: dashed if they share parameters, otherwise invisible."""
    shared = _shared(left.nodes, right.nodes)
    if not shared:
        return {"style": "invis"}
    numbers = [f"param-{shown.param_numbers[param.id]}" for param in shared]
    return {
        "style": "dashed",
        "color": shown.paints[shared[0].id].line,
        "penwidth": "1.4",
        "arrowhead": "none",
        "class": " ".join(("tie", *numbers)),
    }


def _shared(left: Row, right: Row) -> list[Param]:
    others = {use.param.id for node in right for use in node.params}
    return [use.param for node in left for use in node.params if use.param.id in others]


def _middle(figure: graphviz.Digraph, name: str) -> str:
    figure.node(name, style="invis", shape="point", width="0.01", height="0.01", label="")
    return name


def _hang(
    figure: graphviz.Digraph, shown: Picture, levels: Sequence[Sequence[Sequence[Box]]], middle: Sequence[str]
) -> None:
    """Put invisible points in line with the source of the towers and the box that joins them."""
    first, last = ({box.id for row in levels[end] for box in row} for end in (0, -1))
    sources = {wire.source.id for wire in shown.wires if wire.target.id in first} - first
    targets = {wire.target.id for wire in shown.wires if wire.source.id in last} - last
    line = [*(sources if len(sources) == 1 else ()), *middle, *(targets if len(targets) == 1 else ())]
    for above, below in pairwise(line):
        figure.edge(above, below, style="invis", weight="400")


def collapsed(shown: Picture) -> Picture:
    """Return the picture with every group of identical towers drawn once.

    Towers are identical if they share all parameters and have the same types, settings and shapes. Identical sources
    that each feed one tower are drawn with it.
    """
    groups = [group for group in shown.towers if group.shares_all and all(map(_is_identical, group.rows))]
    stacks: list[list[Row]] = []
    side_by_side = [group for group in shown.towers if group not in groups]
    for group in groups:
        rows = list(group.rows)
        if all(_is_folded_equally(shown, row) for row in rows):
            stacks.append([*_feeding(shown, group), *rows])
        else:
            side_by_side.append(group)
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

    def drawn_as(box: Box) -> Box:
        first = first_of.get(box.nodes[0].id, box.nodes[0])
        return new_boxes[first.id]

    return replace(
        shown,
        boxes=tuple(new_boxes.values()),
        wires=_joined_wires(
            replace(wire, source=drawn_as(wire.source), target=drawn_as(wire.target)) for wire in shown.wires
        ),
        outputs=_joined_outputs(replace(output, source=drawn_as(output.source)) for output in shown.outputs),
        towers=tuple(side_by_side),
        stacks=tuple(
            Stack(tuple(new_boxes[row[0].id] for row in rows if row[0].id in new_boxes), len(rows[0]))
            for rows in stacks
        ),
    )


def _is_identical(row: Row) -> bool:
    return len({_looks(node) for node in row}) == 1


def _looks(node: Node) -> tuple[object, ...]:
    settings = node.layer.describe() if node.layer else ""
    shapes = tuple(blob.shape for blob in (*node.bottoms, *node.tops))
    return (node.type, settings, shapes, tuple(use.param.id for use in node.params), node.phases, node.loss_weights)


def _is_folded_equally(shown: Picture, row: Row) -> bool:
    """Return whether all layers of the row start boxes of the same size, or all are in boxes of other layers."""
    boxes = [shown.begins.get(node.id) for node in row]
    return len({len(box.nodes) if box else 0 for box in boxes}) == 1


def _feeding(shown: Picture, group: Towers) -> Iterator[Row]:
    """Yield rows of boxes without bottoms that each feed only one tower."""
    tower_of = {node.id: number for number in range(group.count) for node in group.tower(number)}
    feeds: defaultdict[str, set[int | None]] = defaultdict(set)
    makers: defaultdict[tuple[str, int], Box] = defaultdict()
    for wire in shown.wires:
        feeds[wire.source.id].add(tower_of.get(wire.target.nodes[0].id))
        makers[wire.target.id, wire.bottom] = wire.source
    yielded: set[str] = set()
    for row in group.rows:
        if row[0].id not in shown.begins:
            continue
        for index in range(len(row[0].bottoms)):
            boxes = [makers.get((shown.begins[node.id].id, index)) for node in row]
            sources = [box for box in boxes if box is not None and not box.nodes[0].bottoms]
            if len({box.id for box in sources}) != group.count or sources[0].id in yielded:
                continue
            alone = all(feeds[box.id] == {number} for number, box in enumerate(sources))
            if alone and _is_identical(tuple(box.nodes[0] for box in sources)):
                yielded.add(sources[0].id)
                yield tuple(box.nodes[0] for box in sources)


def _joined_wires(wires: Iterator[Wire]) -> tuple[Wire, ...]:
    joined: dict[tuple[object, ...], Wire] = {}
    for number, wire in enumerate(wires):
        # wires between boxes that represent one layer each stay separate
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
