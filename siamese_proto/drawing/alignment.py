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
    rows = [row for row in towers.rows if all(node.id in shown.begins for node in row)]
    for level, row in enumerate(rows):
        boxes = [shown.begins[node.id] for node in row]
        ids = [box.id for box in boxes]
        ties = [_tie(look, shown, left, right) for left, right in pairwise(boxes)]
        if towers.count % 2 == 0 and level in (0, len(rows) - 1):
            half = towers.count // 2
            ids.insert(half, _middle(figure, shown, boxes, f"middle_{number}_{level}"))
            ties.insert(half, ties[half - 1])
        _line_up(figure, ids, ties, f"tie-{number}-{level}", upwards=upwards)


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


def _middle(figure: graphviz.Digraph, shown: Picture, boxes: Sequence[Box], name: str) -> str:
    """An invisible point between the two towers in the middle, to keep what feeds and joins them in the middle too."""
    figure.node(name, style="invis", shape="point", width="0.01", height="0.01", label="")
    row = {box.id for box in boxes}
    sources = {wire.source.id for wire in shown.wires if wire.target.id in row}
    targets = {wire.target.id for wire in shown.wires if wire.source.id in row}
    if len(sources) == 1 and not sources & row:
        figure.edge(sources.pop(), name, style="invis", weight="20")
    if len(targets) == 1 and not targets & row:
        figure.edge(name, targets.pop(), style="invis", weight="20")
    return name
