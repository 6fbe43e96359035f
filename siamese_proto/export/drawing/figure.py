"""From a graph to DOT text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import graphviz

from siamese_proto.export.drawing.boxes import Box, Output, Picture, Wire, blob_numbers, picture
from siamese_proto.export.drawing.contents import (
    Detail,
    Look,
    box_markup,
    box_params,
    label,
    output_label,
    styled,
    wire_label,
)
from siamese_proto.export.drawing.legend import legend, title
from siamese_proto.export.drawing.palette import STYLES, StyleName
from siamese_proto.export.drawing.render import find_renderer
from siamese_proto.export.drawing.towers import align, collapsed
from siamese_proto.graph.ir import Blob, Graph, Node, Param
from siamese_proto.passes.fuse_towers import fuse_towers


def both_phases(train: Graph, test: Graph) -> Graph:
    """Return a graph with the layers of both phases, for drawing only: two layers may compute one blob."""

    def written(node: Node) -> tuple[object, ...]:
        return (node.location, node.name, node.type, tuple(top.name for top in node.tops))

    in_train, ids = {written(node) for node in train.nodes}, {node.id for node in train.nodes}
    extra = []
    for node in test.nodes:
        if written(node) not in in_train:
            fresh = node.id
            while fresh in ids:
                fresh += "_test"
            ids.add(fresh)
            extra.append(replace(node, id=fresh))
    owned = {param.id for param in train.params}
    read = {bottom.name for node in (*train.nodes, *extra) for bottom in node.bottoms}
    made_in_train = {top.name for node in train.nodes for top in node.tops}
    outputs = [blob for blob in test.outputs if blob.name not in made_in_train | read]
    return replace(
        train,
        nodes=tuple(sorted((*train.nodes, *extra), key=lambda node: (node.location.line, node.location.column))),
        params=(*train.params, *(param for param in test.params if param.id not in owned)),
        outputs=(*(blob for blob in train.outputs if blob.name not in read), *outputs),
    )


RankDir = Literal["TB", "BT", "LR", "RL"]
TowerLayout = Literal["side-by-side", "collapsed"]
MOST_WIDE = 4  # wide boxes side by side that fit on a page
MOST_MEDIUM = 6  # boxes with lines of 24 letters

__all__ = ["Detail", "RankDir", "StyleName", "TowerLayout", "blob_numbers", "draw", "drawn_graph"]


def draw(
    graph: Graph,
    *,
    rankdir: RankDir = "TB",
    test: Graph | None = None,
    style: StyleName = "plain",
    detail: Detail = "blobs",
    towers: TowerLayout = "side-by-side",
    fused: bool = False,
    learning_rates: bool = False,
) -> graphviz.Digraph:
    """Draw a graph. Notebooks display the result; `render` writes it to a file.

    Towers are drawn side by side. A shared parameter has one color wherever it is used, dashed lines connect the layers
    that share it, and a legend lists its users. A parameter that towers do not share, although they share others, has a
    red frame. In-place layers are drawn in the box of the layer whose output they change.

    Args:
        graph: The graph to draw. Unknown shapes are left out.
        rankdir: The direction from data to loss.
        test: The graph of the same net for the other phase. Both are drawn in one; layers of one phase are marked.
        style: The colors and fonts.
        detail: "layers" shows types and settings, for large nets. "blobs" adds parameters, shapes and counts. "full"
            adds fillers, multipliers, line numbers and the names of all blobs.
        towers: "collapsed" draws identical towers once.
        fused: Draw what runs: fused towers over joined batches.
        learning_rates: Show every lr_mult.
    """
    find_renderer()
    shown = picture(drawn_graph(graph, test=test, fused=fused), STYLES[style])
    if towers == "collapsed":
        shown = collapsed(shown)
    is_horizontal = rankdir in ("LR", "RL")
    letters = None if is_horizontal or shown.breadth <= MOST_WIDE else 24 if shown.breadth <= MOST_MEDIUM else 13
    look = Look(STYLES[style], detail, letters, learning_rates, shown.length if is_horizontal else shown.breadth)
    return _Figure(shown, look, rankdir, test).drawn()


def drawn_graph(graph: Graph, *, test: Graph | None = None, fused: bool = False) -> Graph:
    """Return the graph that is drawn; ids in the drawing are positions in it."""
    if fused:
        graph, test = fuse_towers(graph).graph, fuse_towers(test).graph if test is not None else None
    return graph if test is None else both_phases(graph, test)


@dataclass(frozen=True)
class _Figure:
    """Builds one drawing."""

    shown: Picture
    look: Look
    rankdir: RankDir
    test: Graph | None

    def drawn(self) -> graphviz.Digraph:
        figure = graphviz.Digraph("net", strict=False)
        self._settings(figure)
        with figure.subgraph(name="cluster_net") as net:  # its label is the legend
            markup, listed = legend(self.look, self.shown)
            words = label(markup) if markup else ""
            background = self.look.style.background
            net.attr("graph", label=words, labelloc="b", color=background, margin="0")
            net.attr("graph", id="legend", **_classes("legend", *self._params(listed)))
            stacked = {box.id for stack in self.shown.stacks for box in stack.boxes}
            self._boxes(net, (box for box in self.shown.boxes if box.id not in stacked))
            self._stacks(net)
            for number, towers in enumerate(self.shown.towers):
                align(net, self.look, self.shown, towers, number, upwards=self.rankdir in ("LR", "RL"))
            for number, output in enumerate(self.shown.outputs):
                self._output(net, output, number)
        for number, wire in enumerate(self.shown.wires):
            self._wire(figure, wire, number)
        return figure

    def _settings(self, figure: graphviz.Digraph) -> None:
        style = self.look.style
        words = label(title(self.look, self.shown, self.test))
        figure.attr("graph", label=words, labelloc="t", fontname=style.font, fontcolor=style.ink)
        figure.attr("graph", id="net", **_classes(f"style-{style.name}", f"detail-{self.look.detail}"))
        spacing = {"ranksep": "0.32", "nodesep": "0.35"}
        if self.look.narrow:
            spacing["nodesep"] = "0.14"
        elif self.look.detail == "layers":
            spacing["ranksep"] = "0.25"
        figure.attr("graph", rankdir=self.rankdir, newrank="true", pad="0.25", bgcolor=style.background, **spacing)
        figure.attr("node", shape="plain", fontname=style.font, fontsize="12", fontcolor=style.ink)
        figure.attr("edge", fontname=style.font, fontsize="9", fontcolor=style.faint, color=style.wire)
        figure.attr("edge", arrowsize="0.6", penwidth="1")

    def _boxes(self, figure: graphviz.Digraph, boxes: Iterable[Box]) -> None:
        numbers = self.shown.node_numbers
        for box in boxes:
            layers = [f"layer-{numbers[node.id]}" for node in (*box.nodes, *box.copies)]
            params = self._params(box_params(self.look, self.shown, box))
            words = label(box_markup(self.look, self.shown, box))
            line = self.shown.lines.get(box.id)
            figure.node(box.id, label=words, id=layers[0], group=line, **_classes("layer", *layers, *params))

    def _stacks(self, net: graphviz.Digraph) -> None:
        style = self.look.style
        for number, stack in enumerate(self.shown.stacks):
            with net.subgraph(name=f"cluster_tower_{number}") as tower:
                words = styled(f"\u00d7 {stack.count}, shared", size=13, color=style.ink, bold=True)
                tower.attr("graph", label=label(words), labelloc="t", labeljust="r", margin="14", peripheries="1")
                tower.attr("graph", color=style.faint, style="rounded,dashed" if style.rounded else "dashed")
                tower.attr("graph", id=f"tower-{number}", **_classes("tower"))
                self._boxes(tower, stack.boxes)

    def _output(self, figure: graphviz.Digraph, output: Output, number: int) -> None:
        blobs = self._blobs(output.blobs)
        name = f"output_{number}"
        figure.node(name, label=output_label(self.look, output), id=f"output-{number}", **_classes("output", *blobs))
        figure.edge(output.source.id, name, id=f"wire-output-{number}", **_classes("wire", *blobs))

    def _wire(self, figure: graphviz.Digraph, wire: Wire, number: int) -> None:
        straight = (wire.source.id, wire.target.id) in self.shown.straight
        settings = {"weight": "40" if straight else "4"}
        if wire.is_label:
            settings = {"color": self.look.style.label_wire, "style": "dashed"}
        classes = _classes("wire", *["label"] * wire.is_label, *self._blobs(wire.blobs))
        words = wire_label(self.look, wire)
        figure.edge(wire.source.id, wire.target.id, label=words, id=f"wire-{number}", **settings, **classes)

    def _params(self, params: Iterable[Param]) -> list[str]:
        return [f"param-{self.shown.param_numbers[param.id]}" for param in params]

    def _blobs(self, blobs: Sequence[Blob]) -> list[str]:
        return [f"blob-{self.shown.blob_numbers[blob.id]}" for blob in blobs]


def _classes(*names: str) -> dict[str, str]:
    return {"class": " ".join(names)}
