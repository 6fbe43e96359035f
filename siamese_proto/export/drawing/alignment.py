"""Towers side by side, layer beside layer, with ties between those that share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import graphviz

from siamese_proto.export.drawing.boxes import Box, Picture
from siamese_proto.export.drawing.contents import Look
from siamese_proto.graph.ir import Param
from siamese_proto.graph.towers import Row, Towers


def align(figure: graphviz.Digraph, look: Look, shown: Picture, towers: Towers, number: int, *, upwards: bool) -> None:
    """Put the boxes of a row at one height, the first tower leftmost or topmost, and a tower that is a chain in a line.

    Boxes of a row that share parameters are joined by dashed ties in their colour, where no others stand between them.
    """
    rows = [
        [shown.begins[node.id] for node in row] for row in towers.rows if all(node.id in shown.begins for node in row)
    ]
    levels = _levels(shown, rows)
    spine = towers.count % 2 == 0  # between the two towers in the middle, to keep what feeds and joins them there too
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
    """Rows that stand at one height, from the first: one of a chain, several where the towers have branches."""
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
    if upwards:  # what goes from left to right goes from the bottom to the top in a drawing that lies down
        pairs = [(right, left, tie) for left, right, tie in reversed(pairs)]
    with figure.subgraph() as same:
        same.attr("graph", rank="same")
        for place, (left, right, tie) in enumerate(pairs):
            named = {"id": f"{name}-{place}"} if "class" in tie else {}
            same.edge(left, right, **named, **tie)


def _part(figure: graphviz.Digraph, level: Sequence[Sequence[Box]], middle: str | None, *, upwards: bool) -> None:
    """Keep every box of a tower on one side of every box of the next, in whatever order each has its own."""
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
    """How the line between two boxes looks: a tie where they share, else none that one sees."""
    shared = _shared(left.nodes, right.nodes)
    if not shared:
        return {"style": "invis"}
    numbers = [f"param-{shown.param_numbers[param.id]}" for param in shared]
    colour = shown.paints[shared[0].id].line
    return {
        "style": "dashed",
        "color": colour,
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
    """Points that one does not see, in line with the box that feeds the towers and the one that joins them."""
    first, last = ({box.id for row in levels[end] for box in row} for end in (0, -1))
    sources = {wire.source.id for wire in shown.wires if wire.target.id in first} - first
    targets = {wire.target.id for wire in shown.wires if wire.source.id in last} - last
    line = [*(sources if len(sources) == 1 else ()), *middle, *(targets if len(targets) == 1 else ())]
    for above, below in pairwise(line):
        figure.edge(above, below, style="invis", weight="400")
