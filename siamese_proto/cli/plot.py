"""siamese-proto plot: a training log, results of `evaluate`, or features as a picture."""

from pathlib import Path

import click


@click.command()
@click.argument("source", metavar="FILE", type=click.Path())
@click.argument("out", type=click.Path())
@click.option(
    "--what",
    type=click.Choice(("curves", "all", "roc", "histogram", "pairs", "features")),
    help="What to draw; of a .json: all, roc, histogram, or the hardest pairs.  [default: by the suffix of FILE]",
)
@click.option("--title", default="", help="Title of the picture.  [default: the name of FILE]")
def plot(source: str, out: str, what: str | None, title: str) -> None:
    """Draw FILE to OUT (.png, .svg or .pdf).

    FILE is a training log of Caffe or of siamese_proto (losses, test outputs, learning rate), a .json of 'evaluate'
    (ROC curve, distances, the hardest pairs), or a .npz of 'embed' (the features as points).
    """
    from siamese_proto.evaluation.plots.figures import plot_file
    from siamese_proto.evaluation.plots.style import check_picture

    check_picture(out)
    plot_file(source, out, what, title or Path(source).name)
