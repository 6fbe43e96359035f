"""Towers side by side, layer beside layer, with ties between those that share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import graphviz

from siamese_proto.drawing.boxes import Box, Picture
from siamese_proto.drawing.contents import Look
from siamese_proto.graph.ir import Param
from siamese_proto.graph.twins import Row, Towers


def align(figure: graphviz.Digraph, look: Look, shown: Picture, towers: Towers, number: int, *, upwards: bool) -> None:
    """Put the boxes of a tower in one line and those of a row at one height, the first tower leftmost or topmost.

    Boxes of a row that share parameters are joined by dashed ties in their colour.
    """
    for index in range(towers.count):
        for node in towers.tower(index):
            if node.id in shown.begins:
                figure.node(shown.begins[node.id].id, group=f"tower_{number}_{index}")
    rows = [
        [shown.begins[node.id] for node in row] for row in towers.rows if all(node.id in shown.begins for node in row)
    ]
    spine = towers.count % 2 == 0  # between the two towers in the middle, to keep what feeds and joins them there too
    for level, boxes in enumerate(rows):
        ids = [box.id for box in boxes]
        ties = [_tie(look, shown, left, right) for left, right in pairwise(boxes)]
        if spine:
            half = towers.count // 2
            ids.insert(half, _middle(figure, f"middle_{number}_{level}"))
            ties.insert(half, ties[half - 1])
        _line_up(figure, ids, ties, f"tie-{number}-{level}", upwards=upwards)
    if spine and rows:
        _hang(figure, shown, rows, [f"middle_{number}_{level}" for level in range(len(rows))])


def _line_up(
    figure: graphviz.Digraph, ids: Sequence[str], ties: Sequence[dict[str, str]], name: str, *, upwards: bool
) -> None:
    pairs = [(*pair, tie) for pair, tie in zip(pairwise(ids), ties, strict=True)]
    if upwards:  # what goes from left to right goes from the bottom to the top in a drawing that lies down
        pairs = [(right, left, tie) for left, right, tie in reversed(pairs)]
    with figure.subgraph() as same:
        same.attr("graph", rank="same")
        for place, (left, right, tie) in enumerate(pairs):
            named = {"id": f"{name}-{place}"} if "class" in tie else {}
            same.edge(left, right, **named, **tie)


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


def _hang(figure: graphviz.Digraph, shown: Picture, rows: Sequence[Sequence[Box]], middle: Sequence[str]) -> None:
    """Points that one does not see, in line with the box that feeds the towers and the one that joins them."""
    first, last = ({box.id for box in rows[end]} for end in (0, -1))
    sources = {wire.source.id for wire in shown.wires if wire.target.id in first} - first
    targets = {wire.target.id for wire in shown.wires if wire.source.id in last} - last
    line = [*(sources if len(sources) == 1 else ()), *middle, *(targets if len(targets) == 1 else ())]
    for above, below in pairwise(line):
        figure.edge(above, below, style="invis", weight="400")
