"""From a graph to DOT text.

What stands in an SVG made by `render` or `to_svg` can be found by its id and class; they hold numbers, never a name from
the file. The numbers are places in the graph that is drawn, which `drawn_graph` gives for the same options:

- `layer-3`: node 3 of `nodes`. A box is `<g id="layer-3" class="node layer layer-3 layer-4 param-0 param-1">`: its id
  is its first layer's, its classes name every layer in it (those that work in place follow their producer; of
  collapsed towers the layers of all towers) and every parameter that they use.
- `param-0`: parameter 0 of `params`. Inside a box each parameter is a `<g class="chip param-0">`, shared or not.
- `blob-5`: blob 5 of the blobs in the order they are made, each once (`blob_numbers`). A wire is
  `<g id="wire-7" class="edge wire blob-5">`, a label's with `label` as well. Outputs are `<g id="output-0" class="node
  output blob-5">`, and their wires `<g id="wire-output-0" class="edge wire blob-5">`.
- ties, the dashed lines between layers that share, are `<g id="tie-0" class="edge tie param-0 param-1">`.
- the legend is `<g id="legend" class="cluster legend">`, and each of its parameters a
  `<g id="legend-0" class="chip entry param-0">` within (number: the parameter's). Boxes of towers drawn as one stand in
  `<g id="tower-0" class="cluster tower">`.
- the drawing as a whole is `<g id="net" class="graph style-plain detail-blobs">`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import graphviz

from siamese_proto.drawing import palette
from siamese_proto.drawing.boxes import Box, Picture, Wire, both_phases, picture
from siamese_proto.drawing.labels import FONT, cell, label, row, styled, table, text
from siamese_proto.drawing.render import find_renderer
from siamese_proto.graph.ir import Blob, Graph, Node, Param, ParamUse, Shape
from siamese_proto.graph.twins import Towers
from siamese_proto.summary import count_text, summarize

RankDir = Literal["TB", "BT", "LR", "RL"]
LEGEND_COLUMNS = 3
_SIZES = re.compile(r"(?<=[\d ])x(?=[\d ])")
TIMES = "\u00d7"


def draw(graph: Graph, *, rankdir: RankDir = "TB", test: Graph | None = None) -> graphviz.Digraph:
    """The drawing of a graph. It shows itself in a notebook; `render` writes it to a file.

    Towers stand side by side, layer beside layer. A shared parameter has one colour wherever it is used, and a legend
    says who uses it; a blob that towers do not share, though they share others, is framed in red. Layers that work in
    place stand in the box of the layer whose output they change. Shapes that are not known are left out.
    With `test`, the graph of the same net for the other phase, both are drawn in one; layers of one phase are marked.
    """
    find_renderer()
    shown = picture(graph if test is None else both_phases(graph, test))
    figure = graphviz.Digraph("net", strict=False)
    figure.attr("graph", label=label(_title(graph, test)), labelloc="t", fontname=FONT, fontcolor=palette.INK)
    figure.attr("graph", rankdir=rankdir, newrank="true", ranksep="0.32", nodesep="0.35", pad="0.25", bgcolor="white")
    figure.attr("node", shape="plain", fontname=FONT, fontsize="12", fontcolor=palette.INK)
    figure.attr("edge", fontname=FONT, fontsize="9", fontcolor=palette.FAINT, color=palette.WIRE)
    figure.attr("edge", arrowsize="0.6", penwidth="1")
    with figure.subgraph(name="cluster_net") as net:  # its label is the legend, below everything
        legend = label(_legend(shown)) if shown.paints else ""
        net.attr("graph", label=legend, labelloc="b", color="white", margin="0")
        for box in shown.boxes:
            net.node(box.id, label=label(_box(shown, box)))
        for number, towers in enumerate(shown.towers):
            _align(net, shown, towers, number, upwards=rankdir in ("LR", "RL"))
        for number, (blob, source) in enumerate(shown.outputs):
            _output(net, blob, source, f"output_{number}")
    for wire in shown.wires:
        _wire(figure, wire)
    return figure


def _output(figure: graphviz.Digraph, blob: Blob, source: Box, name: str) -> None:
    shape = styled(_shape_note(blob.shape, before="  "), size=9, color=palette.FAINT)
    figure.node(name, label=label(table([row([cell(styled(text(blob.name), size=10, bold=True) + shape)])])))
    figure.edge(source.id, name)


def _title(graph: Graph, test: Graph | None) -> str:
    facts = summarize(graph)
    least = "" if facts.complete else "at least "
    parts = [facts.phase if test is None else f"{facts.phase} and {test.phase}"]
    if facts.parameters:
        unshared = f" ({facts.unshared_parameters:,} unshared)" if facts.unshared_parameters > facts.parameters else ""
        parts.append(f"{least}{facts.parameters:,} parameters{unshared}")
    if facts.multiply_adds:
        parts.append(f"{least}{count_text(facts.multiply_adds)} multiply-adds a forward pass")
    if not facts.complete:
        parts.append("some shapes are not known")
    name = styled(text(graph.name or "net"), size=18, bold=True)
    facts_line = styled(" \u00b7 ".join(parts), size=11, color=palette.FAINT)
    return table([row([cell(name)]), row([cell(facts_line)]), row([cell(" ")])])


def _box(shown: Picture, box: Box) -> str:
    paint = _paint(shown, box)
    rows: list[str] = []
    for index, node in enumerate(box.nodes):
        if index:
            rows.append("<HR/>")
        rows.extend(_layer_rows(shown, node, small=index > 0))
    frame = {"border": 1, "cellpadding": 3, "style": "rounded", "color": paint.line, "bgcolor": paint.fill}
    if box.nodes[0].layer is None:
        frame["style"] = "rounded,dashed"
    if paint is palette.LOSS:
        frame["border"] = 2
    return table(rows, **frame)


def _paint(shown: Picture, box: Box) -> palette.Paint:
    first = box.nodes[0]
    if first.layer is None:
        return palette.UNKNOWN
    if not first.bottoms:
        return palette.DATA
    if any(first.loss_weights) or first.layer.labels:
        return palette.LOSS
    return palette.LEARNED if any(node.params for node in box.nodes) else palette.PLAIN


def _layer_rows(shown: Picture, node: Node, *, small: bool) -> Iterator[str]:
    name = styled(text(node.name), size=10 if small else 12, bold=True)
    kind = text(node.type) if node.layer else f"{text(node.type)}: unknown type"
    settings = node.layer.describe() if node.layer else ""
    if node.bottoms:  # what a data layer says of itself holds names of files
        settings = _SIZES.sub(TIMES, settings)
    said = [kind, text(settings)] if settings else [kind]
    remarks = list(_remarks(node))
    line = styled("  ".join(said), size=10, color=palette.FAINT)
    if small:
        yield row([cell(f" {name}  {line} ", cellpadding=3)])
    else:
        yield row([cell(f"  {name}  ", cellpadding=4)])
        yield row([cell(f"  {line}  ", cellpadding=2)])
    if remarks:
        yield row([cell(styled("  ".join(remarks), size=10), cellpadding=2)])
    if node.params:
        yield row([cell(_chips(shown, node), cellpadding=2)])


def _remarks(node: Node) -> Iterator[str]:
    for weight in node.loss_weights:
        if weight not in (0, 1):
            yield f"loss weight {weight:g}"
    if len(node.phases) == 1:
        yield f"{node.phases[0]} only"


def _chips(shown: Picture, node: Node) -> str:
    """The layer's parameters, two side by side."""
    chips = [_chip(shown, node, index, use) for index, use in enumerate(node.params)]
    rows = [row(chips[start : start + 2]) for start in range(0, len(chips), 2)]
    return table(rows, cellspacing=3)


