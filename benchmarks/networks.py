"""Compare the networks of prototxt/ with hand-written ones (references/): python benchmarks/networks.py [NETWORK]...

Both train on the same batches, in the same order, in one process, in turns of a few steps; each seed draws other
weights and other pairs. For each, the output shows how well both separate classes, evaluated on the same test images
(held_out.py), and the hand-written time divided by ours.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import click
import torch
from held_out import Batch, ByHand, Here, data_layer, held_out, scores, test_losses
from torch import nn

import siamese_proto as sp
from siamese_proto.errors import quoted
from siamese_proto.evaluation.twin import load_twin

sys.path.insert(0, str(Path(__file__).resolve().parent))  # benchmarks/references is imported from anywhere
NETWORKS = Path(__file__).resolve().parent.parent / "prototxt"
TURN = 5  # steps of one side before the other side continues


@dataclass(frozen=True)
class Case:
    """One network, its hand-written reference, and how it is evaluated."""

    folder: str
    reference: str  # module.Class in references/
    options: Mapping[str, bool] = field(default_factory=dict)
    files: tuple[str, str] = ("train_test.prototxt", "solver.prototxt")
    edits: Mapping[str, str] = field(default_factory=dict)  # settings of the net that differ here
    steps: int = 200
    every: bool = False  # evaluate all pairs of images of the test classes
    threshold: float | None = None  # for distances that are probabilities; otherwise chosen on half of the pairs
    ways: tuple[int, ...] = ()  # number of one-shot trials
    loss: bool = False  # print the test loss too


CASES = {
    "mnist_siamese": Case(
        "mnist_siamese", "mnist_siamese.Network", files=("train_test.prototxt", "solver_quick.prototxt"), loss=True
    ),
    "mnist_pair_classifier": Case(
        "mnist_pair_classifier",
        "mnist_pair_classifier.Network",
        edits={"tuples: 5000": "tuples: 5000 images_per_class: 500", "tuples: 1000": "images_per_class: 500"},
        steps=790,  # 10 epochs of 5,000 triples
        threshold=0.5,
    ),
    "face_siamese": Case("face_siamese", "face_siamese.Network", steps=150, every=True),
    "signature_siamese": Case("signature_siamese", "signature_siamese.Network", steps=100),
    "oneshot_siamese": Case("oneshot_siamese", "oneshot_siamese.Network", every=True, threshold=0.5, ways=(5, 20)),
    "mnist_triplet": Case("mnist_triplet", "mnist_triplet.Network"),
    "mnist_triplet_softmax": Case(
        "mnist_triplet",
        "mnist_triplet.Network",
        {"softmax": True},
        ("train_test_softmax.prototxt", "solver_softmax.prototxt"),
    ),
    "pseudo_siamese": Case("pseudo_siamese", "two_sides.PseudoSiamese"),
    "half_twin": Case("half_twin", "two_sides.HalfTwin"),
    "half_twin_upper": Case(
        "half_twin", "two_sides.HalfTwin", {"upper": True}, ("train_test_upper.prototxt", "solver_upper.prototxt")
    ),
    "cosine_siamese": Case("cosine_siamese", "joins.Cosine"),
    "l1_siamese": Case("l1_siamese", "joins.L1"),
    "exp_l1_siamese": Case("exp_l1_siamese", "joins.ExpL1"),
}


@dataclass(frozen=True)
class How:
    """Settings that override the network's files and Case."""

    sources: Mapping[str, str]
    steps: int | None
    batch: int | None
    pairs: int  # for the evaluation, if pairs are drawn


@dataclass
class Outcome:
    """Results of one seed: each score, ours and hand-written, and seconds per step."""

    scores: dict[str, tuple[float, float]]
    here: float
    by_hand: float


def with_sources(text: str, sources: Mapping[str, str], batch: int | None, seed: int) -> str:
    """Return the net with different data sources, batch size, and seed of drawn pairs."""
    if batch is not None:
        text = re.sub(r"\bbatch_size: \d+", f"batch_size: {batch}", text, count=1)
    for old, new in sources.items():
        text = text.replace(f'source: "{old}"', f'source: "{new}"')
    return text.replace("pair_data_param {", f"pair_data_param {{ seed: {seed}", 1)


def project(case: Case, how: How, seed: int, folder: Path) -> tuple[Path, Path]:
    """Write net and solver of one run to a folder."""
    net, solver = folder / "net.prototxt", folder / "solver.prototxt"
    text = (NETWORKS / case.folder / case.files[0]).read_text()
    for old, new in case.edits.items():
        text = text.replace(old, new)
    net.write_text(with_sources(text, how.sources, how.batch, seed))
    message = sp.parse_solver((NETWORKS / case.folder / case.files[1]).read_text()).message
    message.net, message.max_iter, message.random_seed = str(net), how.steps or case.steps, seed
    message.snapshot, message.display = 0, 0
    message.ClearField("test_iter")
    message.ClearField("test_interval")
    solver.write_text(str(message))
    return net, solver


