"""Colours of the drawing."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

INK = "#1f2933"
FAINT = "#6b7785"
WIRE = "#52606d"
PAPER = "#ffffff"
LABEL_WIRE = "#b8c1cb"
ALARM = "#c62828"


@dataclass(frozen=True)
class Paint:
    """Fill and line of a box."""

    fill: str
    line: str


LEARNED = Paint("#ffffff", "#334155")
PLAIN = Paint("#eef1f4", "#94a3b8")
DATA = Paint("#e3edf7", "#4a6fa5")
LOSS = Paint("#fdeaea", "#b23b3b")
UNKNOWN = Paint("#fffbe6", "#b8860b")
PRIVATE = Paint("#f1f3f5", "#aab4bf")

# hues (turns of the circle) that follow each other with the widest steps, red left to what is wrong
_HUES = (0.58, 0.12, 0.40, 0.78, 0.07, 0.50, 0.90, 0.24, 0.66, 0.16)
_GOLDEN = 0.6180339887


def shared_paint(owner: int, blob: int) -> Paint:
    """The colour of a shared parameter: one hue a layer that owns some, paler with each of its blobs."""
    hue = _HUES[owner] if owner < len(_HUES) else (owner * _GOLDEN) % 1.0
    lightness = (0.76, 0.87, 0.81, 0.91)[blob % 4]
    return Paint(_hex(hue, lightness, 0.68), _hex(hue, 0.40, 0.60))


def _hex(hue: float, lightness: float, saturation: float) -> str:
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in colorsys.hls_to_rgb(hue, lightness, saturation))
