"""Features of many images: kept in a file, and drawn as points."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy

from siamese_proto.errors import DataError, quoted
from siamese_proto.files import check_writable, replacing
from siamese_proto.metrics.palette import INK, class_style
from siamese_proto.metrics.pictures import one_line, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Floats = NDArray[numpy.floating]
    Labels = NDArray[numpy.integer]

UNKNOWN = -1  # the label of images that nobody says the class of
_IN_LEGEND = 40  # classes at most
_NAMED = 20  # classes at most whose name stands at their middle
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
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
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
    classes = numpy.unique(labels)
    size = 26 if len(points) < 500 else 12 if len(points) < 5000 else 6
    for index, label in enumerate(classes.tolist()):
        colour, marker = class_style(index)
        own = points[labels == label]
        name = _shown(embedding, label) if index < _IN_LEGEND else None
        axes.scatter(own[:, 0], own[:, 1], s=size, marker=marker, color=colour, alpha=0.65, linewidths=0, label=name)
    if 1 < len(classes) <= _NAMED:
        for index, label in enumerate(classes.tolist()):
            _name_middle(axes, points[labels == label], _shown(embedding, label), class_style(index)[0])
    if len(classes) > 1:
        _legend(axes, len(classes))
    axes.set_xlabel(axis_names[0])
    axes.set_ylabel(axis_names[1])
    if points.shape[1] == 2 and embedding.features.shape[1] != 1:
        axes.set_aspect("equal", adjustable="datalim")
    axes.grid(alpha=0.25)


def _shown(embedding: Embedding, label: int) -> str:
    name = embedding.name_of_class(label) if label != UNKNOWN or embedding.class_names else "no class"
    short = one_line(name if len(name) <= 18 else f"{name[:8]}…{name[-9:]}")
    return f" {short}" if short.startswith("_") else short  # matplotlib leaves such names out of legends


def _name_middle(axes: Axes, points: Floats, name: str, colour: str) -> None:
    middle = numpy.median(points, axis=0)  # (2,)
    axes.annotate(
        name,
        (middle[0], middle[1]),
        ha="center",
        va="center",
        fontsize=12,
        fontweight="bold",
        color=INK,
        bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colour, "alpha": 0.85, "linewidth": 1.6},
    )


def _legend(axes: Axes, classes: int) -> None:
    columns = 1 if classes <= 20 else 2
    title = "class" if classes <= _IN_LEGEND else f"class (and {classes - _IN_LEGEND} more)"
    axes.legend(
        title=title,
        ncols=columns,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        fontsize=9,
        markerscale=1.6,
        frameon=False,
        handletextpad=0.3,
    )
