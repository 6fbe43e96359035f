"""siamese-proto compare: how alike two images are."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from siamese_proto.cli.twin_options import TwinOptions, output_format, twin_options


@click.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--evaluated", metavar="FILE", help="What 'evaluate --json FILE' found: its threshold and calibration.")
@click.option("--threshold", type=float, help="Take images that are closer for the same.")
@click.option("--show", metavar="OUT", help="Draw both images with their distance (.png, .svg or .pdf).")
@output_format
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

    The score is the chance that they are, where the net has learned to tell it or where --evaluated gives what was
    learned of its distances; else 2 / (1 + exp(distance)). The verdict takes a threshold.
    """
    from siamese_proto.evaluation.compare import as_lines, compare_files, plot_comparison
    from siamese_proto.evaluation.plots.pictures import check_picture
    from siamese_proto.evaluation.report import read_evaluation

    if show:
        check_picture(show)
    judged = read_evaluation(evaluated) if evaluated else None
    opened = twin.open()
    found = compare_files(opened, first, second, judged, twin.subject(opened), threshold)
    click.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False) if text_format == "json" else as_lines(found))
    if show:
        plot_comparison(opened, found, show)
