"""What one does with a trained twin: features of images, two images compared, the nearest of many."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy

from siamese_proto.data.images.labelled import LabelledImages
from siamese_proto.data.images.pair_lines import SUFFIXES
from siamese_proto.errors import DataError, escaped, quoted
from siamese_proto.evaluation.features import UNKNOWN, Embedding, as_made_by, read_features
from siamese_proto.evaluation.pair_sources import image_files, labelled_images
from siamese_proto.evaluation.plots.palette import DIFFERENT, INK, QUIET, SAME
from siamese_proto.evaluation.plots.pictures import FORMATS, check_picture
from siamese_proto.evaluation.plots.sheets import Cell, plot_cells
from siamese_proto.evaluation.preprocess import pictures_of
from siamese_proto.evaluation.report import Evaluation, Subject
from siamese_proto.evaluation.twin import Twin
from siamese_proto.files import check_writable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Picture = NDArray[numpy.uint8]
    Floats = NDArray[numpy.floating]

Progress = Callable[[int], None]


def _ignore(done: int) -> None:
    """What is told of the progress where nobody asks."""


def check_output(path: str) -> None:
    """Raise NetError where neither features nor a picture can be written under this name."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in (".npz", ".npy"):
        check_writable(path)
    elif suffix in FORMATS:
        check_picture(path)
    else:
        raise DataError(f"{quoted(path)}: its name must end in .npz, .npy, {', '.join(FORMATS)}")


def open_images(
    twin: Twin, sources: Sequence[str], *, labels: str = "", root_folder: str = "", classes: str = ""
) -> LabelledImages:
    """Images as the net takes them: labelled ones of one source, or files and folders without classes (label -1)."""
    preparation = twin.preparation()
    if len(sources) == 1 and not _is_plain(sources[0]):
        return labelled_images(sources[0], preparation, labels=labels, root_folder=root_folder, classes=classes)
    if labels or classes:
        raise DataError(f"{quoted(sources[0])} is no source of labelled images, so it has no classes to choose from")
    return image_files(sources, preparation)


def _is_plain(path: str) -> bool:
    """Whether a path is an image file, or a folder with images of its own."""
    if os.path.isdir(path):
        entries = [entry for entry in os.scandir(path) if not entry.name.startswith(".")]
        return not entries or any(_is_image(entry.name) and entry.is_file() for entry in entries)
    return _is_image(path)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES and not os.path.basename(name).startswith(".")


def embed_sources(
    twin: Twin,
    sources: Sequence[str],
    subject: Subject,
    *,
    side: int = 0,
    labels: str = "",
    root_folder: str = "",
    classes: str = "",
    progress: Progress = _ignore,
) -> Embedding:
    """The features of images; DataError naming the image where one cannot be read."""
    with open_images(twin, sources, labels=labels, root_folder=root_folder, classes=classes) as images:
        features = twin.embed_images(images, side=side, progress=progress)
        made_by = as_made_by(subject)
        return Embedding(features, images.labels, list(images.names), dict(images.class_names), made_by)


# Two images


@dataclass(frozen=True)
class Compared:
    """Two images, how far they are apart, and what that means."""

    first: str
    second: str
    images: str  # how they were prepared
    metric: str
    distance: float
    score: float  # from 0, different, to 1, the same
    score_is: str
    threshold: float | None
    verdict: str | None  # "same" or "different"; None without a threshold


def compare_files(
    twin: Twin,
    first: str,
    second: str,
    judged: Evaluation | None,
    subject: Subject,
    threshold: float | None = None,
) -> Compared:
    """Compare two image files; `judged` gives the threshold and the calibration of the score.

    Raises DataError where an image cannot be read, and where `judged` is of other weights or of another distance.
    """
    features = [twin.embed_images(_one_image(twin, path, side), side=side) for side, path in enumerate((first, second))]
    distance = float(twin.metric.rows(*features)[0])
    if not math.isfinite(distance):
        raise DataError("the distance is not finite; are these the weights of a training that diverged?")
    _check_same(judged, subject)
    score, score_is = _score(twin, distance, judged)
    if threshold is None and judged is not None and judged.judgement is not None:
        threshold = judged.judgement.verdicts.threshold
    if threshold is None and twin.metric.kind == "LEARNED":
        threshold = 0.5
    verdict = None if threshold is None else "same" if distance < threshold else "different"
    metric = twin.metric.kind.lower()
    return Compared(first, second, str(twin.preparation()), metric, distance, score, score_is, threshold, verdict)


def _one_image(twin: Twin, path: str, side: int = 0) -> LabelledImages:
    """The image of a file; DataError for a folder, of which nobody says which image is meant."""
    if os.path.isdir(path):
        raise DataError(f"{quoted(path)} is a folder; give one image of it")
    return image_files([path], twin.preparation(side))


def _check_same(judged: Evaluation | None, subject: Subject) -> None:
    if judged is None:
        return
    if judged.judgement is None:
        raise DataError("the result of 'evaluate' has no pairs, so no threshold; evaluate on pairs")
    if judged.subject.distance != subject.distance:
        raise DataError(
            f"the result of 'evaluate' is of the {judged.subject.distance.lower()} distance, not of "
            f"{subject.distance.lower()}; give --distance {judged.subject.distance.lower()}"
        )
    if judged.subject.digest != subject.digest:
        raise DataError("the result of 'evaluate' is of other weights; evaluate these, and give the result of that")


