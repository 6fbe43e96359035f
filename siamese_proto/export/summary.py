"""Summarize a net as a table: layers, shapes, parameters and sharing, multiply-adds, memory."""

import csv
import dataclasses
import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from siamese_proto.errors import escaped
from siamese_proto.graph.ir import Graph, Node, ParamUse, Shape

BYTES_A_NUMBER = 4  # blobs hold single precision


@dataclass(frozen=True)
class Blob:
    """One parameter blob of a layer."""

    name: str  # the shared name, or the role
    shape: Shape | None
    parameters: int | None  # None: unknown
    lr_mult: float
    trainable: bool  # not a statistic, and lr_mult is not 0
    shared_with: tuple[str, ...]  # other layers that use it, in the order they run


@dataclass(frozen=True)
class Row:
    """One layer."""

    layer: str
    type: str
    settings: str  # short; "" if there are none
    outputs: tuple[Shape | None, ...]  # one for each top; None: unknown
    parameters: int | None  # of all blobs, shared ones included; None: unknown
    shared_with: tuple[str, ...]  # other layers that use one of its parameters, in the order they run
    trainable: int | None  # number of its parameters that are trained; None: unknown
    lr_mults: tuple[float, ...]  # of each blob
    multiply_adds: int | None  # of one forward pass; None: unknown
    activation_bytes: int | None  # of the outputs; 0 in place; None: unknown
    blobs: tuple[Blob, ...]


@dataclass(frozen=True)
class Summary:
    """The table of a net and its totals. Totals leave out unknown values; `complete` states that there are none."""

    name: str
    phase: str
    rows: tuple[Row, ...]
    parameters: int  # every tensor once
    unshared_parameters: int  # if every layer had its own
    trainable_parameters: int  # every trained tensor once
    multiply_adds: int
    activation_bytes: int
    complete: bool
    notes: tuple[str, ...]  # why shapes are unknown


def summarize(graph: Graph) -> Summary:
    """Summarize a graph; rows are in the order of execution."""
    users: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for node in graph.nodes:
        for use in node.params:
            users[use.param.id][node.id] = node.name
    order = {node.id: place for place, node in enumerate(graph.nodes)}
    rows = tuple(_row(node, users, order) for node in graph.nodes)
    known = [row for row in rows if None not in (row.parameters, row.multiply_adds, row.activation_bytes)]
    return Summary(
        name=graph.name,
        phase=graph.phase,
        rows=rows,
        parameters=sum(_size(param.shape) or 0 for param in graph.params),
        unshared_parameters=sum(row.parameters or 0 for row in rows),
        trainable_parameters=sum(
            _size(param.shape) or 0 for param in graph.params if param.lr_mult and not param.statistic
        ),
        multiply_adds=sum(row.multiply_adds or 0 for row in rows),
        activation_bytes=sum(row.activation_bytes or 0 for row in rows),
        complete=len(known) == len(rows),
        notes=graph.notes,
    )


def shape_text(shape: Shape | None) -> str:
    """Format a shape: `64x20x24x24`; `scalar` for (), `?` if it is unknown."""
    if shape is None:
        return "?"
    return "x".join(str(size) for size in shape) or "scalar"


def count_text(count: int) -> str:
    """Format a count with three digits and a unit: `431`, `431 k`, `1.47 G`."""
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size * 0.9995:  # 999,950 is 1.00 M, not 1000 k
            return f"{_three_figures(count / size)} {unit}"
    return str(count)


def to_json(summary: Summary) -> str:
    """Format as a JSON object with the fields of Summary."""
    return json.dumps(dataclasses.asdict(summary), indent=2, ensure_ascii=False) + "\n"


def to_csv(summary: Summary) -> str:
    """Format as CSV with a line of titles. Lists are joined with `;`; unknown values are empty.

    Texts that a spreadsheet would compute, such as `=1+1`, get a `'` in front; JSON has all texts unchanged.
    """
    titles = [field.name for field in dataclasses.fields(Row) if field.name != "blobs"]
    rows = ([_csv_cell(getattr(row, title)) for title in titles] for row in summary.rows)
    return "".join([_csv_line(titles), *map(_csv_line, rows)])


