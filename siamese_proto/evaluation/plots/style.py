"""The style of all plots: colors for color-blind readers too, class markers, text, and how files are written."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from siamese_proto.errors import DataError, quoted
from siamese_proto.files import check_writable, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAME, DIFFERENT = "#0072B2", "#D55E00"  # blue and vermilion of Okabe and Ito
ACCENT, INK, QUIET = "#009E73", "#222222", "#8A8A8A"
# Paul Tol's "muted" scheme without its pale gray, and black.
CLASSES = ["#332288", "#88CCEE", "#CC6677", "#117733", "#DDCC77", "#882255", "#44AA99", "#AA4499", "#999933", "#222222"]
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FORMATS = (".png", ".svg", ".pdf")
_MARGINS = {"w_pad": 0.09, "h_pad": 0.07}  # inches


def class_style(index: int) -> tuple[str, str]:
    """Return color and marker of class number `index`: where the colors repeat, the marker changes."""
    return CLASSES[index % len(CLASSES)], MARKERS[index // len(CLASSES) % len(MARKERS)]


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raise NetError, before any work is done, if a picture of this name cannot be written."""
    if os.path.splitext(path)[1].lower() not in FORMATS:
        raise DataError(f"picture {quoted(os.fspath(path))}: its name must end in one of {', '.join(FORMATS)}")
    check_writable(path)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure in the format of the suffix of `path`."""
    check_picture(path)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(**_MARGINS)
    picture = io.BytesIO()
    figure.savefig(picture, format=os.path.splitext(path)[1].lower().lstrip("."), dpi=130)
    write_atomically(path, picture.getvalue())


def one_line(text: str) -> str:
    """Return text that matplotlib shows literally: unprintable characters are `?`, and a dollar starts no formula."""
    return "".join(letter if letter.isprintable() else "?" for letter in text).replace("$", r"\$")