def _score(twin: Twin, distance: float, judged: Evaluation | None) -> tuple[float, str]:
    if twin.metric.kind == "LEARNED":
        return 1 - distance, "the net's own probability of the same"
    if judged is not None and judged.judgement is not None:
        return judged.judgement.calibration(distance), "chance of the same, calibrated on evaluated pairs"
    bounded = min(max(distance, -700.0), 700.0)
    return min(1.0, 2 / (1 + math.exp(bounded))), "2 / (1 + exp(distance)), not calibrated"


def as_lines(found: Compared) -> str:
    """What was found, for people."""
    lines = [
        f"{escaped(found.first)} and {escaped(found.second)}",
        f"images    {found.images}",
        f"distance  {found.distance:.4f} ({found.metric})",
        f"score     {found.score:.4f} ({found.score_is})",
    ]
    if found.verdict is None:
        return "\n".join([*lines, "verdict   none without a threshold: give --threshold, or --evaluated FILE"])
    sign = "<" if found.verdict == "same" else ">="
    return "\n".join([*lines, f"verdict   {found.verdict} (distance {sign} {found.threshold:.4f})"])


def plot_comparison(twin: Twin, found: Compared, path: str) -> None:
    """Both images as the net takes them, and the distance under them."""
    pictures = [
        _picture(image_files([name], twin.preparation(side)), 0)
        for side, name in enumerate((found.first, found.second))
    ]
    cells = [
        Cell(picture, "", os.path.basename(name))
        for picture, name in zip(pictures, (found.first, found.second), strict=True)
    ]
    verdict = "" if found.verdict is None else f": {found.verdict}"
    colour = {"same": SAME, "different": DIFFERENT}.get(found.verdict or "", INK)
    footer = f"distance {found.distance:.3f}{verdict}\nscore {found.score:.3f}"
    if found.threshold is not None:
        footer += f", threshold {found.threshold:.3f}"
    plot_cells(cells, path, columns=2, footer=footer, footer_colour=colour)


def _picture(images: LabelledImages, row: int) -> Picture:
    picture: Picture = pictures_of(images.image(row)[None])[0]
    return picture


# The nearest of many


@dataclass(frozen=True)
class Found:
    """An image that was found."""

    distance: float
    name: str
    class_name: str  # empty where nobody says its class


def search_images(
    twin: Twin,
    query: str,
    source: str,
    subject: Subject,
    *,
    count: int = 10,
    labels: str = "",
    root_folder: str = "",
    progress: Progress = _ignore,
) -> tuple[list[Found], list[Picture]]:
    """The images of `source` nearest to the image file `query`, which is left out itself, and pictures of them.

    `source` is labelled images, a folder, or a .npz of `save_features` of the same weights: then only images that lie
    in files have pictures. Raises DataError where an image cannot be read.
    """
    asked = twin.embed_images(_one_image(twin, query))
    side = 1 if twin.towers_differ else 0
    images: LabelledImages | None = None
    if source.lower().endswith(".npz"):
        embedding = read_features(source)
        _check_features(embedding, asked, source, subject)
    else:
        images = open_images(twin, [source], labels=labels, root_folder=root_folder)
        features = twin.embed_images(images, side=side, progress=progress)
        embedding = Embedding(features, images.labels, list(images.names), dict(images.class_names))
    distances = twin.metric.matrix(asked, embedding.features)[0]
    order = [
        row for row in numpy.argsort(distances, kind="stable").tolist() if not _same_file(embedding.names[row], query)
    ]
    rows = order[:count]
    found = [_found(embedding, row, float(distances[row])) for row in rows]
    pictures = [_picture_of(twin, images, embedding.names[row], row) for row in rows]
    if images is not None:
        images.close()
    return found, pictures


def _check_features(embedding: Embedding, asked: Floats, source: str, subject: Subject) -> None:
    if embedding.features.shape[1] != asked.shape[1]:
        raise DataError(
            f"{quoted(source)} holds {embedding.features.shape[1]} features an image, the net gives {asked.shape[1]}; "
            "embed the images again"
        )
    if embedding.made_by.get("digest", subject.digest) != subject.digest:
        raise DataError(f"{quoted(source)} was made with other weights; embed the images again")


def _same_file(name: str, query: str) -> bool:
    return os.path.exists(name) and os.path.samefile(name, query)


def _found(embedding: Embedding, row: int, distance: float) -> Found:
    label = int(embedding.labels[row])
    named = label != UNKNOWN or bool(embedding.class_names)
    return Found(distance, embedding.names[row], embedding.name_of_class(label) if named else "")


def _picture_of(twin: Twin, images: LabelledImages | None, name: str, row: int) -> Picture:
    if images is not None:
        return _picture(images, row)
    if os.path.isfile(name):
        return _picture(image_files([name], twin.preparation()), 0)
    height, width = twin.preparation().before_crop
    return numpy.full((height, width), 235, numpy.uint8)


def plot_found(twin: Twin, query: str, found: Sequence[Found], pictures: Sequence[Picture], path: str) -> None:
    """A contact sheet: the query, and then what was found, the nearest first."""
    if not found:
        raise DataError("nothing was found that could be drawn")
    cells = [Cell(_picture(image_files([query], twin.preparation()), 0), "query", os.path.basename(query), SAME)]
    for place, (one, picture) in enumerate(zip(found, pictures, strict=True), 1):
        name = f"class {one.class_name}" if one.class_name else os.path.basename(one.name)
        cells.append(Cell(picture, f"{place}: {one.distance:.3f}", name, INK))
    plot_cells(
        cells,
        path,
        f"The nearest to {os.path.basename(query)}",
        footer="numbers: rank and distance",
        footer_colour=QUIET,
    )
