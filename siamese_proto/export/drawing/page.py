"""A drawing as an interactive page: one file that needs no network.

The Content-Security-Policy of the page allows only the style and the script next to this module, by their digests, and
no connection. Content from the user's file is in the SVG written by Graphviz, and in a block of JSON that the script
shows as text.
"""

import base64
import hashlib
import html
import json
import re
import textwrap
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from siamese_proto.errors import NetError, quoted
from siamese_proto.export.drawing.figure import Detail, RankDir, StyleName, TowerLayout, blob_numbers, draw, drawn_graph
from siamese_proto.export.drawing.render import find_renderer, to_svg
from siamese_proto.export.summary import Row, Summary, bytes_text, count_text, shape_text, summarize
from siamese_proto.files import check_writable, write_atomically
from siamese_proto.graph.ir import Blob, Graph, Node, Param
from siamese_proto.proto.parsed import ParsedNet, RawField
from siamese_proto.proto.writer import message_text

ENDINGS = (".html", ".htm")
MOST_TEXT = 8000  # shown characters of the prototxt of a layer, which may contain weights
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}")
_Unknown = dict[tuple[int, int], tuple[tuple[str, RawField], ...]]


def is_page(path: str | Path) -> bool:
    """Return whether a file name ends like that of a page."""
    return Path(path).suffix.lower() in ENDINGS


def check_page(path: str | Path) -> None:
    """Raise NetError if a page of this name cannot be written."""
    if not is_page(path):
        raise NetError(f"cannot write a page to {quoted(str(path))}: its name must end in .html")
    if find_renderer() is None:
        raise NetError("no renderer is installed: install Graphviz, or run: python -m pip install graphviz-pure")
    check_writable(path)


def write_page(
    graph: Graph,
    path: str | Path,
    *,
    test: Graph | None = None,
    parsed: ParsedNet | None = None,
    rankdir: RankDir = "TB",
    style: StyleName = "plain",
    detail: Detail = "blobs",
    towers: TowerLayout = "side-by-side",
    fused: bool = False,
    learning_rates: bool = False,
) -> None:
    """Write the drawing of a graph as a page. The file is complete or does not exist.

    Args:
        graph: The graph; the other options are those of `draw`.
        path: The file; its name ends in .html or .htm.
        parsed: The net as read, for fields that the schema does not know.

    Raises:
        NetError: The name has another ending, or the file cannot be written.
    """
    check_page(path)
    figure = draw(
        graph,
        rankdir=rankdir,
        test=test,
        style=style,
        detail=detail,
        towers=towers,
        fused=fused,
        learning_rates=learning_rates,
    )
    text = page(to_svg(figure), drawn_graph(graph, test=test, fused=fused), summarize(graph), parsed)
    write_atomically(path, text.encode())


def page(svg: str, graph: Graph, summary: Summary, parsed: ParsedNet | None = None) -> str:
    """Return the text of the page for the SVG of a graph (`drawn_graph`); `summary` has the totals."""
    folder = resources.files("siamese_proto.export.drawing")
    style, script = ((folder / f"page.{ending}").read_text("utf-8") for ending in ("css", "js"))
    policy = f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}"
    parts = {
        "policy": f"{policy}; base-uri 'none'; form-action 'none'",
        "title": html.escape(summary.name or "net"),
        "totals": html.escape(" \u00b7 ".join(f"{text} {term}" for term, text in _totals(summary)[1:])),
        "style": style,
        "script": script,
        "drawing": svg[svg.index("<svg") :],
        "facts": _as_data(facts_of(graph, summary, parsed)),
    }
    template = (folder / "page.html").read_text("utf-8")
    return _PLACEHOLDER.sub(lambda match: parts[match[1]], template)  # in one pass: inserted text is not searched again


