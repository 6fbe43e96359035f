"""Each network of prototxt/ builds without findings, shares its parameters as promised, is drawn, trains for a few
steps on real images, and its deploy net loads the weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import paths
import pytest
import torch
from PIL import Image

import siamese_proto as sp
from siamese_proto.check.net import check_net
from siamese_proto.data.images.digits import load_digits

NETWORKS = paths.PROTOTXT
FILES = sorted(str(path.relative_to(NETWORKS)) for path in NETWORKS.glob("*/*.prototxt"))


@dataclass(frozen=True)
class Training:
    """How a test trains a network: on one batch of `batch` tuples, for `steps` steps."""

    solver: str
    shared: int  # tensors that several layers use
    steps: int = 8
    batch: int = 16


TRAININGS = [
    Training("cosine_siamese/solver.prototxt", 8),
    Training("exp_l1_siamese/solver.prototxt", 8),
    Training("l1_siamese/solver.prototxt", 8),
    Training("half_twin/solver.prototxt", 4),
    Training("half_twin/solver_upper.prototxt", 4),
    Training("mnist_triplet/solver.prototxt", 8),
    Training("mnist_triplet/solver_softmax.prototxt", 8),
    Training("pseudo_siamese/solver.prototxt", 0, batch=50),
    Training("mnist_pair_classifier/solver.prototxt", 8, batch=4),
    Training("face_siamese/solver.prototxt", 27, steps=30, batch=4),  # Adam's first steps increase the loss a lot
    Training("signature_siamese/solver.prototxt", 14, steps=6, batch=2),
    Training("oneshot_siamese/solver.prototxt", 10, steps=4, batch=2),
]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwritten digits as a folder of classes and as lists of pairs, under the names that the nets give."""
    folder = tmp_path_factory.mktemp("pictures")
    images, digits = load_digits()[0]
    for number in range(120):
        for name in ("faces", "characters"):
            # Classes 0 to 9, then the same again at the numbers of the test classes of these nets.
            place = folder / name / f"{digits[number] + 100 * (number % 2):03d}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[number]).save(place / f"{number:03d}.png")
    (folder / "signatures").mkdir()
    for number in range(40):
        Image.fromarray(images[number]).save(folder / "signatures" / f"{number}.png")
    rows = [f"{i}.png,{j}.png,{int(digits[i] == digits[j])}" for i in range(40) for j in range(i) if (i + j) % 5 == 0]
    for name in ("train.csv", "test.csv"):
        (folder / name).write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("file", FILES)
def test_check_reports_nothing(file: str) -> None:
    parsed = sp.parse_solver(NETWORKS / file) if "solver" in file else None
    assert [str(finding) for finding in check_net(NETWORKS / file)] == [] if parsed is None else parsed.message.net


@pytest.mark.slow
@pytest.mark.parametrize("training", TRAININGS, ids=lambda training: training.solver)
def test_it_trains_shares_and_deploys(training: Training, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures)
    solver = begun(training, pictures)
    users = [[use.param.id for use in node.params] for node in solver.net.graph.nodes]
    every = [name for names in users for name in set(names)]
    assert sum(every.count(name) > 1 for name in set(every)) == training.shared
    solver.step(2)
    before, after = losses_of_one_batch(training, pictures)
    assert after < before
    deploy = NETWORKS / Path(training.solver).parent / "deploy.prototxt"
    solver.net.save_weights(pictures / "weights.caffemodel")
    deployed = sp.Net(deploy, phase="TEST")
    report = deployed.load_weights(pictures / "weights.caffemodel")
    if training.solver != "half_twin/solver_upper.prototxt":  # whose deploy net is that of the other half-twin
        assert not report.missing
    inputs = {
        blob.name: torch.rand(3, *blob.shape[1:])
        for node in deployed.graph.nodes
        if node.type == "Input"
        for blob in node.tops
    }
    if training.solver.startswith("pseudo"):
        inputs = {name: blob[:1] for name, blob in inputs.items()}  # the sequence markers of the LSTM are for one row
    assert all(torch.isfinite(blob).all() for blob in deployed(**inputs).values())


def begun(training: Training, folder: Path) -> sp.Solver:
    """A solver of the network's own file and net, with smaller batches and without tests and snapshots."""
    path = NETWORKS / training.solver
    message = sp.parse_solver(path).message
    net = sp.parse_net(path.parent / message.net).message
    for layer in net.layer:
        if layer.type == "PairData":
            layer.pair_data_param.batch_size = training.batch
            if layer.pair_data_param.classes == "0:150":
                layer.pair_data_param.classes = "0:10"
    (folder / "net.prototxt").write_text(str(net))
    message.net, message.snapshot, message.display = str(folder / "net.prototxt"), 0, 0
    message.ClearField("test_iter")
    message.ClearField("test_interval")
    (folder / "solver.prototxt").write_text(str(message))
    return sp.Solver(folder / "solver.prototxt")


def losses_of_one_batch(training: Training, folder: Path) -> tuple[float, float]:
    """The loss of a batch from the net's data layer, at first and at best in a few steps on it alone."""
    solver = begun(training, folder)
    batch = solver.net.pull()
    layer = next(node for node in solver.net.graph.nodes if node.type == "PairData")
    tensors = {top.name: batch[top.name] for top in layer.tops}
    solver = sp.Solver(folder / "solver.prototxt", data={layer.name: [tensors]})
    solver.step(training.steps)
    return solver.losses[0], min(solver.losses[1:])
