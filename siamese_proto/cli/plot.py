"""siamese-proto plot: a training log as a picture."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("log", type=click.Path())
@click.argument("out", type=click.Path())
def plot(log: str, out: str) -> None:
    """Draw the training LOG, Caffe's or ours, to OUT (.png, .svg or .pdf): losses, test outputs, learning rate."""
    from siamese_proto.metrics.plots import check_picture, plot_training
    from siamese_proto.metrics.training_log import read_training_log

    check_picture(out)
    plot_training(read_training_log(log), out, Path(log).name)