def facts_of(graph: Graph, summary: Summary, parsed: ParsedNet | None = None) -> dict[str, Any]:
    """Return the data about layers and parameters that the page shows, in the order of the drawing."""
    blobs = blob_numbers(graph)
    numbers = {param.id: number for number, param in enumerate(graph.params)}
    users: list[list[int]] = [[] for _ in graph.params]
    for place, node in enumerate(graph.nodes):
        for param in dict.fromkeys(use.param.id for use in node.params):
            users[numbers[param]].append(place)
    unknown: _Unknown = {}
    for source in parsed.layers if parsed is not None else ():
        unknown[source.location.line, source.location.column] = source.unknown
    rows = summarize(graph).rows
    layers = [_layer(node, row, numbers, blobs, unknown) for node, row in zip(graph.nodes, rows, strict=True)]
    return {
        "name": summary.name or "net",
        "totals": _totals(summary),
        "layers": layers,
        "params": [_param(param, used_by) for param, used_by in zip(graph.params, users, strict=True)],
    }


def _totals(summary: Summary) -> list[tuple[str, str]]:
    least = "" if summary.complete else "at least "
    counts = [
        ("parameters", summary.parameters, "{:,}".format),
        ("if nothing were shared", summary.unshared_parameters, "{:,}".format),
        ("trainable", summary.trainable_parameters, "{:,}".format),
        ("multiply-adds", summary.multiply_adds, count_text),
        ("memory", summary.activation_bytes, bytes_text),
    ]
    totals = [("phase", summary.phase)]
    for term, count, text in counts:
        if count and (count != summary.parameters or term == "parameters"):
            totals.append((term, least + text(count)))
    return totals


def _layer(node: Node, row: Row, numbers: dict[str, int], blobs: dict[str, int], unknown: _Unknown) -> dict[str, Any]:
    place = (node.location.line, node.location.column)
    text = textwrap.indent(message_text(node.message, unknown.get(place, ())), "  ")
    uses = [
        {
            "param": numbers[use.param.id],
            "role": use.role,
            "shape": "" if use.shape is None else shape_text(use.shape),
            "count": "" if blob.parameters is None else f"{blob.parameters:,}",
        }
        for use, blob in zip(node.params, row.blobs, strict=True)
    ]
    return {
        "name": node.name,
        "type": node.type if node.layer else f"{node.type} (unknown type)",
        "settings": row.settings,
        "inputs": _blobs(node.bottoms),
        "outputs": _blobs(node.tops),
        "parameters": f"{row.parameters:,}" if row.parameters else "",
        "multiplyAdds": count_text(row.multiply_adds) if row.multiply_adds else "",
        "memory": bytes_text(row.activation_bytes) if row.activation_bytes else "",
        "phase": f"{node.phases[0]} only" if len(node.phases) == 1 else "",
        "place": f"{Path(node.location.file).name}:{node.location.line}",
        "uses": uses,
        "blobs": sorted({blobs[blob.id] for blob in (*node.bottoms, *node.tops) if blob.id in blobs}),
        "text": f"layer {{\n{text}}}" if len(text) <= MOST_TEXT else f"layer {{\n{text[:MOST_TEXT]}\n  ...",
    }


def _blobs(blobs: Iterable[Blob]) -> str:
    return "\n".join(f"{blob.name}  {shape_text(blob.shape)}" for blob in blobs)


def _param(param: Param, users: list[int]) -> dict[str, Any]:
    if param.statistic:
        training = "a statistic, not learned"
    elif param.lr_mult:
        training = f"learning rate \u00d7 {param.lr_mult:g}"
    else:
        training = "frozen"
    size = 1
    for extent in param.shape or ():
        size *= extent
    return {
        "name": param.name,
        "title": param.name or f"{param.owner_name} {param.role}",
        "owner": param.owner_name,
        "shape": "" if param.shape is None else shape_text(param.shape),
        "count": "" if param.shape is None else f"{size:,}",
        "trained": training,
        "users": users,
    }


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _as_data(value: object) -> str:
    """Return JSON in which nothing can start or end an element of the page."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
