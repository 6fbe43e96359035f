"""Pictures of what a net has learned."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from siamese_proto.files import write_atomically

if TYPE_CHECKING:
    import numpy
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


def plot_features(
    features: NDArray[numpy.float32], labels: NDArray[numpy.uint8], path: str | os.PathLike[str], title: str = ""
) -> None:
    """Two-dimensional features (N, 2) as points, one colour a class (N,); the suffix of `path` tells the format."""
    import numpy
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.add_subplot()
    classes = numpy.unique(labels)
    for index, name in enumerate(classes):
        points = features[labels == name]  # (n, 2)
        axes.plot(*points.T, ".", markersize=4, alpha=0.6, color=f"C{index % 10}", label=str(name))
        axes.annotate(
            str(name),
            numpy.median(points, axis=0),
            ha="center",
            va="center",
            fontsize=13,
            fontweight="bold",
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": f"C{index % 10}", "alpha": 0.85},
        )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(title)
    axes.grid(alpha=0.25)
    _save(figure, path)


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    picture = io.BytesIO()
    figure.savefig(picture, format=os.path.splitext(path)[1].lstrip(".") or "png", dpi=130)
    write_atomically(path, picture.getvalue())