def run(case: Case, how: How, seed: int, folder: Path) -> Outcome:
    """Train and evaluate both."""
    torch.manual_seed(seed)
    net, solver_file = project(case, how, seed, folder)
    module, name = case.reference.split(".")
    reference: nn.Module = getattr(importlib.import_module(f"references.{module}"), name)(**case.options)
    data = sp.Net(net, phase="TRAIN")
    drawn: list[Batch] = []
    layer = data_layer(data)
    tops = [top.name for top in layer.tops]

    def draw() -> Batch:
        batch = data.pull()
        return {top: batch[top] for top in tops}

    solver = sp.Solver(solver_file, data={layer.name: recorded(draw, drawn)})
    here, by_hand = train(solver, reference, draw, drawn, how.steps or case.steps)
    data.close()
    weights = folder / "weights.caffemodel"
    solver.net.save_weights(weights)
    twin = load_twin(sp.Net(net, "TEST", seed=0, writes_files=False), weights)
    reference.eval()
    test = held_out(net, twin, how.pairs, every=case.every)
    ours, theirs = (scores(side, test, case.threshold, case.ways) for side in (Here(twin), ByHand(reference)))
    results = {name: (ours[name], theirs[name]) for name in ours}
    if case.loss:
        results["test loss"] = test_losses(net, weights, reference, how.pairs)
    return Outcome(results, here, by_hand)


def recorded(draw: Callable[[], Batch], drawn: list[Batch]) -> Iterator[Batch]:
    """Yield batches for the solver, which runs first; they stay in `drawn` for the hand-written side."""
    position = 0
    while True:
        while position >= len(drawn):
            drawn.append(draw())
        yield drawn[position]
        position += 1


def train(
    solver: sp.Solver, reference: nn.Module, draw: Callable[[], Batch], drawn: list[Batch], steps: int
) -> tuple[float, float]:
    """Return seconds per step, ours and hand-written: medians over the turns."""
    optimizer = reference.optimizer()  # type: ignore[operator]  # a method, of every reference
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(0, steps, TURN):
        count = min(TURN, steps - turn)
        while len(drawn) <= turn + count:  # no data loading within a turn
            drawn.append(draw())
        by_hand = [drawn[turn + step] for step in range(count)]

        def here(count: int = count) -> None:
            solver.step(count)

        def hand_written(batches: list[Batch] = by_hand) -> None:
            for batch in batches:
                optimizer.zero_grad()
                reference(batch).backward()
                optimizer.step()

        sides: list[tuple[list[float], Callable[[], None]]] = [(times[0], here), (times[1], hand_written)]
        for durations, step in sides if turn // TURN % 2 else sides[::-1]:
            start = time.perf_counter()
            step()
            durations.append((time.perf_counter() - start) / count)
        for step_number in range(turn, turn + count):
            drawn[step_number] = {}  # used by both
    return statistics.median(times[0]), statistics.median(times[1])


def row_of(name: str, steps: int, outcomes: list[Outcome]) -> dict[str, object]:
    """Return one row of the table."""
    row: dict[str, object] = {"network": name, "steps": steps}
    for score in outcomes[0].scores:
        for side, where in enumerate(("here", "by hand")):
            values = [outcome.scores[score][side] for outcome in outcomes]
            row[f"{score} {where}"] = f"{statistics.mean(values):.4f} ({min(values):.4f}-{max(values):.4f})"
    row["ms a step here"] = round(1000 * statistics.median(o.here for o in outcomes), 1)
    row["by hand / here"] = round(statistics.median(o.by_hand / o.here for o in outcomes), 2)
    return row


def source(text: str) -> tuple[str, str]:
    """OLD=NEW, of --source."""
    old, equals, new = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{quoted(text)} is not OLD=NEW")
    return old, os.path.abspath(new) if os.path.exists(new) else new


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(CASES)))
@click.option("--seeds", default=3, show_default=True)
@click.option("--steps", type=int, help="Training steps, for networks that are to take other than their own number.")
@click.option("--batch", type=int, help="Tuples in a batch of the training, for networks that take long.")
@click.option("--pairs", default=1000, show_default=True, help="To judge on, where a net's test data draws them.")
@click.option("--source", "sources", multiple=True, type=source, metavar="OLD=NEW", help="Data for a net's source OLD.")
@click.option("--threads", default=2, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Where to add the rows, one JSON a line.")
def main(
    names: tuple[str, ...],
    seeds: int,
    steps: int | None,
    batch: int | None,
    pairs: int,
    sources: tuple[tuple[str, str], ...],
    threads: int,
    json_file: Path | None,
) -> None:
    """Train each network and its hand-written reference, and print scores and times."""
    torch.set_num_threads(threads)
    for name in names or CASES:
        case = CASES[name]
        outcomes = []
        for seed in range(1, seeds + 1):
            with tempfile.TemporaryDirectory() as folder:
                outcomes.append(run(case, How(dict(sources), steps, batch, pairs), seed, Path(folder)))
            click.echo(f"{name}, seed {seed}: {outcomes[-1].scores}", err=True)
        row = row_of(name, steps or case.steps, outcomes)
        click.echo("  ".join(f"{key} {value}" for key, value in row.items()))
        if json_file:
            with json_file.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
