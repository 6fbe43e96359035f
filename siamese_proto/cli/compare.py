"""siamese-proto compare: how similar two images are."""

import click

from siamese_proto.cli.group import Command, section
from siamese_proto.cli.options import OUTPUT, net_argument, output_format
from siamese_proto.cli.twin_options import TwinOptions, twin_options


@click.command(cls=Command)
@net_argument()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@section(
    "Decision",
    click.option(
        "--evaluated", metavar="FILE", help="Result of 'evaluate --json FILE': a threshold and a calibration."
    ),
    click.option("--threshold", type=float, help="Images with a smaller distance are the same."),
)
@section(
    OUTPUT,
    click.option("--show", metavar="OUT", help="Draw both images with their distance (.png, .svg or .pdf)."),
    output_format("text", "json", text="Print text, or one JSON object."),
)
@twin_options
def compare(
    first: str,
    second: str,
    evaluated: str | None,
    threshold: float | None,
    show: str | None,
    text_format: str,
    twin: TwinOptions,
) -> None:
    """Compare two image files A and B: their distance, a score from 0 to 1, and whether they are the same.

    The score is the probability that they are, if the net computes it or --evaluated gives a calibration; otherwise
    2 / (1 + exp(distance)). The verdict needs a threshold.
    """
    from siamese_proto.evaluation.compare import compare_files, plot_comparison
    from siamese_proto.evaluation.plots.style import check_picture
    from siamese_proto.evaluation.report import read_evaluation, to_json

    if show:
        check_picture(show)
    evaluation = read_evaluation(evaluated) if evaluated else None
    opened = twin.open()
    comparison = compare_files(opened, first, second, evaluation, threshold)
    click.echo(to_json(comparison) if text_format == "json" else str(comparison))
    if show:
        plot_comparison(opened, comparison, show)
