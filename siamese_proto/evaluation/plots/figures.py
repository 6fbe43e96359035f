"""Plots of evaluation results: distances, ROC curve, scores of labeled images, the hardest pairs; and of any file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy

from siamese_proto.errors import DataError, quoted
from siamese_proto.evaluation.features import Embedding, read_features
from siamese_proto.evaluation.plots.features import draw_embedding, plot_embedding
from siamese_proto.evaluation.plots.sheets import draw_pairs, plot_pairs, stack
from siamese_proto.evaluation.plots.style import ACCENT, DIFFERENT, INK, QUIET, SAME, one_line, save_figure
from siamese_proto.evaluation.plots.training import plot_training
from siamese_proto.evaluation.report import Evaluation, read_evaluation
from siamese_proto.evaluation.retrieval import FewShot, Retrieval
from siamese_proto.evaluation.training_log import read_training_log
from siamese_proto.evaluation.verification import VerificationResults
from siamese_proto.graph.comparison import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PAIRS_SHOWN = 7  # of either kind, in the plot of everything
_DISTANCES: dict[Metric, str] = {
    "EUCLIDEAN": "Euclidean distance",
    "SQUARED": "squared Euclidean distance",
    "L1": "L1 distance",
    "COSINE": "cosine distance",
    "DOT": "negative dot product",
    "LEARNED": "learned distance, 1 - P(same)",
}


def plot_file(source: str, out: str, what: str | None = None, title: str = "") -> None:
    """Draw a training log, a .json of `evaluate` or a .npz of `embed`.

    Args:
        source: The file.
        out: The picture; its suffix is the format.
        what: "curves" of a training log, "features" of a .npz, or of a .json "all", "roc", "histogram" or "pairs".
            None: chosen by the suffix of `source`.
        title: Of the picture.

    Raises:
        NetError: the file cannot be read, or does not contain what to draw.
    """
    suffix = source.lower().rpartition(".")[2]
    what = what or {"json": "all", "npz": "features", "npy": "features"}.get(suffix, "curves")
    if what == "curves":
        plot_training(read_training_log(source), out, title)
        return
    if what == "features":
        plot_embedding(read_features(source), out, title)
        return
    evaluation = read_evaluation(source)
    results = evaluation.verification
    if what == "all":
        plot_evaluation(evaluation, out, title)
    elif results is None:
        raise DataError(f"{quoted(source)} has no pairs: expected results for pairs; evaluate with --pairs")
    elif what == "roc":
        _plot(lambda axes: draw_roc(axes, results), out, title, (6.4, 5.2))
    elif what == "histogram":
        _plot(lambda axes: draw_histogram(axes, results, evaluation.subject.distance), out, title, (7.2, 4.6))
    elif what != "pairs":
        raise DataError(f"{quoted(what)} cannot be drawn: expected curves, features, all, roc, histogram or pairs")
    elif not evaluation.hardest:
        raise DataError(f"{quoted(source)} has no pictures of pairs; evaluate on pairs of images")
    else:
        plot_pairs(evaluation.hardest, results.at_threshold.threshold, out, title)


def _plot(draw: Callable[[Axes], None], out: str, title: str, size: tuple[float, float]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.set_title(one_line(title), fontsize=13)
    save_figure(figure, out)


def plot_evaluation(
    evaluation: Evaluation, path: str | os.PathLike[str], title: str = "", embedding: Embedding | None = None
) -> None:
    """Draw all results in one picture: distances and ROC curve, the hardest pairs, and scores of labeled images."""
    from matplotlib.figure import Figure

    results, few_shot, retrieval = evaluation.verification, evaluation.few_shot, evaluation.retrieval
    scored = few_shot is not None or retrieval is not None
    pictured = results is not None and any(min(pair.pictures[0].shape[:2]) > 1 for pair in evaluation.hardest)
    labelled = scored or embedding is not None
    heights = [4.2] * (results is not None) + [3.1] * pictured + [4.6] * labelled
    if not heights:
        raise DataError("there are no results to draw")
    figure = Figure(figsize=(11, sum(heights) + 0.6), layout="constrained")
    figure.suptitle(one_line(title or " / ".join(PurePath(evaluation.subject.model).parts[-2:])), fontsize=14)
    parts = iter(stack(figure, heights))
    if results is not None:
        first, second = next(parts).subplots(1, 2)
        draw_histogram(first, results, evaluation.subject.distance)
        draw_roc(second, results)
        if pictured:
            for part, same in zip(stack(next(parts), [1, 1]), (True, False), strict=True):
                pairs = [pair for pair in evaluation.hardest if pair.same == same]
                draw_pairs(part, pairs, results.at_threshold.threshold, same=same, columns=_PAIRS_SHOWN)
    if labelled:
        columns = (embedding is not None) + scored
        axes = next(parts).subplots(1, columns, squeeze=False, width_ratios=[1.35, 1][:columns])[0]
        if embedding is not None:
            draw_embedding(axes[0], embedding)
            axes[0].set_title("Features of the labeled images", fontsize=12)
        if scored:
            draw_scores(axes[-1], few_shot, retrieval)
    save_figure(figure, path)


def draw_histogram(axes: Axes, results: VerificationResults, distance: Metric) -> None:
    """Draw the share of the same and of the different pairs at each distance, and the threshold."""
    from matplotlib.ticker import MaxNLocator

    kinds = (("same", results.same_counts, SAME, ""), ("different", results.different_counts, DIFFERENT, "//"))
    for name, counts, color, hatch in kinds:
        total = int(counts.sum())
        axes.stairs(
            counts / max(total, 1),
            results.edges,
            fill=True,
            facecolor=f"{color}66",
            edgecolor=color,
            linewidth=1.3,
            hatch=hatch,
            label=f"{total:,} {name} pairs",
        )
    threshold = results.at_threshold.threshold
    if results.edges[0] <= threshold <= results.edges[-1]:
        axes.axvline(threshold, color=INK, linewidth=1.4, linestyle="--", label=f"threshold {threshold:.4g}")
    axes.set_xlim(results.edges[0], results.edges[-1])
    axes.margins(y=0.12)
    axes.set_xlabel(_DISTANCES[distance])
    axes.set_ylabel("share of the pairs of their kind")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g}%")
    axes.set_title("Distances", fontsize=12)
    axes.legend(frameon=False)
    axes.grid(axis="y", alpha=0.25)


def draw_roc(axes: Axes, results: VerificationResults) -> None:
    """Draw the ROC curve over a logarithmic scale, from the lowest false accept rate that the pairs can measure."""
    different = results.pairs - results.same
    least = min(0.1, max(1e-5, 1 / different))
    curve = results.roc
    axes.plot(numpy.maximum(curve.false_accepts, least), curve.true_accepts, color=SAME, linewidth=2, label="this net")
    chance = numpy.geomspace(least, 1, 200)
    axes.plot(chance, chance, color=QUIET, linewidth=1.2, linestyle=":", label="guessing")
    for accepts in results.accepts:
        share = accepts.share
        if share is not None:
            axes.errorbar(
                accepts.at_most,
                share.value,
                [[max(share.value - share.low, 0)], [max(share.high - share.value, 0)]],
                fmt="o" if accepts.at_most >= 0.01 else "s",
                color=INK,
                capsize=3,
                label=f"{share.value:.1%} at {100 * accepts.at_most:g}% false accepts",
                zorder=3,
                clip_on=False,
            )
    error = results.equal_error
    if error >= least:
        axes.plot([error], [1 - error], "D", color=DIFFERENT, label=f"equal error rate {error:.1%}", zorder=3)
    axes.set_xscale("log")
    axes.set_xlim(least, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("false accepts, of the different pairs (logarithmic)")
    axes.set_ylabel("true accepts, of the same pairs")
    axes.set_title(f"ROC, AUC {results.auc.value:.4f}", fontsize=12)
    axes.grid(alpha=0.25)
    low_curve = float(numpy.interp(0.3, curve.false_accepts, curve.true_accepts)) < 0.6
    axes.legend(loc="upper left" if low_curve else "lower right", frameon=True, framealpha=1, fontsize=9)


def draw_scores(axes: Axes, few_shot: FewShot | None, retrieval: Retrieval | None) -> None:
    """Draw few-shot accuracy, recall and mean average precision as bars with their standard errors."""
    bars = []
    if few_shot is not None:
        bars.append((f"{few_shot.way}-way\n{few_shot.shot}-shot", few_shot.accuracy, ACCENT))
    if retrieval is not None:
        bars += [(f"recall\n@{count}", score, SAME) for count, score in retrieval.recall.items()]
        bars.append(("mean\nav. prec.", retrieval.mean_average_precision, DIFFERENT))
    for place, (_, score, color) in enumerate(bars):
        axes.bar(place, score.value, width=0.68, color=f"{color}B0", edgecolor=color)
        axes.errorbar(place, score.value, score.error, color=INK, capsize=4, linewidth=1.2)
        top = (place, score.value + score.error)
        axes.annotate(f"{score.value:.3f}", top, xytext=(0, 4), textcoords="offset points", ha="center", fontsize=10)
    if few_shot is not None:
        axes.hlines(1 / few_shot.way, -0.42, 0.42, color=INK, linestyle=":", linewidth=1.6, label="guessing")
        axes.legend(frameon=False, loc="upper right", fontsize=9)
    axes.set_xticks(range(len(bars)), [bar[0] for bar in bars])
    axes.set_ylim(0, 1.15)
    axes.set_yticks(numpy.linspace(0, 1, 6))
    axes.set_title("Few-shot and retrieval scores (whiskers: standard error)", fontsize=12)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
