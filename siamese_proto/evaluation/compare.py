"""Compare two images: their distance, a score, and whether they are the same."""

import math
import os
from dataclasses import dataclass

from siamese_proto.data.images.labeled import LabeledImages
from siamese_proto.errors import DataError, escaped, quoted
from siamese_proto.evaluation.pair_sources import image_files
from siamese_proto.evaluation.plots.sheets import Cell, plot_cells
from siamese_proto.evaluation.plots.style import DIFFERENT, INK, SAME
from siamese_proto.evaluation.preprocess import Picture, to_pictures
from siamese_proto.evaluation.report import Evaluation, align
from siamese_proto.evaluation.twin import Twin


@dataclass(frozen=True)
class ImageComparison:
    """The comparison of two images."""

    first: str
    second: str
    images: str  # the preprocessing
    metric: str
    distance: float
    score: float  # from 0, different, to 1, the same
    score_is: str  # how the score is computed
    threshold: float | None
    verdict: str | None  # "same" or "different"; None without a threshold

    def __str__(self) -> str:
        if self.verdict is None:
            verdict = "none without a threshold: give --threshold, or --evaluated FILE"
        else:
            verdict = f"{self.verdict} (distance {'<' if self.verdict == 'same' else '>='} {self.threshold:.4f})"
        rows = [
            ("images", self.images),
            ("distance", f"{self.distance:.4f} ({self.metric})"),
            ("score", f"{self.score:.4f} ({self.score_is})"),
            ("verdict", verdict),
        ]
        return f"{escaped(self.first)} and {escaped(self.second)}\n{align(rows)}"


def open_image(twin: Twin, path: str, side: int = 0) -> LabeledImages:
    """Open one image file as a tower takes it. Raises DataError for a folder."""
    if os.path.isdir(path):
        raise DataError(f"{quoted(path)} is a folder: expected one image; give a file of it")
    return image_files([path], twin.preprocessing(side))


def picture_of(images: LabeledImages, row: int = 0) -> Picture:
    """Return an image, resized for the net, as a picture."""
    picture: Picture = to_pictures(images.image(row)[None])[0]
    return picture


def compare_files(
    twin: Twin,
    first: str,
    second: str,
    evaluation: Evaluation | None,
    threshold: float | None = None,
) -> ImageComparison:
    """Compare two image files.

    Args:
        twin: The net.
        first: The file of the first image.
        second: The file of the second image.
        evaluation: Results of `evaluate`, for the calibration of the score and the threshold.
        threshold: The largest distance, exclusive, of images that are the same; replaces that of `evaluation`.

    Raises:
        DataError: an image cannot be read, or `evaluation` is for other weights or another distance.
    """
    features = [twin.embed_images(open_image(twin, path, side), side=side) for side, path in enumerate((first, second))]
    metric = twin.metric.kind
    distance = float(twin.metric.rows(*features)[0])
    if not math.isfinite(distance):
        raise DataError("the distance is not finite; the training of these weights may have diverged")
    results = None if evaluation is None else evaluation.results_for(twin.subject())
    if metric == "LEARNED":
        score, score_is = 1 - distance, "probability of the same, computed by the net"
    elif results is not None:
        score, score_is = results.calibration(distance), "probability of the same, calibrated on evaluated pairs"
    else:
        bounded = min(max(distance, -700.0), 700.0)
        score, score_is = min(1.0, 2 / (1 + math.exp(bounded))), "2 / (1 + exp(distance)), not calibrated"
    if threshold is None and results is not None:
        threshold = results.at_threshold.threshold
    if threshold is None and metric == "LEARNED":
        threshold = 0.5
    verdict = None if threshold is None else "same" if distance < threshold else "different"
    images = str(twin.preprocessing())
    return ImageComparison(first, second, images, metric.lower(), distance, score, score_is, threshold, verdict)


def plot_comparison(twin: Twin, comparison: ImageComparison, path: str) -> None:
    """Draw both images as the net takes them, with their distance below."""
    cells = [
        Cell(picture_of(open_image(twin, name, side)), "", os.path.basename(name))
        for side, name in enumerate((comparison.first, comparison.second))
    ]
    verdict = "" if comparison.verdict is None else f": {comparison.verdict}"
    footer = f"distance {comparison.distance:.3f}{verdict}\nscore {comparison.score:.3f}"
    if comparison.threshold is not None:
        footer += f", threshold {comparison.threshold:.3f}"
    color = {"same": SAME, "different": DIFFERENT}.get(comparison.verdict or "", INK)
    plot_cells(cells, path, columns=2, footer=footer, footer_color=color)
