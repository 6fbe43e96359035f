"""What a net is made of, as a table: layers, shapes, parameters and who shares them, multiply-adds."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections import defaultdict
from dataclasses import dataclass

from siamese_proto.graph.ir import Graph, Node, Shape


@dataclass(frozen=True)
class Row:
    """One layer."""

    layer: str
    type: str
    settings: str  # in few words, "" where there is nothing to say
    outputs: tuple[Shape | None, ...]  # one shape a top; None: not known
    parameters: int | None  # numbers in the blobs the layer uses, shared ones included; None: not known
    shared_with: tuple[str, ...]  # other layers that use one of its parameters, in the order they run
    multiply_adds: int | None  # of one forward pass; None: not known


@dataclass(frozen=True)
class Summary:
    """A net's table and its totals. What is not known is left out of the totals; `complete` says whether any was."""

    name: str
    phase: str
    rows: tuple[Row, ...]
    parameters: int  # every tensor once, however many layers use it
    unshared_parameters: int  # how many there would be if every layer had its own
    multiply_adds: int
    complete: bool
    notes: tuple[str, ...]  # why shapes are not known


def summarize(graph: Graph) -> Summary:
    """The table of a graph, rows in the order the layers run."""
    users: defaultdict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        for use in node.params:
            users[use.param.id].append(node)
    rows = tuple(_row(graph, node, users) for node in graph.nodes)
    sizes = [_size(param.shape) for param in graph.params]
    return Summary(
        name=graph.name,
        phase=graph.phase,
        rows=rows,
        parameters=sum(size or 0 for size in sizes),
        unshared_parameters=sum(row.parameters or 0 for row in rows),
        multiply_adds=sum(row.multiply_adds or 0 for row in rows),
        complete=not any(row.parameters is None or row.multiply_adds is None for row in rows),
        notes=graph.notes,
    )


def shape_text(shape: Shape | None) -> str:
    """`64x20x24x24` for people; `scalar` for (), `?` where it is not known."""
    if shape is None:
        return "?"
    return "x".join(str(size) for size in shape) or "scalar"


def count_text(count: int) -> str:
    """`431`, `431 k`, `1.47 G`: three figures and a unit."""
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size * 0.9995:  # 999,950 is 1.00 M, not 1000 k
            return f"{_three_figures(count / size)} {unit}"
    return str(count)


def to_json(summary: Summary) -> str:
    """One JSON object with the fields of Summary."""
    return json.dumps(dataclasses.asdict(summary), indent=2, ensure_ascii=False) + "\n"


def to_csv(summary: Summary) -> str:
    """One line a layer below a line of titles; lists are joined with `;`, what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in dataclasses.fields(Row)])
    for row in summary.rows:
        outputs = ";".join("" if shape is None else "x".join(map(str, shape)) for shape in row.outputs)
        shared = ";".join(row.shared_with)
        writer.writerow([row.layer, row.type, row.settings, outputs, row.parameters, shared, row.multiply_adds])
    return text.getvalue()


TITLES = ("Layer", "Type", "Settings", "Outputs", "Parameters", "Shared with", "Multiply-adds")
NUMBERS = ("Parameters", "Multiply-adds")  # titles of the columns that are set to the right


def cells(row: Row) -> tuple[str, ...]:
    """The texts of a row, one for each of TITLES."""
    return (
        row.layer,
        row.type,
        row.settings,
        ", ".join(shape_text(shape) for shape in row.outputs),
        "?" if row.parameters is None else f"{row.parameters:,}" if row.parameters else "",
        ", ".join(row.shared_with),
        "?" if row.multiply_adds is None else count_text(row.multiply_adds) if row.multiply_adds else "",
    )


def totals(summary: Summary) -> list[str]:
    """The lines below the table."""
    least = "" if summary.complete else "at least "
    saved = summary.unshared_parameters - summary.parameters
    unshared = f" ({summary.unshared_parameters:,} if nothing were shared)" if saved else ""
    return [
        f"Parameters: {least}{summary.parameters:,}{unshared}",
        f"Multiply-adds of a forward pass: {least}{summary.multiply_adds:,}",
        *(f"Note: {note}" for note in summary.notes),
    ]


def to_text(summary: Summary) -> str:
    """A table in plain text, columns set apart by two spaces, and the totals below."""
    lines = [TITLES, *(cells(row) for row in summary.rows)]
    lines = [tuple(_one_line(text) for text in line) for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(TITLES))]

    def set_out(line: tuple[str, ...]) -> str:
        parts = [
            text.rjust(width) if title in NUMBERS else text.ljust(width)
            for text, width, title in zip(line, widths, TITLES, strict=True)
        ]
        return "  ".join(parts).rstrip()

    head = f"{_one_line(summary.name) or 'net'} ({summary.phase})"
    return "\n".join([head, "", *map(set_out, lines), "", *totals(summary)]) + "\n"


def to_markdown(summary: Summary) -> str:
    """A table as GitHub reads it, and the totals below."""

    def line(texts: tuple[str, ...]) -> str:
        return "| " + " | ".join(_markdown(text) for text in texts) + " |"

    rule = "|---|---|---|---|--:|---|--:|"
    table = [line(TITLES), rule, *(line(cells(row)) for row in summary.rows)]
    return "\n".join([*table, "", *(f"{_markdown(total)}  " for total in totals(summary))]) + "\n"


def _row(graph: Graph, node: Node, users: dict[str, list[Node]]) -> Row:
    sharers = {user.id for use in node.params for user in users[use.param.id]} - {node.id}
    sizes = [_size(use.shape) for use in node.params]
    return Row(
        layer=node.name,
        type=node.type,
        settings=node.layer.describe() if node.layer else "",
        outputs=tuple(top.shape for top in node.tops),
        parameters=None if node.layer is None or None in sizes else sum(size or 0 for size in sizes),
        shared_with=tuple(other.name for other in graph.nodes if other.id in sharers) if sharers else (),
        multiply_adds=_multiply_adds(node),
    )


def _multiply_adds(node: Node) -> int | None:
    bottoms = [bottom.shape for bottom in node.bottoms if bottom.shape is not None]
    tops = [top.shape for top in node.tops if top.shape is not None]
    if node.layer is None or len(bottoms) < len(node.bottoms) or len(tops) < len(node.tops):
        return None
    return node.layer.multiply_adds(bottoms, tops)


def _size(shape: Shape | None) -> int | None:
    return None if shape is None else math.prod(shape)


def _three_figures(number: float) -> str:
    return f"{number:.2f}" if number < 9.995 else f"{number:.1f}" if number < 99.95 else f"{number:.0f}"


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _markdown(text: str) -> str:
    escaped = "".join("\\" + c if c in "\\|`*_<>[]" else c for c in text)
    return " ".join(escaped.split())
