"""The networks of prototxt/ beside the same written by hand (references/): python benchmarks/networks.py [NETWORK]...

Both train on the same batches, in the same order, in one process, in turns of a few steps; each seed draws other
weights and other pairs. Printed for each: the area under the ROC curve of either, judged on the same test pairs, and
how many times as long the hand-written steps take.
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
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn
from torch.nn import functional

import siamese_proto as sp
from siamese_proto.errors import quoted

sys.path.insert(0, str(Path(__file__).resolve().parent))  # benchmarks/references is imported from anywhere
NETWORKS = Path(__file__).resolve().parent.parent / "prototxt"
TURN = 5  # steps that either takes before the other goes on
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One network, what it is held to, and how to ask its deploy net how unlike two images are."""

    folder: str
    reference: str  # module.Class in references/
    options: Mapping[str, bool] = field(default_factory=dict)
    files: tuple[str, str] = ("train_test.prototxt", "solver.prototxt")
    answer: str = "feat"  # a feature of one tower, or the blob of a deploy net with two inputs
    sign: int = 1  # -1 where the answer is high for images of one class
    steps: int = 500
    rows: int = 100  # that the deploy net takes at once


CASES = {
    "mnist_siamese": Case(
        "mnist_siamese", "mnist_siamese.Network", files=("train_test.prototxt", "solver_quick.prototxt")
    ),
    "mnist_pair_classifier": Case(
        "mnist_pair_classifier", "mnist_pair_classifier.Network", answer="probability", sign=-1, steps=200
    ),
    "face_siamese": Case("face_siamese", "face_siamese.Network", steps=150),
    "signature_siamese": Case("signature_siamese", "signature_siamese.Network", answer="distance", steps=100),
    "oneshot_siamese": Case("oneshot_siamese", "oneshot_siamese.Network", answer="probability", sign=-1, steps=100),
    "mnist_triplet": Case("mnist_triplet", "mnist_triplet.Network"),
    "mnist_triplet_softmax": Case(
        "mnist_triplet",
        "mnist_triplet.Network",
        {"softmax": True},
        ("train_test_softmax.prototxt", "solver_softmax.prototxt"),
    ),
    "pseudo_siamese": Case("pseudo_siamese", "two_sides.PseudoSiamese", answer="distance", rows=1),
    "half_twin": Case("half_twin", "two_sides.HalfTwin", answer="distance"),
    "cosine_siamese": Case("cosine_siamese", "joins.Cosine", answer="score", sign=-1),
    "l1_siamese": Case("l1_siamese", "joins.L1", answer="score", sign=-1),
    "exp_l1_siamese": Case("exp_l1_siamese", "joins.ExpL1", answer="similarity", sign=-1),
}


@dataclass(frozen=True)
class How:
    """What is asked for otherwise than the network's files and Case have it."""

    sources: Mapping[str, str]
    steps: int | None
    batch: int | None


@dataclass
class Outcome:
    """What one seed gave: area under the curve and equal error rate here and by hand, and seconds a step of each."""

    auc: tuple[float, float]
    equal_error: tuple[float, float]
    here: float
    by_hand: float


def with_sources(text: str, sources: Mapping[str, str], batch: int | None, seed: int) -> str:
    """The net with other sources of its data, batches of another size, and pairs drawn from another seed."""
    if batch is not None:
        text = re.sub(r"\bbatch_size: \d+", f"batch_size: {batch}", text, count=1)
    for old, new in sources.items():
        text = text.replace(f'source: "{old}"', f'source: "{new}"')
    return text.replace("pair_data_param {", f"pair_data_param {{ seed: {seed}", 1)


def project(case: Case, how: How, seed: int, folder: Path) -> tuple[Path, Path]:
    """Net and solver of one run, in a folder of its own."""
    net, solver = folder / "net.prototxt", folder / "solver.prototxt"
    net.write_text(with_sources((NETWORKS / case.folder / case.files[0]).read_text(), how.sources, how.batch, seed))
    message = sp.parse_solver((NETWORKS / case.folder / case.files[1]).read_text()).message
    message.net, message.max_iter, message.random_seed = str(net), how.steps or case.steps, seed
    message.snapshot, message.display = 0, 0
    message.ClearField("test_iter")
    message.ClearField("test_interval")
    solver.write_text(str(message))
    return net, solver


def run(case: Case, how: How, seed: int, folder: Path) -> Outcome:
    """Train and judge both."""
    torch.manual_seed(seed)
    net, solver_file = project(case, how, seed, folder)
    module, name = case.reference.split(".")
    reference: nn.Module = getattr(importlib.import_module(f"references.{module}"), name)(**case.options)
    data = sp.Net(net, phase="TRAIN")
    drawn: list[Batch] = []
    layer = next(node for node in data.graph.nodes if node.type in ("Data", "PairData"))
    tops = [top.name for top in layer.tops]

    def draw() -> Batch:
        batch = data.pull()
        return {top: batch[top] for top in tops}

    solver = sp.Solver(solver_file, data={layer.name: given(draw, drawn)})
    here, by_hand = train(solver, reference, draw, drawn, how.steps or case.steps)
    data.close()
    weights = folder / "weights.caffemodel"
    solver.net.save_weights(weights)
    deployed = sp.Net(NETWORKS / case.folder / "deploy.prototxt", weights=weights)
    first, second, same = test_pairs(net)
    reference.eval()
    answers = (
        distances(first, second, case.rows, lambda a, b: answer(deployed, case, a, b)),
        distances(
            first,
            second,
            case.rows,
            reference.distance,  # type: ignore[arg-type]  # a method, of every reference
        ),
    )
    auc = tuple(float(roc_auc_score(same, -distance)) for distance in answers)
    errors = tuple(equal_error(same, distance) for distance in answers)
    return Outcome((auc[0], auc[1]), (errors[0], errors[1]), here, by_hand)


