"""Contact sheets: pairs with their distances, and images with their names."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy

from siamese_proto.evaluation.pair_distances import HardPair
from siamese_proto.evaluation.plots.style import DIFFERENT, INK, SAME, one_line, save_figure
from siamese_proto.evaluation.preprocess import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

_SHARP_BELOW = 128  # smaller pictures are enlarged pixel by pixel
_NAME_WIDTH = 22  # letters in a line below a picture


@dataclass(frozen=True)
class Cell:
    """A picture of a sheet."""

    picture: Picture
    title: str  # above it
    name: str = ""  # below it
    color: str = INK


def plot_pairs(pairs: Sequence[HardPair], threshold: float, path: str | os.PathLike[str], title: str = "") -> None:
    """Draw the hardest pairs with their distances: those of one class, the farthest first, and then the others."""
    from matplotlib.figure import Figure

    kinds = [[pair for pair in pairs if pair.same == same] for same in (True, False)]
    columns = 6
    rows = [max(1, math.ceil(len(kind) / columns)) for kind in kinds]
    figure = Figure(figsize=(1.9 * columns, 1.25 * sum(rows) + 1.9), layout="constrained")
    figure.suptitle(one_line(title or "The hardest pairs"), fontsize=14)
    for part, kind, same, count in zip(stack(figure, rows), kinds, (True, False), rows, strict=True):
        draw_pairs(part, kind, threshold, same=same, columns=columns, rows=count)
    save_figure(figure, path)


def stack(figure: Figure | SubFigure, heights: Sequence[float]) -> list[SubFigure]:
    """Split a figure into parts of these relative heights, one below the other."""
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
    """Draw rows of pairs of one kind; those on the wrong side of the threshold have a bold distance."""
    kind = "of one class that are far apart" if same else "of two classes that are close"
    heading = f"Pairs {kind} (threshold {threshold:.3g}; bold: errors)"
    figure.suptitle(heading, fontsize=11, color=SAME if same else DIFFERENT, x=0.01, ha="left")
    for axes, pair in zip(_grid(figure, rows, columns), pairs, strict=False):
        wrong = (pair.distance < threshold) != pair.same
        _show(axes, _side_by_side(*pair.pictures))
        axes.set_title(f"{pair.distance:.3f}", fontsize=10, fontweight="bold" if wrong else "normal", pad=3)


def _grid(figure: Figure | SubFigure, rows: int, columns: int) -> list[Axes]:
    """Fill a figure with empty axes; returns them row by row."""
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid:
        axes.axis("off")
    return grid


def _side_by_side(first: Picture, second: Picture) -> Picture:
    """Join two pictures with a white line between them."""
    height = max(len(first), len(second))
    padded = []
    for picture in (first, second):
        color = picture if picture.ndim == 3 else numpy.repeat(picture[:, :, None], 3, axis=2)
        padded.append(numpy.pad(color, ((0, height - len(color)), (0, 0), (0, 0)), constant_values=255))
    gap = numpy.full((height, max(1, height // 14), 3), 255, numpy.uint8)
    return numpy.concatenate([padded[0], gap, padded[1]], axis=1)


def _show(axes: Axes, picture: Picture) -> None:
    settings: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture.ndim == 2 else {}
    sharp = max(picture.shape[:2]) < _SHARP_BELOW
    axes.imshow(picture, interpolation="nearest" if sharp else "antialiased", **settings)


def plot_cells(
    cells: Sequence[Cell],
    path: str | os.PathLike[str],
    title: str = "",
    *,
    columns: int = 6,
    footer: str = "",
    footer_color: str = INK,
) -> None:
    """Draw a sheet of pictures with a title and a name each, row by row, and a footer."""
    from matplotlib.figure import Figure

    columns = min(columns, len(cells))
    rows = math.ceil(len(cells) / columns)
    figure = Figure(figsize=(max(5.0, 1.9 * columns), 2.55 * rows + 0.4 + 0.4 * bool(footer)), layout="constrained")
    if title:
        figure.suptitle(one_line(title), fontsize=13)
    for axes, cell in zip(_grid(figure, rows, columns), cells, strict=False):
        _show(axes, cell.picture)
        axes.set_title(cell.title, fontsize=11, color=cell.color, pad=4)
        axes.text(0.5, -0.04, _wrap(cell.name), fontsize=9, color=INK, ha="center", va="top", transform=axes.transAxes)
    if footer:
        figure.supxlabel(footer, fontsize=13 if rows == 1 else 10, color=footer_color)
    save_figure(figure, path)


def _wrap(name: str) -> str:
    """Wrap a name to at most two lines; of a longer one the end, which says more about a path."""
    lines = textwrap.wrap(name, _NAME_WIDTH, break_long_words=True)
    if len(lines) > 2:
        lines = [f"…{name[1 - 2 * _NAME_WIDTH : -_NAME_WIDTH]}", name[-_NAME_WIDTH:]]
    return "\n".join(map(one_line, lines))
