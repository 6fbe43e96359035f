"""Positions of texts in a rendered drawing, measured with Adobe's metrics of Helvetica and Times."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
from matplotlib._afm import AFM
from svg_reader import SVG, classed

SERIF = ("Times-Roman.afm", "Times-Bold.afm")
SANS = ("Helvetica.afm", "Helvetica-Bold.afm")  # Arial and Liberation Sans have the same widths
OTHERS = {"\u00d7": "multiply", "\u00b7": "periodcentered", "\u2026": "ellipsis"}
ABOVE, BELOW = 0.72, 0.20  # extent above and below the baseline, relative to the font size


@dataclass(frozen=True)
class Rectangle:
    """A part of the drawing, y growing downwards."""

    left: float
    top: float
    right: float
    bottom: float
    words: str = ""

    def overlaps(self, other: Rectangle, slack: float = 0.4) -> bool:
        return (
            self.left < other.right - slack
            and other.left < self.right - slack
            and self.top < other.bottom - slack
            and other.top < self.bottom - slack
        )

    def holds(self, other: Rectangle, slack: float = 0.4) -> bool:
        return (
            self.left - slack <= other.left
            and other.right <= self.right + slack
            and self.top - slack <= other.top
            and other.bottom <= self.bottom + slack
        )


@cache
def _metrics(file: str) -> AFM:
    path = Path(matplotlib.get_data_path()) / "fonts" / "pdfcorefonts" / file
    with path.open("rb") as content:
        return AFM(content)


def _width(words: str, file: str, size: float) -> float:
    font = _metrics(file)
    units = sum(font.get_width_from_char_name(OTHERS[c]) if c in OTHERS else font.get_width_char(ord(c)) for c in words)
    return units * size / 1000


def texts(group: ElementTree.Element) -> Iterator[Rectangle]:
    """Yield the rectangle of every text that is not blank."""
    for run in group.iter(f"{SVG}text"):
        words = (run.text or "").replace("\u00a0", " ")
        visible = words.strip()
        if not visible:
            continue
        family = SERIF if "Times" in run.get("font-family", "") else SANS
        file = family[run.get("font-weight") == "bold"]
        size = float(run.get("font-size", "0"))
        left, line = float(run.get("x", "0")), float(run.get("y", "0"))
        if run.get("text-anchor") == "middle":
            left -= _width(words, file, size) / 2
        left += _width(words[: len(words) - len(words.lstrip())], file, size)
        yield Rectangle(left, line - ABOVE * size, left + _width(visible, file, size), line + BELOW * size, visible)


def frame(group: ElementTree.Element) -> Rectangle:
    """Return the outline of a box, which is its widest shape."""
    outlines = [
        _outline(shape.get("d") or shape.get("points") or "")
        for shape in group.iter()
        if shape.tag in (f"{SVG}path", f"{SVG}polygon")
    ]
    return max(outlines, key=lambda outline: outline.right - outline.left)


def _outline(numbers: str) -> Rectangle:
    coordinates = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", numbers)]
    across, down = coordinates[0::2], coordinates[1::2]
    return Rectangle(min(across), min(down), max(across), max(down))


def collisions(rectangles: list[Rectangle]) -> list[tuple[str, str]]:
    """Return pairs of texts that overlap."""
    ordered = sorted(rectangles, key=lambda one: one.top)
    clashes = []
    for place, one in enumerate(ordered):
        for other in ordered[place + 1 :]:
            if other.top > one.bottom:
                break
            if one.overlaps(other):
                clashes.append((one.words, other.words))
    return clashes


def clipped(root: ElementTree.Element) -> list[str]:
    """Return texts that extend beyond their box or frame, and edge labels that overlap a box."""
    boxes = [(group, frame(group)) for group in classed(root, "layer")]
    out = [text.words for group, outline in boxes for text in texts(group) if not outline.holds(text)]
    out += [text.words for group in classed(root, "chip") for text in texts(group) if not frame(group).holds(text)]
    outlines = sorted((outline for _, outline in boxes), key=lambda one: one.top)
    for group in classed(root, "wire"):
        for text in texts(group):
            out += [text.words for outline in outlines if outline.overlaps(text, slack=1.0)]
    return out


def page(root: ElementTree.Element) -> Rectangle:
    """Return the outline of the drawing, which contains everything."""
    background = next(iter(root.iter(f"{SVG}polygon")))
    return _outline(background.get("points", ""))