def given(draw: Callable[[], Batch], drawn: list[Batch]) -> Iterator[Batch]:
    """The batches for the solver: those in `drawn` are kept there for the other, and the solver goes ahead."""
    position = 0
    while True:
        while position >= len(drawn):
            drawn.append(draw())
        yield drawn[position]
        position += 1


def train(
    solver: sp.Solver, reference: nn.Module, draw: Callable[[], Batch], drawn: list[Batch], steps: int
) -> tuple[float, float]:
    """Seconds a step, here and by hand: the medians of the turns."""
    optimizer = reference.optimizer()  # type: ignore[operator]  # a method, of every reference
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(0, steps, TURN):
        count = min(TURN, steps - turn)
        while len(drawn) <= turn + count:  # nobody waits for data within a turn
            drawn.append(draw())
        by_hand = [drawn[turn + step] for step in range(count)]

        def here(count: int = count) -> None:
            solver.step(count)

        def there(batches: list[Batch] = by_hand) -> None:
            for batch in batches:
                optimizer.zero_grad()
                reference(batch).backward()
                optimizer.step()

        sides: list[tuple[list[float], Callable[[], None]]] = [(times[0], here), (times[1], there)]
        for taken, step in sides if turn // TURN % 2 else sides[::-1]:
            start = time.perf_counter()
            step()
            taken.append((time.perf_counter() - start) / count)
        for step_number in range(turn, turn + count):
            drawn[step_number] = {}  # used by both
    return statistics.median(times[0]), statistics.median(times[1])


def test_pairs(net: Path) -> tuple[Tensor, Tensor, NDArray[np.bool_]]:
    """At least 1,000 pairs of the net's test data: first and second images, and whether they are of one class."""
    data = sp.Net(net, phase="TEST")
    firsts: list[Tensor] = []
    seconds: list[Tensor] = []
    labels: list[NDArray[np.bool_]] = []
    while sum(len(part) for part in labels) < 1000:
        batch = data.pull()
        if "anchor" in batch:
            rows = len(batch["anchor"])
            firsts += [batch["anchor"], batch["anchor"]]
            seconds += [batch["positive"], batch["negative"]]
            labels += [np.ones(rows, bool), np.zeros(rows, bool)]
            continue
        pair = batch["pair_data"].chunk(2, dim=1) if "pair_data" in batch else (batch["data"], batch["data_p"])
        firsts.append(pair[0])
        seconds.append(pair[1])
        labels.append((batch["sim"] if "sim" in batch else batch["same"]).numpy() != 0)
    data.close()
    return torch.cat(firsts), torch.cat(seconds), np.concatenate(labels)


def answer(deployed: sp.Net, case: Case, first: Tensor, second: Tensor) -> Tensor:
    """How unlike the images are, (N,), by the deploy net."""
    if case.answer == "feat":
        return functional.pairwise_distance(deployed(data=first)["feat"], deployed(data=second)["feat"])
    result: Tensor = deployed(data=first, data_p=second)[case.answer]
    return case.sign * result.reshape(len(first), -1)[:, -1]


def distances(
    first: Tensor, second: Tensor, rows: int, distance: Callable[[Tensor, Tensor], Tensor]
) -> NDArray[np.float64]:
    """(N,), of so many pairs at a time."""
    with torch.no_grad():
        parts = [distance(a, b) for a, b in in_parts(first, second, rows)]
    return torch.cat(parts).double().numpy()


def in_parts(first: Tensor, second: Tensor, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs, so many at a time."""
    for begin in range(0, len(first), rows):
        yield first[begin : begin + rows], second[begin : begin + rows]


def equal_error(same: NDArray[np.bool_], distance: NDArray[np.float64]) -> float:
    """The rate of wrong verdicts at the threshold where as many of either kind are made."""
    false_accepts, accepts, _ = roc_curve(same, -distance)
    point = int(np.argmin(np.abs(false_accepts - (1 - accepts))))
    return float((false_accepts[point] + 1 - accepts[point]) / 2)


def told(name: str, steps: int, outcomes: list[Outcome]) -> dict[str, object]:
    """One row of the table."""

    def spread(values: list[float]) -> str:
        return f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"

    return {
        "network": name,
        "steps": steps,
        "AUC here": spread([o.auc[0] for o in outcomes]),
        "AUC by hand": spread([o.auc[1] for o in outcomes]),
        "EER here": spread([o.equal_error[0] for o in outcomes]),
        "EER by hand": spread([o.equal_error[1] for o in outcomes]),
        "ms a step here": round(1000 * statistics.median(o.here for o in outcomes), 1),
        "by hand / here": round(statistics.median(o.by_hand / o.here for o in outcomes), 2),
    }


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
@click.option("--source", "sources", multiple=True, type=source, metavar="OLD=NEW", help="Data for a net's source OLD.")
@click.option("--threads", default=2, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Where to add the rows, one JSON a line.")
def main(
    names: tuple[str, ...],
    seeds: int,
    steps: int | None,
    batch: int | None,
    sources: tuple[tuple[str, str], ...],
    threads: int,
    json_file: Path | None,
) -> None:
    """Train each network and its hand-written like, and print how well and how fast."""
    torch.set_num_threads(threads)
    for name in names or CASES:
        case = CASES[name]
        outcomes = []
        for seed in range(1, seeds + 1):
            with tempfile.TemporaryDirectory() as folder:
                outcomes.append(run(case, How(dict(sources), steps, batch), seed, Path(folder)))
        row = told(name, steps or case.steps, outcomes)
        click.echo("  ".join(f"{key} {value}" for key, value in row.items()))
        if json_file:
            with json_file.open("a") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