def _csv_line(row: Sequence[object]) -> str:
    """Return one line. It first ends with CRLF, so that cells with CR or LF are quoted."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(row)
    return text.getvalue().removesuffix("\r\n") + "\n"


TITLES = (
    "Layer",
    "Type",
    "Settings",
    "Outputs",
    "Parameters",
    "Shared with",
    "Trainable",
    "lr_mult",
    "Multiply-adds",
    "Memory",
)
NUMBERS = ("Parameters", "Multiply-adds", "Memory")  # titles of right-aligned columns
DISPENSABLE = (
    "Settings",
    "lr_mult",
    "Memory",
    "Trainable",
    "Multiply-adds",
)  # columns to leave out first if the terminal is narrow
_MOST_NAMES = 3


def cells(row: Row) -> tuple[str, ...]:
    """Return the texts of a row, one for each of TITLES."""
    return (
        row.layer,
        row.type,
        row.settings,
        ", ".join(shape_text(shape) for shape in row.outputs),
        _counted(row.parameters, "{:,}".format),
        _sharers(row),
        _trainable(row),
        ", ".join(f"{mult:g}" for mult in row.lr_mults),
        _counted(row.multiply_adds, count_text),
        _counted(row.activation_bytes, bytes_text),
    )


def bytes_text(count: int) -> str:
    """Format a size with three digits and a unit in powers of ten: `431 B`, `1.47 MB`."""
    text = count_text(count)
    return f"{text}B" if " " in text else f"{text} B"


def totals(summary: Summary) -> list[str]:
    """Return the lines below the table."""
    shared = summary.unshared_parameters > summary.parameters
    unshared = f" ({summary.unshared_parameters:,} if nothing were shared)" if shared else ""
    lines = [f"Parameters: {_total(summary, summary.parameters, '{:,}'.format)}{unshared}"]
    if summary.trainable_parameters < summary.parameters:
        lines.append(f"Trainable parameters: {_total(summary, summary.trainable_parameters, '{:,}'.format)}")
    return [
        *lines,
        f"Multiply-adds of a forward pass: {_total(summary, summary.multiply_adds, '{:,}'.format)}",
        f"Memory of all outputs: {_total(summary, summary.activation_bytes, bytes_text)}",
    ]


def notes(summary: Summary) -> list[str]:
    """Return the reasons for unknown values, one line each."""
    return [f"Note: {note}" for note in summary.notes]


def columns_that_fit(lines: Sequence[Sequence[str]], width: int) -> tuple[list[int], list[str]]:
    """Return the columns that fit into a width, and the titles of those that do not.

    Empty columns are left out. Each column is two characters wider than its widest cell.
    """
    widths = [max((cell_len(escaped(line[column])) for line in lines), default=0) for column in range(len(TITLES))]
    shown = [column for column, needed in enumerate(widths) if needed]
    left_out = []
    for title in DISPENSABLE:
        column = TITLES.index(title)
        if sum(max(widths[each], cell_len(TITLES[each])) + 2 for each in shown) <= width:
            break
        if column in shown:
            shown.remove(column)
            left_out.append(title)
    return shown, left_out


def to_text(summary: Summary) -> str:
    """Format as plain text with two spaces between columns, and the totals below."""
    lines = [tuple(escaped(text) for text in line) for line in (TITLES, *map(cells, summary.rows))]
    widths = [max(cell_len(line[column]) for line in lines) for column in range(len(TITLES))]

    def aligned(line: tuple[str, ...]) -> str:
        parts = []
        for text, width, title in zip(line, widths, TITLES, strict=True):
            gap = " " * (width - cell_len(text))
            parts.append(gap + text if title in NUMBERS else text + gap)
        return "  ".join(parts).rstrip()

    footer = [escaped(text) for text in (*totals(summary), *notes(summary))]
    return "\n".join([heading(summary), "", *map(aligned, lines), "", *footer]) + "\n"


def to_markdown(summary: Summary) -> str:
    """Format as a Markdown table, and the totals below; special characters in names are escaped."""

    def line(texts: Sequence[str]) -> str:
        return "| " + " | ".join(_markdown(text) for text in texts) + " |"

    rule = "|" + "|".join("--:" if title in NUMBERS else "---" for title in TITLES) + "|"
    table = [line(TITLES), rule, *(line(cells(row)) for row in summary.rows)]
    footer = [f"{_markdown(text)}  " for text in (*totals(summary), *notes(summary))]
    return "\n".join([*table, "", *footer]) + "\n"


def heading(summary: Summary) -> str:
    """Return name and phase of the net."""
    return f"{escaped(summary.name) or 'net'} ({summary.phase})"


def _row(node: Node, users: Mapping[str, Mapping[str, str]], order: Mapping[str, int]) -> Row:
    blobs = tuple(_blob(use, node, users[use.param.id]) for use in node.params)
    sharers = {id_: name for use in node.params for id_, name in users[use.param.id].items() if id_ != node.id}
    sizes = [blob.parameters for blob in blobs]
    known = node.layer is not None and None not in sizes
    return Row(
        layer=node.name,
        type=node.type,
        settings=node.layer.describe() if node.layer else "",
        outputs=tuple(top.shape for top in node.tops),
        parameters=sum(size or 0 for size in sizes) if known else None,
        shared_with=tuple(sharers[id_] for id_ in sorted(sharers, key=order.__getitem__)),
        trainable=sum(blob.parameters or 0 for blob in blobs if blob.trainable) if known else None,
        lr_mults=tuple(blob.lr_mult for blob in blobs),
        multiply_adds=_multiply_adds(node),
        activation_bytes=_activation_bytes(node),
        blobs=blobs,
    )


def _blob(use: ParamUse, node: Node, users: Mapping[str, str]) -> Blob:
    param = use.param
    return Blob(
        name=param.name or use.role,
        shape=use.shape,
        parameters=_size(use.shape),
        lr_mult=0.0 if param.statistic else param.lr_mult,
        trainable=param.lr_mult != 0 and not param.statistic,
        shared_with=tuple(name for id_, name in users.items() if id_ != node.id),
    )


def _multiply_adds(node: Node) -> int | None:
    bottoms = [bottom.shape for bottom in node.bottoms if bottom.shape is not None]
    tops = [top.shape for top in node.tops if top.shape is not None]
    if node.layer is None or len(bottoms) < len(node.bottoms) or len(tops) < len(node.tops):
        return None
    return node.layer.multiply_adds(bottoms, tops)


def _activation_bytes(node: Node) -> int | None:
    read = {bottom.name for bottom in node.bottoms}
    sizes = [_size(top.shape) for top in node.tops if top.name not in read]
    return None if None in sizes else BYTES_A_NUMBER * sum(size or 0 for size in sizes)


def _size(shape: Shape | None) -> int | None:
    return None if shape is None else math.prod(shape)


def _sharers(row: Row) -> str:
    """Return who shares the parameters, and which ones if not all."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for blob in row.blobs:
        groups.setdefault(blob.shared_with, []).append(blob.name)
    if len(groups) == 1:
        return _some(row.shared_with)
    return "; ".join(f"{', '.join(names)}: {_some(others)}" for others, names in groups.items() if others)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:_MOST_NAMES])} and {more} more"


