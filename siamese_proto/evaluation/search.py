"""Find the images that are nearest to one."""

import itertools
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy

from siamese_proto.data.images.labeled import LabeledImages
from siamese_proto.data.images.labeled_source import LabeledSource
from siamese_proto.errors import DataError, escaped, quoted
from siamese_proto.evaluation.compare import open_image, picture_of
from siamese_proto.evaluation.features import UNKNOWN, Embedding, embed_images, open_images, read_features
from siamese_proto.evaluation.pair_sources import image_files
from siamese_proto.evaluation.plots.sheets import Cell, plot_cells
from siamese_proto.evaluation.plots.style import QUIET, SAME
from siamese_proto.evaluation.preprocess import Picture
from siamese_proto.evaluation.twin import Floats, Twin


@dataclass(frozen=True)
class Neighbor:
    """An image near the query."""

    distance: float
    name: str
    class_name: str  # empty if it is unknown

    def __str__(self) -> str:
        class_name = f"  (class {escaped(self.class_name)})" if self.class_name else ""
        return f"{self.distance:10.4f}  {escaped(self.name)}{class_name}"


def search_images(
    twin: Twin, query: str, source: LabeledSource, *, count: int = 10
) -> tuple[list[Neighbor], list[Picture]]:
    """Find the images nearest to an image file.

    Args:
        twin: The net.
        query: The image file; it is not one of its own neighbors.
        source: Labeled images, a folder, or a .npz of `save_features` with the same weights.
        count: Number of neighbors.

    Returns:
        The neighbors, the nearest first, and a picture of each. For a .npz, images that are not files are blank.

    Raises:
        DataError: an image cannot be read, or the .npz is of other weights.
    """
    features = twin.embed_images(open_image(twin, query))
    with ExitStack() as stack:
        images: LabeledImages | None = None
        if source.path.lower().endswith(".npz"):
            embedding = read_features(source.path)
            _check_features(embedding, features, source.path, twin.subject().digest)
        else:
            images = stack.enter_context(open_images(twin, [source]))
            embedding = embed_images(twin, images, side=int(twin.towers_differ))
        distances = twin.metric.matrix(features, embedding.features)[0]
        order = numpy.argsort(distances, kind="stable").tolist()
        others = (row for row in order if not _is_same_file(embedding.names[row], query))
        rows = list(itertools.islice(others, count))
        neighbors = []
        for row in rows:
            label = int(embedding.labels[row])
            has_class = label != UNKNOWN or bool(embedding.class_names)
            class_name = embedding.name_of_class(label) if has_class else ""
            neighbors.append(Neighbor(float(distances[row]), embedding.names[row], class_name))
        return neighbors, [_picture(twin, images, embedding.names[row], row) for row in rows]


def _check_features(embedding: Embedding, features: Floats, source: str, digest: str) -> None:
    if embedding.features.shape[1] != features.shape[1]:
        raise DataError(
            f"{quoted(source)} has {embedding.features.shape[1]} features per image, the net computes "
            f"{features.shape[1]}; embed the images again"
        )
    if embedding.made_by.get("digest", digest) != digest:
        raise DataError(f"{quoted(source)} was made with other weights; embed the images again")


def _is_same_file(name: str, query: str) -> bool:
    return os.path.exists(name) and os.path.samefile(name, query)


def _picture(twin: Twin, images: LabeledImages | None, name: str, row: int) -> Picture:
    if images is not None:
        return picture_of(images, row)
    if os.path.isfile(name):
        return picture_of(image_files([name], twin.preprocessing()))
    return numpy.full(twin.preprocessing().before_crop, 235, numpy.uint8)


def plot_neighbors(
    twin: Twin, query: str, neighbors: Sequence[Neighbor], pictures: Sequence[Picture], path: str
) -> None:
    """Draw a contact sheet: the query, and then its neighbors, the nearest first."""
    if not neighbors:
        raise DataError("no images were found that could be drawn")
    cells = [Cell(picture_of(open_image(twin, query)), "query", os.path.basename(query), SAME)]
    for rank, (neighbor, picture) in enumerate(zip(neighbors, pictures, strict=True), 1):
        name = f"class {neighbor.class_name}" if neighbor.class_name else os.path.basename(neighbor.name)
        cells.append(Cell(picture, f"{rank}: {neighbor.distance:.3f}", name))
    title = f"The nearest to {os.path.basename(query)}"
    plot_cells(cells, path, title, footer="numbers: rank and distance", footer_color=QUIET)
