"""Features of many images: kept in a file, and drawn as points."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy

from siamese_proto.errors import DataError, quoted
from siamese_proto.evaluation.plots.palette import INK, class_style
from siamese_proto.evaluation.plots.pictures import one_line, save_figure
from siamese_proto.files import check_writable, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Floats = NDArray[numpy.floating]
    Labels = NDArray[numpy.integer]

UNKNOWN = -1  # the label of images that nobody says the class of
_IN_LEGEND = 40  # classes at most
_NAMED = 20  # classes at most whose name stands at their middle
_NAME_ROOM = 0.06  # of the width of all points, between the names of two classes
_POINTS = 20_000  # at most, of which pictures are made


@dataclass(frozen=True)
class Embedding:
    """Features (N, *K), the class of each image (N,), -1 where nobody says it, and what the images are called."""

    features: Floats
    labels: Labels
    names: Sequence[str]
    class_names: Mapping[int, str] = field(default_factory=dict)
    made_by: Mapping[str, Any] = field(default_factory=dict)  # the net and its weights, as `evaluation.Subject`

    def name_of_class(self, label: int) -> str:
        """The class's name, or its number."""
        return self.class_names.get(label, str(label))


def save_features(embedding: Embedding, path: str | os.PathLike[str]) -> None:
    """Write `.npz` (features, labels, names, class_names) or `.npy` (the features alone), without pickled objects."""
    check_writable(path)
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in (".npz", ".npy"):
        raise DataError(f"{quoted(os.fspath(path))}: features are written to a .npy or a .npz file")
    classes = [embedding.name_of_class(label) for label in embedding.labels.tolist()]
    with replacing(path) as partial, open(partial, "wb") as file:
        if suffix == ".npy":
            numpy.save(file, embedding.features, allow_pickle=False)
            return
        numpy.savez(
            file,
            allow_pickle=False,
            features=embedding.features,
            labels=embedding.labels,
            names=numpy.array([_clean(name) for name in embedding.names], dtype=str),
            class_names=numpy.array([_clean(name) for name in classes], dtype=str),
            made_by=numpy.array(json.dumps(embedding.made_by)),
        )


def _clean(name: str) -> str:
    return name.encode(errors="surrogateescape").decode(errors="replace")


def read_features(path: str | os.PathLike[str]) -> Embedding:
    """Read a `.npz` of `save_features` again; DataError where it is none."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            arrays = numpy.load(file, allow_pickle=False)
            if not isinstance(arrays, numpy.lib.npyio.NpzFile):
                raise DataError(f"{quoted(name)} holds an array without names or labels; give a .npz of 'embed'")
            features, labels, names, classes = (arrays[key] for key in ("features", "labels", "names", "class_names"))
            made_by = json.loads(str(arrays["made_by"])) if "made_by" in arrays.files else {}
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
    except DataError:
        raise
    except Exception as error:  # for damaged files, NumPy and zipfile raise exceptions of any type
        raise DataError(f"{quoted(name)} is no .npz of 'siamese-proto embed' ({error})") from error
    if features.ndim < 2 or not len(features) or not len(features) == len(labels) == len(names) == len(classes):
        raise DataError(f"{quoted(name)} is no .npz of 'siamese-proto embed': its arrays are not of one length")
    by_label = {int(label): str(text) for label, text in zip(labels, classes, strict=True)}
    named = {label: text for label, text in by_label.items() if text != str(label)}
    return Embedding(features.reshape(len(features), -1), labels, [str(text) for text in names], named, made_by)


def as_made_by(subject: Any) -> Mapping[str, Any]:
    """What a file of features keeps of the net (an `evaluation.Subject`) that made them."""
    return asdict(subject)


# As a picture


def flattened(features: Floats) -> tuple[Floats, list[str]]:
    """Features (N, K) as points (N, 2) and the names of the two axes: as they are, or the two main components."""
    if not numpy.isfinite(features).all():
        raise DataError("features that are not finite cannot be drawn")
    width = features.shape[1]
    if width == 2:
        return features, ["feature 0", "feature 1"]
    if width == 1:
        scatter = numpy.random.default_rng(0).uniform(-1, 1, len(features))
        return numpy.stack([features[:, 0], scatter], axis=1), ["feature 0", "(spread by chance)"]
    if len(features) < 2:
        return numpy.zeros((len(features), 2)), ["component 1", "component 2"]
    from sklearn.decomposition import PCA

    if not numpy.ptp(features, axis=0).any():
        return numpy.zeros((len(features), 2)), ["component 1 (0 % of the variance)", "component 2 (0 %)"]
    fitted = PCA(2, random_state=0, svd_solver="auto").fit(features)
    shares = fitted.explained_variance_ratio_
    names = [
        f"component {place + 1} ({part:.0%} of the variance of {width} features)" for place, part in enumerate(shares)
    ]
    return fitted.transform(features), names


def plot_embedding(embedding: Embedding, path: str | os.PathLike[str], title: str = "") -> None:
    """The points of an embedding, one colour a class (and other marks from the eleventh class on), with a legend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 6.6), layout="constrained")
    axes = figure.add_subplot()
    draw_embedding(axes, embedding)
    axes.set_title(one_line(title), fontsize=13)
    save_figure(figure, path)


