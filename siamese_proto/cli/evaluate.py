"""siamese-proto evaluate: how good a trained twin is."""

from __future__ import annotations

from typing import Any

import click

from siamese_proto.cli.options import pair_labels
from siamese_proto.cli.twin_options import (
    TwinOptions,
    chosen_classes,
    labels_file,
    output_format,
    root_folder,
    same_seed,
    twin_options,
    waiting,
)


@click.command()
@click.option(
    "--pairs", metavar="SOURCE", help="Judge these pairs: a database, a CSV, or labelled images to draw from."
)
@click.option("--labelled", metavar="SOURCE", help="Find classes again among these labelled images.")
@click.option("--count", type=click.IntRange(min=1), help="Pairs at most; all there are, or 2000 where drawn.")
@click.option("--same-fraction", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Of drawn pairs.")
@pair_labels
@click.option("--threshold", type=float, help="Judge this threshold instead of choosing one on half of the pairs.")
@click.option("--way", type=click.IntRange(min=2), default=5, show_default=True, help="Classes in an episode.")
@click.option("--shot", type=click.IntRange(min=1), default=1, show_default=True, help="Examples of each.")
@click.option("--episodes", type=click.IntRange(min=1), default=1000, show_default=True, help="To average over.")
@click.option("--queries", type=click.IntRange(min=1), default=1000, show_default=True, help="At most, for recall.")
@chosen_classes
@labels_file
@root_folder
@same_seed
@output_format
@click.option("--json", "json_file", metavar="FILE", help="Write all that was found, for 'compare' and 'plot'.")
@click.option("--picture", metavar="OUT", help="Draw all that was found (.png, .svg or .pdf).")
@twin_options
def evaluate(
    twin: TwinOptions,
    pairs: str | None,
    labelled: str | None,
    text_format: str,
    json_file: str | None,
    picture: str | None,
    **drawing: Any,
) -> None:
    """Judge a trained twin.

    On pairs, those of its own TEST data layer unless others are given: verification accuracy, ROC, equal error rate,
    true accepts at few false accepts. Each pair counts once; where there is no end of pairs, a sample is drawn. On
    labelled images: N-way K-shot accuracy, recall among the nearest, mean average precision.
    """
    from siamese_proto.evaluation.evaluate import JudgingSettings, judge_twin
    from siamese_proto.evaluation.plots.figures import plot_evaluation
    from siamese_proto.evaluation.plots.pictures import check_picture
    from siamese_proto.evaluation.report import as_json, as_table, save_evaluation
    from siamese_proto.files import check_writable

    if twin.same_label is not None and drawing["pair_labels"]:
        raise click.UsageError("--same-label and --pair-labels exclude each other; give one of them")
    if picture:
        check_picture(picture)
    if json_file:
        check_writable(json_file)
    opened = twin.open(drawing["seed"])
    settings = JudgingSettings(pairs, labelled, **drawing)
    with waiting("judging") as progress:
        found, embedding = judge_twin(opened, twin.subject(opened), settings, progress)
    click.echo(as_json(found) if text_format == "json" else as_table(found), nl=text_format != "json")
    if json_file:
        save_evaluation(found, json_file)
    if picture:
        plot_evaluation(found, picture, embedding=embedding)
