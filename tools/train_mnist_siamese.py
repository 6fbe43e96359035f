"""Train, evaluate and draw the LeNet twin on the embedded digits: python tools/train_mnist_siamese.py [FOLDER]."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
import torch

from siamese_proto.cli import main as siamese_proto
from siamese_proto.cli.group import OneLineProblems
from siamese_proto.data.images.digits import load_digits
from siamese_proto.evaluation.features import Embedding
from siamese_proto.evaluation.pair_distances import measure_data_layers
from siamese_proto.evaluation.plots.features import plot_embedding
from siamese_proto.evaluation.twin import Twin
from siamese_proto.evaluation.verification import best_threshold, score_threshold
from siamese_proto.net.net import Net

NETWORK = Path(__file__).resolve().parent.parent / "prototxt" / "mnist_siamese"
WEIGHTS = "mnist_siamese_iter_1000.caffemodel"
TRAIN_PAIRS, TEST_PAIRS, TEST_BATCHES = 6000, 2000, 20  # once through the pairs of each database


def run(*arguments: str) -> None:
    """Print a command as typed in a shell, and run it."""
    click.secho(f"$ siamese-proto {' '.join(arguments)}", bold=True, err=True)
    status = siamese_proto(arguments, standalone_mode=False)
    if status:
        sys.exit(status)


def judge() -> None:
    """Print how well distances separate pairs; the threshold is chosen on the pairs of the training database."""
    train = Net(NETWORK / "train_test.prototxt", phase="TRAIN", weights=WEIGHTS)
    test = Net(NETWORK / "train_test.prototxt", phase="TEST", weights=WEIGHTS)
    with torch.no_grad():
        loss = sum(test()["loss"].item() for _ in range(TEST_BATCHES)) / TEST_BATCHES
    click.echo(f"test loss {loss:.4f}")
    chosen_on, scored_on = (
        measure_data_layers(Twin(net), count).distances for net, count in ((train, TRAIN_PAIRS), (test, TEST_PAIRS))
    )
    click.echo(str(score_threshold(best_threshold(chosen_on), scored_on)))


def picture_of_features() -> None:
    """Write features.png: the features of digits that are in no training pair."""
    images, digits = load_digits()[1]
    tower = Net(NETWORK / "deploy.prototxt", weights=WEIGHTS)
    features = tower(data=images[:, None] / 256)["feat"].detach().numpy()  # (N, 2)
    embedding = Embedding(features, digits, [""] * len(digits))
    plot_embedding(embedding, "features.png", "Features of digits the twin was not trained on")


@click.command(cls=OneLineProblems)
@click.argument("folder", default="runs/mnist_siamese", type=click.Path(file_okay=False, path_type=Path))
def train_mnist_siamese(folder: Path) -> None:
    """Make pairs of the embedded digits in FOLDER, train the LeNet twin on them, test it and draw it."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    run("data", "digits", ".", "--overwrite")
    run("data", "show", "digits_train_leveldb", "--count", "12", "--picture", "pairs.png")
    run("train", "--solver", str(NETWORK / "solver_quick.prototxt"), "--log", "train.log")
    run("draw", str(NETWORK / "train_test.prototxt"), "mnist_siamese.svg")
    judge()
    picture_of_features()
    click.echo(f"written to {folder}: {WEIGHTS}, train.log, pairs.png, mnist_siamese.svg, features.png")


if __name__ == "__main__":
    train_mnist_siamese()
