"""Pictures of how good a twin is: histogram of distances, ROC, what is found among the nearest, the hardest pairs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy

from siamese_proto.errors import DataError
from siamese_proto.evaluation.distance import TITLES
from siamese_proto.evaluation.features import Embedding, draw_embedding
from siamese_proto.evaluation.plots.palette import ACCENT, DIFFERENT, INK, QUIET, SAME
from siamese_proto.evaluation.plots.pictures import one_line, save_figure
from siamese_proto.evaluation.plots.sheets import draw_pairs, stacked
from siamese_proto.evaluation.report import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from siamese_proto.evaluation.retrieval import FewShot, Retrieval
    from siamese_proto.evaluation.verification import Judgement

_PAIRS_SHOWN = 7  # of either kind, in the picture of everything


def plot_evaluation(
    found: Evaluation, path: str | os.PathLike[str], title: str = "", embedding: Embedding | None = None
) -> None:
    """Everything that was found in one picture: distances and ROC, the hardest pairs, and what labelled images tell."""
    from matplotlib.figure import Figure

    judged = found.judgement
    labelled = embedding is not None or found.retrieval is not None or found.few_shot is not None
    pictured = [pair for pair in found.hardest if min(pair.pictures[0].shape[:2]) > 1]
    heights = [4.2] * (judged is not None) + [3.1] * bool(pictured and judged) + [4.6] * labelled
    if not heights:
        raise DataError("nothing was found that could be drawn")
    figure = Figure(figsize=(11, sum(heights) + 0.6), layout="constrained")
    figure.suptitle(one_line(title or _title(found)), fontsize=14)
    parts = iter(stacked(figure, heights))
    if judged is not None:
        left, right = next(parts).subplots(1, 2)
        draw_histogram(left, judged, TITLES[found.subject.distance])
        draw_roc(right, judged)
    if pictured and judged is not None:
        _draw_hardest(next(parts), found)
    if labelled:
        _draw_labelled(next(parts), found, embedding)
    save_figure(figure, path)


def _title(found: Evaluation) -> str:
    model = found.subject.model.replace(os.sep, "/").split("/")
    return " / ".join(model[-2:])


def _draw_hardest(figure: SubFigure, found: Evaluation) -> None:
    assert found.judgement is not None  # whoever calls has looked
    for part, same in zip(stacked(figure, [1, 1]), (True, False), strict=True):
        pairs = [pair for pair in found.hardest if pair.same == same][:_PAIRS_SHOWN]
        draw_pairs(part, pairs, found.judgement.verdicts.threshold, same=same, columns=_PAIRS_SHOWN)


def _draw_labelled(figure: SubFigure, found: Evaluation, embedding: Embedding | None) -> None:
    scored = found.retrieval is not None or found.few_shot is not None
    columns = (embedding is not None) + scored
    axes = list(figure.subplots(1, columns, squeeze=False, width_ratios=[1.35, 1][:columns])[0])
    if embedding is not None:
        draw_embedding(axes[0], embedding)
        axes[0].set_title("Features of the labelled images", fontsize=12)
    if scored:
        draw_scores(axes[-1], found.few_shot, found.retrieval)


def plot_histogram(found: Evaluation, path: str | os.PathLike[str], title: str = "") -> None:
    """The distances of same and of different pairs, with the threshold."""
    figure, axes = _one_plot(7.2, 4.6)
    draw_histogram(axes, _judgement(found), TITLES[found.subject.distance])
    axes.set_title(one_line(title or _title(found)), fontsize=13)
    save_figure(figure, path)


def plot_roc(found: Evaluation, path: str | os.PathLike[str], title: str = "") -> None:
    """True accepts over false accepts."""
    figure, axes = _one_plot(6.4, 5.2)
    draw_roc(axes, _judgement(found))
    axes.set_title(one_line(title or _title(found)), fontsize=13)
    save_figure(figure, path)


def _judgement(found: Evaluation) -> Judgement:
    if found.judgement is None:
        raise DataError("no pairs were judged, so there are no distances to draw; evaluate on pairs")
    return found.judgement


def _one_plot(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def draw_histogram(axes: Axes, judged: Judgement, xlabel: str) -> None:
    """Shares of the same and of the different pairs by distance, and the threshold that parts them."""
    from matplotlib.ticker import MaxNLocator

    kinds = (("same", judged.same_counts, SAME, ""), ("different", judged.different_counts, DIFFERENT, "//"))
    for name, counts, colour, hatch in kinds:
        total = int(counts.sum())
        axes.stairs(
            counts / max(total, 1),
            judged.edges,
            fill=True,
            facecolor=f"{colour}66",
            edgecolor=colour,
            linewidth=1.3,
            hatch=hatch,
            label=f"{total:,} {name} pairs",
        )
    threshold = judged.verdicts.threshold
    if judged.edges[0] <= threshold <= judged.edges[-1]:
        axes.axvline(threshold, color=INK, linewidth=1.4, linestyle="--", label=f"threshold {threshold:.4g}")
    axes.set_xlim(judged.edges[0], judged.edges[-1])
    axes.margins(y=0.12)
    axes.set_xlabel(xlabel)
    axes.set_ylabel("share of the pairs of their kind")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda part, place: f"{100 * part:.3g}%")
    axes.set_title("Distances", fontsize=12)
    axes.legend(frameon=False)
    axes.grid(axis="y", alpha=0.25)


def draw_roc(axes: Axes, judged: Judgement) -> None:
    """The ROC over a logarithmic scale of false accepts, as far as the number of different pairs lets it be told."""
    different = judged.pairs - judged.same
    least = min(0.1, max(1e-5, 1 / different))
    curve = judged.roc
    shown = numpy.maximum(curve.false_accepts, least)
    axes.plot(shown, curve.true_accepts, color=SAME, linewidth=2, drawstyle="default", label="this net")
    chance = numpy.geomspace(least, 1, 200)
    axes.plot(chance, chance, color=QUIET, linewidth=1.2, linestyle=":", label="guessing")
    for accepts in judged.accepts:
        if accepts.share is not None:
            low, high = accepts.share.value - accepts.share.low, accepts.share.high - accepts.share.value
            label = f"{accepts.share.value:.1%} at {100 * accepts.at_most:g}% false accepts"
            axes.errorbar(
                accepts.at_most,
                accepts.share.value,
                [[max(low, 0)], [max(high, 0)]],
                fmt="o" if accepts.at_most >= 0.01 else "s",
                color=INK,
                capsize=3,
                label=label,
                zorder=3,
                clip_on=False,
            )
    error = judged.equal_error
    if error >= least:
        axes.plot([error], [1 - error], "D", color=DIFFERENT, label=f"equal error rate {error:.1%}", zorder=3)
    axes.set_xscale("log")
    axes.set_xlim(least, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("false accepts, of the different pairs (logarithmic)")
    axes.set_ylabel("true accepts, of the same pairs")
    axes.set_title(f"ROC, AUC {judged.auc.value:.4f}", fontsize=12)
    axes.grid(alpha=0.25)
    crowded_below = float(numpy.interp(0.3, curve.false_accepts, curve.true_accepts)) < 0.6
    axes.legend(loc="upper left" if crowded_below else "lower right", frameon=True, framealpha=1, fontsize=9)


def draw_scores(axes: Axes, few_shot: FewShot | None, retrieval: Retrieval | None) -> None:
    """Few-shot accuracy, recall and mean average precision as bars with their standard errors."""
    bars: list[tuple[str, float, float, str]] = []
    if few_shot is not None:
        name = f"{few_shot.way}-way\n{few_shot.shot}-shot"
        bars.append((name, few_shot.accuracy.value, few_shot.accuracy.error, ACCENT))
    if retrieval is not None:
        bars += [(f"recall\n@{count}", value.value, value.error, SAME) for count, value in retrieval.recall.items()]
        precision = retrieval.mean_average_precision
        bars.append(("mean\nav. prec.", precision.value, precision.error, DIFFERENT))
    for place, (_, value, error, colour) in enumerate(bars):
        axes.bar(place, value, width=0.68, color=f"{colour}B0", edgecolor=colour)
        axes.errorbar(place, value, error, color=INK, capsize=4, linewidth=1.2)
        axes.annotate(
            f"{value:.3f}", (place, value + error), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=10
        )
    if few_shot is not None:
        axes.hlines(1 / few_shot.way, -0.42, 0.42, color=INK, linestyle=":", linewidth=1.6, label="guessing")
        axes.legend(frameon=False, loc="upper right", fontsize=9)
    axes.set_xticks(range(len(bars)), [bar[0] for bar in bars])
    axes.set_ylim(0, 1.15)
    axes.set_yticks(numpy.linspace(0, 1, 6))
    axes.set_title("Classes found again (whiskers: standard error)", fontsize=12)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