def _trainable(row: Row) -> str:
    if not row.blobs:
        return ""
    trained = sum(blob.trainable for blob in row.blobs)
    if trained in (0, len(row.blobs)):
        return "yes" if trained else "no"
    return "partly" if row.trainable is None else f"{row.trainable:,}"


def _counted(count: int | None, shown: Callable[[int], str]) -> str:
    return "?" if count is None else shown(count) if count else ""


def _total(summary: Summary, count: int, shown: Callable[[int], str]) -> str:
    if summary.complete:
        return shown(count)
    return f"at least {shown(count)}" if count else "not known"


def _three_figures(number: float) -> str:
    return f"{number:.2f}" if number < 9.995 else f"{number:.1f}" if number < 99.95 else f"{number:.0f}"


# what spreadsheets read as a formula at the start of a cell; some start a cell at `;` and tabs
_FORMULA = re.compile(r"(^|[;,\t\r\n|])([^\S\t\r\n]*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20\t\r])")


def _csv_cell(value: object) -> object:
    if isinstance(value, tuple):
        value = ";".join(_csv_text(part) for part in value)
    return _FORMULA.sub(r"\1\2'", value) if isinstance(value, str) else value


def _csv_text(part: Shape | str | float | None) -> str:
    if isinstance(part, tuple):
        return "x".join(map(str, part))
    return "" if part is None else f"{part:g}" if isinstance(part, float) else str(part)


_MARKED = re.compile(r"[\\|`*_<>\[\]&~#$:@!]|(?<=www)\.")  # characters with a meaning in Markdown


def _markdown(text: str) -> str:
    return _MARKED.sub(r"\\\g<0>", escaped(text))