def _chip(shown: Picture, node: Node, index: int, use: ParamUse) -> str:
    name = text(use.param.name or use.role)
    paint = shown.paints.get(use.param.id)
    if paint is not None:
        markup = styled(name + _shape_note(use.shape, before=" "), size=9, color=palette.INK)
        return cell(markup, border=1, bgcolor=paint.fill, color=paint.line, style="rounded")
    if (node.id, index) in shown.private:
        markup = styled(f"{name}{_shape_note(use.shape, before=' ')} <B>not shared</B>", size=9, color=palette.ALARM)
        return cell(markup, border=2, bgcolor=palette.PAPER, color=palette.ALARM, style="rounded")
    markup = styled(name + _shape_note(use.shape, before=" "), size=9, color=palette.FAINT)
    return cell(markup, border=1, bgcolor=palette.PRIVATE.fill, color=palette.PRIVATE.line, style="rounded")


def _shape_note(shape: Shape | None, *, before: str) -> str:
    if shape is None:
        return ""
    return before + (TIMES.join(str(size) for size in shape) or "scalar")


def _wire(figure: graphviz.Digraph, wire: Wire) -> None:
    named = wire.blob.name not in {node.name for node in wire.source.nodes}
    parts = [text(wire.blob.name)] if named else []
    if wire.blob.shape is not None:
        parts.append(_shape_note(wire.blob.shape, before=""))
    settings = {"color": palette.LABEL_WIRE, "style": "dashed"} if wire.is_label else {"weight": "4"}
    shown_label = label(table([row([cell("  ".join(parts))])])) if parts else None
    figure.edge(wire.source.id, wire.target.id, label=shown_label, **settings)


