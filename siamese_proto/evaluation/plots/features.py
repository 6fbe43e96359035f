"""Features as points in the plane."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy

from siamese_proto.errors import DataError
from siamese_proto.evaluation.features import UNKNOWN, Embedding, Labels
from siamese_proto.evaluation.plots.style import INK, class_style, one_line, save_figure
from siamese_proto.evaluation.twin import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_IN_LEGEND = 40  # classes at most
_LABELED = 20  # classes at most, to have their names among the points
_LABEL_DISTANCE = 0.06  # at least, between two names, as a fraction of the width of all points
_POINTS = 20_000  # at most


def project(features: Floats) -> tuple[Floats, list[str]]:
    """Project features (N, K) to points (N, 2), by PCA if there are more than two, and name the two axes."""
    if not numpy.isfinite(features).all():
        raise DataError("features that are not finite cannot be drawn")
    count, width = features.shape
    if width == 2:
        return features, ["feature 0", "feature 1"]
    if width == 1:
        jitter = numpy.random.default_rng(0).uniform(-1, 1, count)
        return numpy.stack([features[:, 0], jitter], axis=1), ["feature 0", "(random jitter)"]
    if not numpy.ptp(features, axis=0).any():
        return numpy.zeros((count, 2)), ["component 1", "component 2"]
    from sklearn.decomposition import PCA

    pca = PCA(2, random_state=0, svd_solver="auto").fit(features)
    names = [
        f"component {number} ({share:.0%} of the variance of {width} features)"
        for number, share in enumerate(pca.explained_variance_ratio_, 1)
    ]
    return pca.transform(features), names


def plot_embedding(embedding: Embedding, path: str | os.PathLike[str], title: str = "") -> None:
    """Draw the points of an embedding, with a color and a marker for each class, and a legend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 6.6), layout="constrained")
    axes = figure.add_subplot()
    draw_embedding(axes, embedding)
    axes.set_title(one_line(title), fontsize=13)
    save_figure(figure, path)


def draw_embedding(axes: Axes, embedding: Embedding) -> None:
    """Draw the points, or a random sample of 20,000 of them."""
    from matplotlib.lines import Line2D

    points, axis_names = project(embedding.features)
    labels = embedding.labels
    if len(points) > _POINTS:
        chosen = numpy.sort(numpy.random.default_rng(0).choice(len(points), _POINTS, replace=False))
        points, labels = points[chosen], labels[chosen]
    names = {label: _short_name(embedding, label) for label in numpy.unique(labels).tolist()}
    _draw_points(axes, points, labels)
    if 1 < len(names) <= _LABELED:
        _draw_names(axes, points, labels, names)
    if len(names) > 1:
        handles = []
        for index, name in enumerate(list(names.values())[:_IN_LEGEND]):
            color, marker = class_style(index)
            handles.append(Line2D([], [], linestyle="", marker=marker, color=color, label=name))
        axes.legend(
            handles=handles,
            title="class" if len(names) <= _IN_LEGEND else f"class (and {len(names) - _IN_LEGEND} more)",
            ncols=1 if len(names) <= 20 else 2,
            loc="center left",
            bbox_to_anchor=(1.01, 0.5),
            fontsize=9,
            frameon=False,
            handletextpad=0.3,
        )
    axes.set_xlabel(axis_names[0])
    axes.set_ylabel(axis_names[1])
    if embedding.features.shape[1] != 1:
        axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.25)


def _short_name(embedding: Embedding, label: int) -> str:
    name = embedding.name_of_class(label) if label != UNKNOWN or embedding.class_names else "no class"
    short = one_line(name if len(name) <= 18 else f"{name[:8]}…{name[-9:]}")
    return f" {short}" if short.startswith("_") else short  # matplotlib leaves such names out of legends


def _draw_points(axes: Axes, points: Floats, labels: Labels) -> None:
    """Draw points in random order, so that no class hides the others."""
    size = 26 if len(points) < 500 else 12 if len(points) < 5000 else 6
    shuffled = numpy.random.default_rng(0).permutation(len(points))
    styles = [class_style(index) for index in numpy.unique(labels, return_inverse=True)[1].tolist()]
    colors, markers = (numpy.array(column) for column in zip(*styles, strict=True))
    for marker in dict.fromkeys(markers.tolist()):
        rows = shuffled[markers[shuffled] == marker]
        x, y = points[rows].T
        axes.scatter(x, y, c=colors[rows].tolist(), marker=marker, s=size, alpha=0.65, linewidths=0)


def _draw_names(axes: Axes, points: Floats, labels: Labels, names: Mapping[int, str]) -> None:
    """Write names at the medians of their classes, where there is enough room."""
    span = max(float(numpy.ptp(points, axis=0).max()), 1e-12)
    placed: list[Floats] = []
    for index, (label, name) in enumerate(names.items()):
        middle = numpy.median(points[labels == label], axis=0)  # (2,)
        if any(numpy.abs(middle - other).max() < span * _LABEL_DISTANCE for other in placed):
            continue
        placed.append(middle)
        axes.annotate(
            name,
            (middle[0], middle[1]),
            ha="center",
            va="center",
            fontsize=12,
            fontweight="bold",
            color=INK,
            bbox={
                "boxstyle": "round,pad=0.2",
                "facecolor": "white",
                "edgecolor": class_style(index)[0],
                "alpha": 0.85,
                "linewidth": 1.6,
            },
        )
