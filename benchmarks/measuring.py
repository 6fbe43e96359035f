"""Shared parts of the benchmarks: runs in turns, ratios with their spread, tables and plots."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

Work = Callable[[int], None]  # runs the given number of steps
ALIKE = 3  # copies of each program, if requested


@dataclass(frozen=True)
class Ratio:
    """Time of one program divided by the time of another, measured in turns; above 1 the second is faster."""

    least: float
    median: float
    most: float
    of_minima: float  # ratio of the minimum times: the result of an idle machine

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.least:.3f} to {self.most:.3f}; of minima {self.of_minima:.3f})"


def of_alike(makers: Mapping[str, Callable[[], Work]], rounds: int, steps: int) -> dict[str, list[float]]:
    """Return seconds per step of each work, one value per round: the median of several equal copies.

    The addresses of the weights change the time of a copy by up to 4 %, for as long as it exists.
    """
    works = {f"{name}/{number}": make() for name, make in makers.items() for number in range(ALIKE)}
    seconds = in_turns(works, rounds, steps)
    alike = {name: [seconds[f"{name}/{number}"] for number in range(ALIKE)] for name in makers}
    return {name: [statistics.median(times) for times in zip(*rows, strict=True)] for name, rows in alike.items()}


def in_turns(works: Mapping[str, Work], rounds: int, steps: int, *, warm_up: int = 5) -> dict[str, list[float]]:
    """Return seconds per step of each work, one value per round. Every round begins with a different work."""
    names = list(works)
    for work in works.values():
        work(warm_up)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for index in range(rounds):
        first = index % len(names)
        for name in names[first:] + names[:first]:
            begin = time.perf_counter()
            works[name](steps)
            seconds[name].append((time.perf_counter() - begin) / steps)
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> Ratio:
    """Return the ratio round by round, so that other load on the machine affects both."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return Ratio(min(ratios), statistics.median(ratios), max(ratios), min(slow) / min(fast))


def fastest(seconds: Mapping[str, Sequence[float]]) -> str:
    """Return the name of the work with the smallest median."""
    return min(seconds, key=lambda name: statistics.median(seconds[name]))


def milliseconds(seconds: Sequence[float]) -> str:
    """Format seconds as milliseconds: `23.41 (min 22.90)`."""
    return f"{1e3 * statistics.median(seconds):.2f} (min {1e3 * min(seconds):.2f})"


def write_table(folder: Path, name: str, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write `name`.md and return its text."""
    lines = [f"# {title}", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    text = "\n".join(lines) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(text, "utf-8")
    return text


def write_json(folder: Path, name: str, content: object) -> None:
    """Write `name`.json; ratios as objects."""
    folder.mkdir(parents=True, exist_ok=True)

    def plain(value: object) -> object:
        if isinstance(value, Ratio):
            return asdict(value)
        raise TypeError(f"{type(value).__name__} has no form in JSON")

    (folder / f"{name}.json").write_text(json.dumps(content, indent=2, default=plain) + "\n", "utf-8")


def plot_ratios(folder: Path, name: str, title: str, ratios: Mapping[str, Ratio]) -> None:
    """Write `name`.png: one line per comparison, with a dot at the median and a bar from minimum to maximum."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.6 + 0.36 * len(ratios)), layout="constrained")
    axes = figure.subplots()
    for place, ratio in enumerate(reversed(list(ratios.values()))):
        axes.plot([ratio.least, ratio.most], [place, place], color="#9db8d6", linewidth=5, solid_capstyle="round")
        axes.plot([ratio.median], [place], "o", color="#1f4e79")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(ratios)), list(reversed(list(ratios))))
    axes.set_xlabel("time by hand / time here, each round; the dot is the median")
    axes.set_title(title)
    figure.savefig(folder / f"{name}.png", dpi=120)