def _align(figure: graphviz.Digraph, shown: Picture, towers: Towers, number: int, *, upwards: bool) -> None:
    """Put the boxes of a tower in one line and those of a row at one height, the first tower leftmost or topmost."""
    for index in range(towers.count):
        for box in _boxes(shown, towers.tower(index)):
            figure.node(box.id, group=f"tower_{number}_{index}")
    levels = [boxes for row in towers.rows if len(boxes := _boxes(shown, row)) == towers.count]
    for level, boxes in enumerate(levels):
        ids = [box.id for box in boxes]
        if towers.count % 2 == 0 and level in (0, len(levels) - 1):
            ids.insert(towers.count // 2, _middle(figure, shown, boxes, f"middle_{number}_{level}"))
        if upwards:  # what goes from left to right goes from the bottom to the top in a drawing that lies down
            ids.reverse()
        with figure.subgraph() as same:
            same.attr("graph", rank="same")
            for left, right in pairwise(ids):
                same.edge(left, right, style="invis")


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


def _boxes(shown: Picture, nodes: Sequence[Node]) -> list[Box]:
    """The boxes of these layers; layers that stand in the box of another have none."""
    return [box for node in nodes if (box := shown.box_of(node)) is not None]


def _legend(shown: Picture) -> str:
    entries = [_legend_entry(shown, param) for param in shown.graph.params if param.id in shown.paints]
    if shown.private:
        own = cell(styled("a tower's own, though its layers are twins", size=9), colspan=2, align="left")
        entries.append(_not_shared() + own)
    columns = min(LEGEND_COLUMNS, -(-len(entries) // 4))
    height = -(-len(entries) // columns)
    gap = cell("    ")
    width = 4 * columns - 1
    title = cell(styled("Shared parameters", size=11, bold=True), colspan=width, align="left")
    rows = [row([cell(" ", colspan=width)]), row([title])]
    for start in range(height):
        rows.append(row([gap.join(entries[start::height])]))
    return table(rows, cellspacing=3, cellpadding=2)


def _legend_entry(shown: Picture, param: Param) -> str:
    paint = shown.paints[param.id]
    name = styled(text(param.name or f"{param.owner_name} {param.role}"), size=9)
    swatch = cell(name, border=1, bgcolor=paint.fill, color=paint.line, style="rounded")
    shape = cell(styled(_shape_note(param.shape, before="") or " ", size=9, color=palette.FAINT), align="left")
    names = [text(node.name) for node in shown.users[param.id]]
    lines = [", ".join(names[start : start + 4]) for start in range(0, len(names), 4)]
    users = cell(styled(",<BR/>".join(lines), size=9), align="left", balign="left")
    return swatch + shape + users


def _not_shared() -> str:
    return cell(
        styled("<B>not shared</B>", size=9, color=palette.ALARM), border=2, color=palette.ALARM, style="rounded"
    )
