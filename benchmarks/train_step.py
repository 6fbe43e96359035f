"""Time one training step of the LeNet twin and of other nets: siamese_proto against hand-written PyTorch.

There are four hand-written forms (one pass per tower or one batch for all, channels first or last), each with torch's
foreach and fused SGD. Three equal copies of each run in turns in one process, from the same weights, over the same
batch in memory; the time of a round is the median of the three. The ratio is hand-written time divided by ours, so we
are faster if it is above 1. `--database` adds our step with records read from a LevelDB.

    python benchmarks/train_step.py [--threads 1 2] [--rounds 15] [--steps 5] [--only flagship] [--out DIR]
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from by_hand import FORMS
from cases import SOLVER, Case, cases
from measuring import Ratio, Work, fastest, milliseconds, of_alike, plot_ratios, ratio, write_json, write_table

import siamese_proto as sp
from siamese_proto.cli.train import keep_freed_memory
from siamese_proto.data.databases.pairs import draw_pairs, write_pairs

HERE = "siamese_proto"
DATABASE = "siamese_proto, reading a LevelDB"


def flagship(case: Case, threads: int, rounds: int, steps: int, *, database: bool) -> dict[str, object]:
    """Time our step against every hand-written form; return the rows of the table."""
    torch.set_num_threads(threads)
    net = case.here()[1]
    makers: dict[str, Callable[[], Work]] = {HERE: lambda: case.here()[0]}
    makers.update({str(form): functools.partial(case.by_hand, form, net) for form in FORMS})
    if database:
        write_database()
        makers[DATABASE] = lambda: sp.Solver(case.net + SOLVER).step
    seconds = of_alike(makers, rounds, steps)
    best = fastest({name: times for name, times in seconds.items() if not name.startswith(HERE)})
    ratios = {name: ratio(times, seconds[HERE]) for name, times in seconds.items() if name != HERE}
    print(
        f"\n{case.name}, {threads} thread(s), {rounds} rounds of {steps} steps; {HERE} {milliseconds(seconds[HERE])} ms"
    )
    for name, result in ratios.items():
        print(
            f"  {name:48s} {milliseconds(seconds[name]):22s} ms  ratio {result}" + " <- best by hand" * (name == best)
        )
    return {"threads": threads, "case": case.name, "best": best, "seconds": seconds, "ratios": ratios}


def write_database() -> None:
    """Write as many pairs as a hundred steps read."""
    draw = np.random.default_rng(1)
    images = draw.integers(0, 256, (500, 28, 28), dtype=np.uint8)
    drawn = draw_pairs(draw.integers(0, 10, 500), 6400)
    write_pairs("digits_train_leveldb", "LEVELDB", images, drawn, overwrite=True)


def other(case: Case, threads: int, rounds: int) -> tuple[list[str], Ratio]:
    """Time our step against the hand-written form that is fastest in a first run; return a row of the table."""
    torch.set_num_threads(threads)
    net = case.here()[1]
    forms = {str(form): form for form in FORMS if case.towers > 1 or not form.batched}
    makers: dict[str, Callable[[], Work]] = {
        name: functools.partial(case.by_hand, form, net) for name, form in forms.items()
    }
    first_run = of_alike(makers, 3, 3)
    steps = max(3, round(0.03 / min(first_run[fastest(first_run)])))
    best = fastest(of_alike(makers, 5, steps))
    seconds = of_alike({best: makers[best], HERE: lambda: case.here()[0]}, rounds, steps)
    result = ratio(seconds[best], seconds[HERE])
    row = [case.name, str(threads), best, milliseconds(seconds[best]), milliseconds(seconds[HERE]), str(result)]
    print("  " + " | ".join(row))
    return row, result


def main() -> None:
    """Measure, print, and write table, numbers and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--only", choices=["flagship", "others"])
    parser.add_argument("--database", action="store_true", help="Measure reading from a LevelDB too.")
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "siamese_proto_benchmarks")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    keep_freed_memory()
    logging.getLogger("siamese_proto").setLevel(logging.ERROR)
    first, *others = cases()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if arguments.only != "others":
            runs = [
                flagship(first, threads, arguments.rounds, arguments.steps, database=arguments.database)
                for threads in arguments.threads
            ]
            write_flagship(out, runs)
        if arguments.only != "flagship":
            print("\nother nets, against the best hand-written form")
            rows = [other(case, threads, arguments.rounds) for threads in arguments.threads for case in others]
            head = ["net", "threads", "best by hand", "its ms", "our ms", "by hand / here"]
            write_table(out, "other_nets", "Other nets", head, [row for row, _ in rows])
            plot_ratios(out, "other_nets", "Other nets", {f"{row[0]}, {row[1]} thr.": result for row, result in rows})
            write_json(out, "other_nets", [dict(zip(head, [*row[:-1], result], strict=True)) for row, result in rows])
        os.chdir(out)
    print(f"\ntables and plots are in {out}")


def write_flagship(out: Path, runs: list[dict[str, object]]) -> None:
    """Write table, plot and numbers of the flagship's runs."""
    rows, drawn = [], {}
    for run in runs:
        seconds, ratios = run["seconds"], run["ratios"]
        assert isinstance(seconds, dict)  # as made above
        assert isinstance(ratios, dict)
        for name, result in ratios.items():
            mark = " (best by hand)" * (name == run["best"])
            rows.append([str(run["threads"]), name + mark, milliseconds(seconds[name]), str(result)])
            drawn[f"{name}, {run['threads']} thr."] = result
        rows.append([str(run["threads"]), f"**{HERE}**", milliseconds(seconds[HERE]), "1"])
    head = ["threads", "form", "ms a step", "ratio: median (least to most)"]
    write_table(out, "train_step", "Training step of the LeNet twin, batch 64", head, rows)
    plot_ratios(out, "train_step", "Training step of the LeNet twin, batch 64", drawn)
    write_json(out, "train_step", runs)


if __name__ == "__main__":
    main()
