"""The markup of boxes, wires and labels."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from siamese_proto.export.drawing.boxes import Box, Output, Picture, Wire
from siamese_proto.export.drawing.palette import Paint, Style
from siamese_proto.export.summary import count_text
from siamese_proto.graph.ir import Node, Param, ParamUse, Shape

_ENTITY = re.compile(r"&(?=#?\w+;)")


def text(name: str) -> str:
    r"""Return a text as markup, in which `<b>`, `&lt;`, `\N` and letters of any language are shown as written.

    Line breaks break the line; other characters that cannot be printed are shown escaped (`\x07`).
    """
    return "<BR/>".join(_line(line) for line in name.split("\n")) if name else " "


def _line(line: str) -> str:
    # Graphviz reads an entity even after unescaping, unless the & is in a separate run
    return '<FONT COLOR="#000001">&amp;</FONT>'.join(_escape(part) for part in _ENTITY.split(line)) or " "


def _escape(part: str) -> str:
    visible = "".join(c if c.isprintable() or c == "\u200d" else ascii(c)[1:-1] for c in part)
    # a backslash starts escapes such as \N (the name of the node), so it is doubled
    visible = visible.replace("\\", "\\\\")
    return visible.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def styled(markup: str, *, size: float | None = None, color: str | None = None, bold: bool = False) -> str:
    """Return markup in another size (points), color or weight; Graphviz refuses empty tags."""
    if not markup:
        return ""
    if bold:
        markup = f"<B>{markup}</B>"
    attributes = (f' POINT-SIZE="{size:g}"' if size else "") + (f' COLOR="{color}"' if color else "")
    return f"<FONT{attributes}>{markup}</FONT>" if attributes else markup


def cell(markup: str, **attributes: object) -> str:
    """Return a table cell; attributes are in lower case: `cell("x", bgcolor="#ffffff", colspan=2)`."""
    return f"<TD{_attributes(attributes)}>{markup}</TD>"


def row(cells: Iterable[str]) -> str:
    """Return a table row."""
    return f"<TR>{''.join(cells)}</TR>"


def table(rows: Iterable[str], **attributes: object) -> str:
    """Return a table; without attributes it has no lines and no space around its cells."""
    settings = {"border": 0, "cellborder": 0, "cellspacing": 0, "cellpadding": 2, **attributes}
    return f"<TABLE{_attributes(settings)}>{''.join(rows)}</TABLE>"


def label(markup: str) -> str:
    """Return markup as the value of a label attribute."""
    return f"<{markup}>"


def _attributes(attributes: dict[str, object]) -> str:
    return "".join(f' {name.upper()}="{value}"' for name, value in attributes.items())


Detail = Literal["layers", "blobs", "full"]
TIMES = "\u00d7"
DOT = " \u00b7 "
FONT_SIZE = 12
CHIPS_LENGTH = 38  # letters of the chips in a line of a wide box
MOST_CHIPS = 3
_SIZES = re.compile(r"(?<=\d)x(?=\d)|(?<=\d )x(?= \d)")


@dataclass(frozen=True)
class Look:
    """The level of detail and the style."""

    style: Style
    detail: Detail
    letters: int | None  # length of the shortest line of a narrow box; None: lines are not broken
    learning_rates: bool  # show lr_mult of every parameter
    across: int  # approximate number of boxes side by side at the widest place

    def line_length(self, shown: Picture, box: Box) -> int:
        """Return the approximate length of a line of a box, at most that of the longest name in a narrow one."""
        return 54 if self.letters is None else max(self.letters, shown.longest_names[box.id] * 5 // 4)

    @property
    def narrow(self) -> bool:
        """Whether many boxes are side by side, so that several short lines are better than a long one."""
        return self.letters is not None


def box_paint(look: Look, box: Box) -> Paint:
    """Return fill and line of a box."""
    style, first = look.style, box.nodes[0]
    if first.layer is None:
        return style.unknown
    if not first.bottoms:
        return style.data
    if any(first.loss_weights) or (first.layer.labels and not first.params):  # cont of an LSTM is no label
        return style.loss
    if first.type in style.by_type:
        return style.by_type[first.type]
    return style.learned if any(node.params for node in box.nodes) else style.plain


def box_markup(look: Look, shown: Picture, box: Box) -> str:
    """Return the markup of a layer and the in-place layers in its box."""
    paint = box_paint(look, box)
    rows = list(_first_rows(look, shown, box))
    if look.detail == "layers" and len(box.nodes) > 1:
        types = " + ".join(text(node.type) for node in box.nodes[1:])
        rows.append(row([cell(styled(f"+ {types}", size=9, color=look.style.faint), cellpadding=1)]))
        rows.extend(_chip_rows(look, shown, box.nodes[1:], look.line_length(shown, box)))
    else:
        for node in box.nodes[1:]:
            rows.append("<HR/>")
            rows.extend(_folded_rows(look, shown, node, look.line_length(shown, box)))
    frame = {"border": 1, "cellpadding": 3, "color": paint.line, "bgcolor": paint.fill}
    words = ["rounded"] * look.style.rounded + ["dashed"] * (box.nodes[0].layer is None)
    if words:
        frame["style"] = ",".join(words)
    if paint is look.style.loss:
        frame["border"] = 2
    return table(rows, **frame)


def _first_rows(look: Look, shown: Picture, box: Box) -> Iterator[str]:
    node = box.nodes[0]
    name = text(node.name)
    if box.count > 1:
        name = f"{name} \u2026 {text(box.copies[-len(box.nodes)].name)}"
    side = " " if look.narrow else "  "
    yield row([cell(styled(" ", size=2), cellpadding=0)])  # keeps letters away from the frame
    yield row([cell(f"{side}{styled(name, size=FONT_SIZE - look.narrow, bold=True)}{side}", cellpadding=2)])
    length = look.line_length(shown, box)
    lines = _lines([_kind(node), *_settings(node)], length, space="  ")
    lines_of_layer = [styled(line, size=10 - look.narrow, color=look.style.faint) for line in lines]
    lines_of_layer += [styled(line, size=9, color=look.style.faint) for line in _facts(look, shown, node, length)]
    for line in lines_of_layer:
        yield row([cell(f"{side}{line}{side}", cellpadding=1)])
    yield from _badges(look, node)
    yield from _chip_rows(look, shown, [node], length)


def _folded_rows(look: Look, shown: Picture, node: Node, length: int) -> Iterator[str]:
    name = styled(text(node.name), size=10, bold=True)
    lines = _lines([_kind(node), *_settings(node)], length, space=" ")
    words = [styled(line, size=10 - look.narrow, color=look.style.faint) for line in lines]
    if len(node.name) + len(lines[0]) < length:
        words[0] = f"{name}  {words[0]}"
    else:
        words.insert(0, name)
    for line in words:
        yield row([cell(f" {line} ", cellpadding=1 + (line is words[0]))])
    for line in _facts(look, shown, node, length):
        yield row([cell(f" {styled(line, size=9, color=look.style.faint)} ", cellpadding=1)])
    yield from _badges(look, node)
    yield from _chip_rows(look, shown, [node], length)


def _kind(node: Node) -> str:
    return text(node.type) if node.layer else f"{text(node.type)}: unknown type"


def _settings(node: Node) -> list[str]:
    """Return the description of the layer, in parts between which a line may break."""
    words = node.layer.describe() if node.layer else ""
    if node.bottoms and "'" not in words and '"' not in words:  # names of files and blobs do not change
        words = _SIZES.sub(TIMES, words)
    parts = words.split(", ") if words else []
    return [text(part) + "," * (number < len(parts) - 1) for number, part in enumerate(parts)]


def _facts(look: Look, shown: Picture, node: Node, length: int) -> list[str]:
    """Return lines about the size of the layer."""
    if look.detail == "layers":
        return []
    size, parts = shown.facts[node.id], []
    if size.parameters:
        parts.append((f"{size.parameters:,}", "parameters"))
    if size.multiply_adds:
        parts.append((count_text(size.multiply_adds), "multiply-adds"))
    if look.detail == "full":
        parts.append(("line", str(node.location.line)))
    facts = [f"{first} {second}" for first, second in parts]
    if max(map(len, facts), default=0) > length:
        return [f"{first}<BR/>{second}" for first, second in parts]
    return _lines(facts, length, space=DOT)


def _lines(parts: Sequence[str], length: int, *, space: str) -> list[str]:
    """Join parts into lines of at most this length, if they fit."""
    lines: list[str] = []
    for part in parts:
        joint = " " if lines and lines[-1].endswith(",") else space
        if lines and len(lines[-1]) + len(joint) + len(part) <= length:
            lines[-1] += joint + part
        else:
            lines.append(part)
    return lines


def _badges(look: Look, node: Node) -> Iterator[str]:
    if len(node.phases) == 1:
        words = styled(f"{node.phases[0]} only", size=10, color=look.style.once, bold=True)
        yield row([cell(words, cellpadding=1)])
    for weight in node.loss_weights:
        if weight not in (0, 1):
            yield row([cell(styled(f"loss weight {weight:g}", size=10), cellpadding=1)])


def _chip_rows(look: Look, shown: Picture, nodes: Sequence[Node], length: int) -> Iterator[str]:
    """Yield rows of parameters, as many side by side as fit into a line."""
    rows: list[list[str]] = []
    filled, most = 0, length if look.narrow else CHIPS_LENGTH
    for node, index, use in _shown_uses(look, shown, nodes):
        private = (node.id, index) in shown.private
        words = [text(use.param.name or use.role)]
        words += [_shape(use.shape)] if use.shape is not None and look.detail != "layers" else []
        words += ["<B>not shared</B>"] if private else []
        letters = sum(len(word.removeprefix("<B>").removesuffix("</B>")) + 1 for word in words)
        if not rows or filled + letters > most or len(rows[-1]) == MOST_CHIPS:
            rows.append([])
            filled = 0
        filled += letters
        rows[-1].append(_chip(look, shown, use, ("<BR/>" if letters > most else " ").join(words), private=private))
    for chips in rows:
        yield row([cell(table([row(chips)], cellspacing=2), cellpadding=1)])


def _shown_uses(look: Look, shown: Picture, nodes: Sequence[Node]) -> Iterator[tuple[Node, int, ParamUse]]:
    """Yield the parameters that are shown."""
    for node in nodes:
        for index, use in enumerate(node.params):
            if look.detail != "layers" or use.param.id in shown.paints or (node.id, index) in shown.private:
                yield node, index, use


def box_params(look: Look, shown: Picture, box: Box) -> list[Param]:
    """Return the parameters that a box shows, in order."""
    return [use.param for _, _, use in _shown_uses(look, shown, box.nodes)]


def _chip(look: Look, shown: Picture, use: ParamUse, words: str, *, private: bool) -> str:
    style = look.style
    paint, ink = shown.paints.get(use.param.id), style.chip_ink
    if paint is None:
        paint, ink = (style.unlike, style.alarm) if private else (style.private, style.faint)
    words = styled(words, size=9, color=ink)
    settings = "  ".join(_use_settings(look, use))
    if settings:
        words += f"<BR/>{styled(settings, size=8, color=ink)}"
    return cell(words, border=1, bgcolor=paint.fill, color=paint.line, style="rounded")


def _use_settings(look: Look, use: ParamUse) -> Iterator[str]:
    if look.detail == "full" and use.is_owner and not use.param.statistic and use.param.filler.type != "constant":
        yield text(use.param.filler.type)
    if look.learning_rates or (look.detail == "full" and use.lr_mult != 1):
        yield f"lr_mult {use.lr_mult:g}"
    if look.detail == "full" and use.param.decay_mult != 1:
        yield f"decay_mult {use.param.decay_mult:g}"


def _shape(shape: Shape | None) -> str:
    return "" if shape is None else TIMES.join(str(size) for size in shape) or "scalar"


def wire_label(look: Look, wire: Wire) -> str | None:
    """Return the label of a wire: the shape of the blob, and its name if it is not that of the layer."""
    if look.detail == "layers":
        return None
    blob = wire.blobs[0]
    parts = [_shape(blob.shape)] if blob.shape is not None else []
    between = bool(wire.source.copies) is not bool(wire.target.copies)
    if between and len(wire.blobs) > 1:
        parts.insert(0, f"{len(wire.blobs)} blobs" + (" of" if parts else ""))
    elif look.detail == "full" or blob.name not in {node.name for node in wire.source.nodes}:
        parts.insert(0, text(blob.name))
        if look.narrow and len(parts) > 1:
            parts = ["<BR/>".join(parts)]
    if not parts:
        return None
    settings: dict[str, object] = {}
    if look.style.blob is not None:
        settings = {"bgcolor": look.style.blob.fill, "color": look.style.blob.line, "border": 1}
    return label(table([row([cell("  ".join(parts))])], **settings))


def output_label(look: Look, output: Output) -> str:
    """Return the name and the shape of an output."""
    names = text(output.blobs[0].name)
    if len(output.blobs) > 1:
        names += f" \u2026 {text(output.blobs[-1].name)}"
    shape = _shape(output.blobs[0].shape)
    words = styled(names, size=10, bold=True)
    if shape:
        words += styled(f"  {shape}", size=9, color=look.style.faint)
    return label(table([row([cell(words)])]))


def chip_markup(look: Look, shown: Picture, param: Param) -> str:
    """Return a shared parameter for the legend."""
    paint = shown.paints[param.id]
    words = text(param.name or f"{param.owner_name} {param.role}")
    if param.shape is not None:
        words += " " + _shape(param.shape)
    words = styled(words, size=9, color=look.style.chip_ink)
    return cell(words, border=1, bgcolor=paint.fill, color=paint.line, style="rounded")
