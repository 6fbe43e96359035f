"""Contact sheets: pairs with their distances, and images that were found."""

from __future__ import annotations

import base64
import io
import math
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy
from PIL import Image

from siamese_proto.evaluation.plots.palette import DIFFERENT, INK, SAME
from siamese_proto.evaluation.plots.pictures import one_line, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from numpy.typing import NDArray

    from siamese_proto.evaluation.pair_distances import HardPair

    Picture = NDArray[numpy.uint8]  # (H, W) or (H, W, 3)

_KEPT_SIDE = 64  # pixels, of pictures in a file of results
_SHARP_BELOW = 64  # smaller pictures are enlarged pixel by pixel
_NAME_WIDTH = 22  # letters in a line below a picture


@dataclass(frozen=True)
class Cell:
    """A picture of a sheet."""

    picture: Picture
    title: str  # above it
    name: str = ""  # below it
    colour: str = INK


def picture_to_text(picture: Picture) -> str:
    """A small PNG of a picture, in base64."""
    image = Image.fromarray(picture)
    image.thumbnail((_KEPT_SIDE, _KEPT_SIDE))
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return base64.b64encode(content.getvalue()).decode("ascii")


def picture_from_text(text: str) -> Picture:
    """The picture in such a text; ValueError where there is none."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as image:
            return numpy.asarray(image if image.mode == "L" else image.convert("RGB"))
    except OSError as error:
        raise ValueError(str(error)) from error


def plot_pairs(pairs: Sequence[HardPair], threshold: float, path: str | os.PathLike[str], title: str = "") -> None:
    """The hardest pairs with their distances: first those of one class, the farthest apart first, then the others."""
    from matplotlib.figure import Figure

    kinds = [[pair for pair in pairs if pair.same == same] for same in (True, False)]
    columns = 6
    rows = [max(1, math.ceil(len(kind) / columns)) for kind in kinds]
    figure = Figure(figsize=(1.9 * columns, 1.25 * sum(rows) + 1.9), layout="constrained")
    figure.suptitle(one_line(title or "The hardest pairs"), fontsize=14)
    for part, kind, same, count in zip(stacked(figure, rows), kinds, (True, False), rows, strict=True):
        draw_pairs(part, kind, threshold, same=same, columns=columns, rows=count)
    save_figure(figure, path)


def stacked(figure: Figure | SubFigure, heights: Sequence[float]) -> list[SubFigure]:
    """Parts of a figure, one below the other."""
    parts = figure.subfigures(len(heights), 1, height_ratios=list(heights))
    return list(numpy.atleast_1d(numpy.asarray(parts, object)))


def draw_pairs(
    figure: Figure | SubFigure,
    pairs: Sequence[HardPair],
    threshold: float,
    *,
    same: bool,
    columns: int,
    rows: int = 1,
) -> None:
    """A row or several of pairs of one kind; those on the wrong side of the threshold have a bold distance."""
    kind = "of one class, but far apart" if same else "of two classes, but close together"
    heading = f"Pairs {kind} (threshold {threshold:.3g}; bold: taken wrongly)"
    figure.suptitle(heading, fontsize=11, color=SAME if same else DIFFERENT, x=0.01, ha="left")
    grid = figure.subplots(rows, columns, squeeze=False)
    for place, axes in enumerate(grid.flat):
        axes.axis("off")
        if place < len(pairs):
            pair = pairs[place]
            wrong = (pair.distance < threshold) != pair.same
            _show(axes, beside(*pair.pictures))
            axes.set_title(f"{pair.distance:.3f}", fontsize=10, fontweight="bold" if wrong else "normal", pad=3)


def beside(first: Picture, second: Picture) -> Picture:
    """Two pictures side by side with a white line between, as high as the higher one."""
    colours = [
        picture if picture.ndim == 3 else numpy.repeat(picture[:, :, None], 3, axis=2) for picture in (first, second)
    ]
    height = max(len(picture) for picture in colours)
    padded = [
        numpy.pad(picture, ((0, height - len(picture)), (0, 0), (0, 0)), constant_values=255) for picture in colours
    ]
    gap = numpy.full((height, max(1, height // 14), 3), 255, numpy.uint8)
    return numpy.concatenate([padded[0], gap, padded[1]], axis=1)


def _show(axes: Axes, picture: Picture) -> None:
    settings: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture.ndim == 2 else {}
    sharp = max(picture.shape[:2]) < 2 * _SHARP_BELOW
    axes.imshow(picture, interpolation="nearest" if sharp else "antialiased", **settings)


def plot_cells(
    cells: Sequence[Cell],
    path: str | os.PathLike[str],
    title: str = "",
    *,
    columns: int = 6,
    footer: str = "",
    footer_colour: str = INK,
) -> None:
    """A sheet of pictures with a title and a name each, row by row, and a line below them all."""
    from matplotlib.figure import Figure

    columns = min(columns, len(cells))
    rows = math.ceil(len(cells) / columns)
    figure = Figure(figsize=(max(5.0, 1.9 * columns), 2.55 * rows + 0.4 + 0.4 * bool(footer)), layout="constrained")
    if title:
        figure.suptitle(one_line(title), fontsize=13)
    for place, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axes.axis("off")
        if place < len(cells):
            cell = cells[place]
            _show(axes, cell.picture)
            axes.set_title(cell.title, fontsize=11, color=cell.colour, pad=4)
            below = {"ha": "center", "va": "top", "transform": axes.transAxes}
            axes.text(0.5, -0.04, _lines(cell.name), fontsize=9, color=INK, **below)
    if footer:
        figure.supxlabel(footer, fontsize=13 if rows == 1 else 10, color=footer_colour)
    save_figure(figure, path)


def _lines(name: str) -> str:
    """A name in two lines at most; of a longer one its end, which tells more of a path."""
    lines = textwrap.wrap(name, _NAME_WIDTH, break_long_words=True)
    if len(lines) > 2:
        lines = [f"…{name[1 - 2 * _NAME_WIDTH : -_NAME_WIDTH]}", name[-_NAME_WIDTH:]]
    return "\n".join(map(one_line, lines))
