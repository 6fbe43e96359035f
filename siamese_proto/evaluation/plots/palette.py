"""Colours that people who see colours differently can tell apart, and how classes are marked."""

from __future__ import annotations

SAME, DIFFERENT = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermilion
ACCENT, INK, QUIET = "#009E73", "#222222", "#8A8A8A"
# Paul Tol's "muted" scheme, its pale grey left out, and black.
CLASSES = (
    "#332288",
    "#88CCEE",
    "#CC6677",
    "#117733",
    "#DDCC77",
    "#882255",
    "#44AA99",
    "#AA4499",
    "#999933",
    "#222222",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def class_style(index: int) -> tuple[str, str]:
    """Colour and marker of class number `index`: where colours come round again, the marker is another."""
    return CLASSES[index % len(CLASSES)], MARKERS[index // len(CLASSES) % len(MARKERS)]
