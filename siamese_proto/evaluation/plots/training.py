"""The curves of a training run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from siamese_proto.evaluation.plots.style import one_line, save_figure
from siamese_proto.evaluation.training_log import Curve, TrainingLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_training(log: TrainingLog, path: str | os.PathLike[str], title: str = "") -> None:
    """Draw the curves of a run by iteration: training loss, learning rate (on a second axis), and test outputs.

    Curves of one name share a plot: an output of several test nets, or the values of one blob.
    """
    from matplotlib.figure import Figure

    tests: dict[str, list[tuple[str, Curve]]] = {}
    for output, curve in log.test.items():
        tests.setdefault(output.name, []).append((f"{output.net}, output #{output.position}", curve))
    figure = Figure(figsize=(8, 3 + 2.4 * len(tests)), layout="constrained")
    rows = list(figure.subplots(1 + len(tests), 1, sharex=True, squeeze=False)[:, 0])
    _draw_curve(rows[0], log.loss, "training loss", "C0")
    rows[0].set_ylabel("loss")
    if log.rate:
        rate = rows[0].twinx()
        _draw_curve(rate, log.rate, "learning rate", "C7", linestyle="--")
        rate.set_ylabel("learning rate", color="C7")
        rate.grid(visible=False)
    for axes, (name, curves) in zip(rows[1:], tests.items(), strict=True):
        for index, (label, curve) in enumerate(curves):
            _draw_curve(axes, curve, label, f"C{index + 1}", marker="o")
        if name == "loss" and log.loss:
            _draw_curve(axes, log.loss, "training", "C0", alpha=0.35)
        axes.set_ylabel(f"test {name}")
        if len(axes.get_lines()) > 1:
            axes.legend()
    rows[-1].set_xlabel("iteration")
    rows[0].set_title(one_line(title))
    save_figure(figure, path)


def _draw_curve(axes: Axes, curve: Curve, label: str, color: str, **style: Any) -> None:
    iterations = sorted(curve)
    values = [curve[iteration] for iteration in iterations]
    axes.plot(iterations, values, label=label, color=color, linewidth=1.3, markersize=4, **style)
    axes.grid(alpha=0.25)
