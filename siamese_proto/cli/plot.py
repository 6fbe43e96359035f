"""siamese-proto plot: a training log, a judgement or features as a picture."""

from __future__ import annotations

from pathlib import Path

import click

_WHATS = ("curves", "all", "roc", "histogram", "pairs", "features")


@click.command()
@click.argument("source", metavar="FILE", type=click.Path())
@click.argument("out", type=click.Path())
@click.option(
    "--what",
    type=click.Choice(_WHATS),
    help="Of what 'evaluate' found: all, roc, histogram, or the hardest pairs. Else by what the file is.",
)
@click.option("--title", default="", help="Above the picture.")
def plot(source: str, out: str, what: str | None, title: str) -> None:
    """Draw FILE to OUT (.png, .svg or .pdf).

    FILE is a training log, Caffe's or ours (losses, test outputs, learning rate); a .json of 'evaluate' (ROC,
    distances, the hardest pairs); or a .npz of 'embed' (the features as points).
    """
    from siamese_proto.evaluation.plots.pictures import check_picture
    from siamese_proto.evaluation.plots.results import draw_file

    check_picture(out)
    draw_file(source, out, what, title or Path(source).name)