def plot_features(features: Floats, labels: Labels, path: str | os.PathLike[str], title: str = "") -> None:
    """Features (N, K) as points, one colour a class (N,); the suffix of `path` tells the format."""
    plot_embedding(Embedding(features, labels, [""] * len(labels)), path, title)


def draw_embedding(axes: Axes, embedding: Embedding) -> None:
    """Draw the points, at most 20,000 of them, drawn by chance."""
    points, axis_names = flattened(embedding.features)
    labels = embedding.labels
    if len(points) > _POINTS:
        chosen = numpy.sort(numpy.random.default_rng(0).choice(len(points), _POINTS, replace=False))
        points, labels = points[chosen], labels[chosen]
    classes = numpy.unique(labels).tolist()
    styles = {label: class_style(index) for index, label in enumerate(classes)}
    _scatter(axes, points, labels, styles)
    if 1 < len(classes) <= _NAMED:
        _name_middles(axes, points, labels, {label: _shown(embedding, label) for label in classes})
    if len(classes) > 1:
        _legend(axes, [(_shown(embedding, label), *styles[label]) for label in classes])
    axes.set_xlabel(axis_names[0])
    axes.set_ylabel(axis_names[1])
    if points.shape[1] == 2 and embedding.features.shape[1] != 1:
        axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.25)


def _shown(embedding: Embedding, label: int) -> str:
    name = embedding.name_of_class(label) if label != UNKNOWN or embedding.class_names else "no class"
    short = one_line(name if len(name) <= 18 else f"{name[:8]}…{name[-9:]}")
    return f" {short}" if short.startswith("_") else short  # matplotlib leaves such names out of legends


def _scatter(axes: Axes, points: Floats, labels: Labels, styles: Mapping[int, tuple[str, str]]) -> None:
    """Points in an order by chance, so that no class hides the others."""
    size = 26 if len(points) < 500 else 12 if len(points) < 5000 else 6
    shuffled = numpy.random.default_rng(0).permutation(len(points))
    markers = numpy.array([styles[label][1] for label in labels.tolist()])
    colours = numpy.array([styles[label][0] for label in labels.tolist()])
    for marker in dict.fromkeys(markers.tolist()):
        rows = shuffled[markers[shuffled] == marker]
        own: dict[str, Any] = {"marker": marker, "s": size, "alpha": 0.65, "linewidths": 0}
        axes.scatter(points[rows, 0], points[rows, 1], c=colours[rows].tolist(), **own)


def _name_middles(axes: Axes, points: Floats, labels: Labels, names: Mapping[int, str]) -> None:
    """Names at the middles of their classes, where there is room for them."""
    span = max(float(numpy.ptp(points, axis=0).max()), 1e-12)
    placed: list[Floats] = []
    for index, (label, name) in enumerate(names.items()):
        middle = numpy.median(points[labels == label], axis=0)  # (2,)
        if any(numpy.abs(middle - other).max() < span * _NAME_ROOM for other in placed):
            continue
        placed.append(middle)
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": class_style(index)[0], "alpha": 0.85}
        text: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 12, "fontweight": "bold", "color": INK}
        axes.annotate(name, (middle[0], middle[1]), bbox={**box, "linewidth": 1.6}, **text)


def _legend(axes: Axes, classes: Sequence[tuple[str, str, str]]) -> None:
    """Names, colours and markers of the classes beside the plot."""
    from matplotlib.lines import Line2D

    more = len(classes) - _IN_LEGEND
    axes.legend(
        handles=[
            Line2D([], [], linestyle="", marker=marker, color=colour, label=name)
            for name, colour, marker in classes[:_IN_LEGEND]
        ],
        title="class" if more <= 0 else f"class (and {more} more)",
        ncols=1 if len(classes) <= 20 else 2,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        fontsize=9,
        frameon=False,
        handletextpad=0.3,
    )
