"""Texts in Graphviz's HTML-like labels: names from users' files go in as data and come out as they are."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ENTITY = re.compile(r"&(?=#?\w+;)")


def text(name: str) -> str:
    r"""A text as markup: quotes, `<b>`, `&lt;`, `\N` and letters of any language stay what they are.

    Line breaks break the line; other characters that cannot be printed are shown escaped (`\x07`).
    """
    return "<BR/>".join(_line(line) for line in name.split("\n")) if name else " "


def _line(line: str) -> str:
    # what looks like an entity is taken for one even after unescaping, unless the & stands in a run of its own
    return '<FONT COLOR="#000001">&amp;</FONT>'.join(_escape(part) for part in _ENTITY.split(line)) or " "


def _escape(part: str) -> str:
    visible = "".join(c if c.isprintable() or c == "\u200d" else ascii(c)[1:-1] for c in part)
    # a backslash begins escapes such as \N (the node's name) here, and two of them are one
    visible = visible.replace("\\", "\\\\")
    return visible.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


def styled(markup: str, *, size: float | None = None, color: str | None = None, bold: bool = False) -> str:
    """Markup in another size (points), colour or weight; Graphviz refuses tags with nothing between them."""
    if not markup:
        return ""
    if bold:
        markup = f"<B>{markup}</B>"
    attributes = (f' POINT-SIZE="{size:g}"' if size else "") + (f' COLOR="{color}"' if color else "")
    return f"<FONT{attributes}>{markup}</FONT>" if attributes else markup


def cell(markup: str, **attributes: object) -> str:
    """One cell of a table; attributes in lower case, `cell("x", bgcolor="#ffffff", colspan=2)`."""
    return f"<TD{_attributes(attributes)}>{markup}</TD>"


def row(cells: Iterable[str]) -> str:
    """One row of a table."""
    return f"<TR>{''.join(cells)}</TR>"


def table(rows: Iterable[str], **attributes: object) -> str:
    """A table; without attributes it has no lines and no space around its cells."""
    settings = {"border": 0, "cellborder": 0, "cellspacing": 0, "cellpadding": 2, **attributes}
    return f"<TABLE{_attributes(settings)}>{''.join(rows)}</TABLE>"


def label(markup: str) -> str:
    """Markup as the value of a label attribute."""
    return f"<{markup}>"


def _attributes(attributes: dict[str, object]) -> str:
    return "".join(f' {name.upper()}="{value}"' for name, value in attributes.items())
