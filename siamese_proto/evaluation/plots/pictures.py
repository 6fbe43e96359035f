"""Writing pictures: only whole ones, in a format that the name tells."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from siamese_proto.errors import DataError, quoted
from siamese_proto.files import check_writable, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARGINS = {"w_pad": 0.09, "h_pad": 0.07}  # inches
FORMATS = (".png", ".svg", ".pdf")


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raise NetError where no picture of this name can be written; said before the work is done."""
    if os.path.splitext(path)[1].lower() not in FORMATS:
        raise DataError(f"picture {quoted(os.fspath(path))}: its name must end in one of {', '.join(FORMATS)}")
    check_writable(path)


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure; the suffix of `path` tells the format."""
    check_picture(path)
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.set(**_MARGINS)
    picture = io.BytesIO()
    figure.savefig(picture, format=os.path.splitext(path)[1].lower().lstrip("."), dpi=130)
    write_atomically(path, picture.getvalue())


def one_line(text: str) -> str:
    """Text that matplotlib shows as it is: what cannot be printed is a question mark, a dollar begins no formula."""
    return "".join(letter if letter.isprintable() else "?" for letter in text).replace("$", r"\$")
