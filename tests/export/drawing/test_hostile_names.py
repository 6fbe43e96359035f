"""Names from an untrusted file are drawn unchanged and have no effect."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from drawn_nets import PLAIN, TWIN, graph_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from svg_reader import SVG, boxes, rendered, runs

from siamese_proto.export.drawing import draw, to_svg
from siamese_proto.graph.ir import Graph

NASTY = (
    "quote \" and ' and `",
    "<b>bold</b>",
    "<TABLE><TR><TD>x</TD></TR></TABLE>",
    "a&lt;b &amp; &#65; &copy &nosuch;",
    r"back\slash \N \G \l \\ \"",
    "end with \\",
    'x"]; evil [label="y',
    "inception/3x3:n %s {a|b} # //",
    "größe 漢字 Ж \u05d0 \U0001f600",
    "two  spaces   and more",
    "]]> --> <!-- <?xml",
    "bell\x07 null\x00 tab\t return\r",
    " ",
    "node",
    "line\nbreak",
)


def named(name: str, base: Graph) -> Graph:
    """The graph with this name for the net, its layers, blobs and parameters."""

    def blob(old):
        return replace(old, name=name)

    def use(old):
        return replace(old, param=replace(old.param, name=name))

    nodes = tuple(
        replace(node, name=name, type=name, layer=None, params=tuple(map(use, node.params))) for node in base.nodes
    )
    params = tuple(replace(param, name=name) for param in base.params)
    return replace(base, name=name, nodes=nodes, params=params)


def visible(name: str) -> str:
    """Return what a reader sees: lines joined, invisible characters escaped."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name.replace("\n", ""))
    return shown or " "


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize(
    ("base", "renderer"), [(PLAIN, "dot"), (TWIN, "dot"), (TWIN, "graphviz-pure")], ids=["plain", "twin", "twin-pure"]
)
def test_hostile_names_are_drawn_unchanged(name: str, base: str, renderer: str) -> None:
    plain = graph_of(base)
    root = rendered(draw(named(name, plain)), renderer)
    for node_id, box in boxes(root).items():
        if node_id.startswith("layer_"):
            assert visible(name) in runs(box)
    assert visible(name) in runs(root)
    assert len(boxes(root)) == len(boxes(rendered(draw(plain))))


@pytest.mark.parametrize(
    "look",
    [
        {"style": "caffe", "detail": "full"},
        {"style": "paper", "detail": "layers"},
        {"style": "dark", "rankdir": "LR", "learning_rates": True},
        {"towers": "collapsed", "detail": "full"},
    ],
    ids=str,
)
def test_hostile_names_have_no_effect_in_any_style(look: dict[str, object]) -> None:
    """Each layer has a different hostile name; the SVG's ids and classes contain none."""
    base = graph_of(TWIN)
    nodes = [replace(node, name=NASTY[place % len(NASTY)]) for place, node in enumerate(base.nodes)]
    graph = named_params(replace(base, name=NASTY[2], nodes=tuple(nodes)))
    root = ElementTree.fromstring(to_svg(draw(graph, **look)).replace("&#160;", " "))
    assert {element.tag for element in root.iter()} <= {f"{SVG}{name}" for name in PLAIN_ELEMENTS}
    for element in root.iter(f"{SVG}g"):
        assert re.fullmatch(r"[a-z0-9 -]*", f"{element.get('id', '')} {element.get('class', '')}")
    text = runs(root)
    assert all(visible(node.name) in text for node in nodes[:4])


PLAIN_ELEMENTS = ("svg", "g", "title", "text", "path", "polygon", "polyline", "ellipse")


def named_params(graph: Graph) -> Graph:
    """Return the graph with hostile names for its parameters."""
    fresh = {param.id: replace(param, name=NASTY[-1 - place]) for place, param in enumerate(graph.params)}
    nodes = [
        replace(node, params=tuple(replace(use, param=fresh[use.param.id]) for use in node.params))
        for node in graph.nodes
    ]
    return replace(graph, nodes=tuple(nodes), params=tuple(fresh.values()))


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_name_is_drawn_unchanged(name: str) -> None:
    box = boxes(rendered(draw(named(name, graph_of(PLAIN)))))["layer_data"]
    assert unicodedata.normalize("NFC", visible(name)) in unicodedata.normalize("NFC", runs(box))


def test_nothing_in_a_drawing_can_be_clicked_or_run() -> None:
    name = '" URL="javascript:alert(1)" onload="x'
    root = rendered(draw(named(name, graph_of(TWIN))))
    assert not list(root.iter(f"{SVG}a"))
    assert not list(root.iter(f"{SVG}script"))
    assert not [element for element in root.iter() if any(key.startswith("on") for key in element.attrib)]
