"""siamese-proto evaluate: evaluate a trained twin."""

from typing import Any

import click

from siamese_proto.cli.group import Command, section
from siamese_proto.cli.options import DATA, OUTPUT, POSITIVE, net_argument, output_format, pair_labels
from siamese_proto.cli.twin_options import (
    TwinOptions,
    class_choice,
    labels_file,
    progress_bar,
    root_folder,
    seed_option,
    twin_options,
)


@click.command(cls=Command)
@net_argument()
@section(
    DATA,
    click.option(
        "--pairs", metavar="SOURCE", help="Evaluate on these pairs: a database, a CSV, or labeled images to draw from."
    ),
    click.option("--labelled", "labeled", metavar="SOURCE", help="Evaluate on these labeled images."),
    class_choice,
    labels_file,
    root_folder,
    seed_option,
)
@section(
    "Verification of pairs",
    click.option("--count", type=POSITIVE, help="Pairs at most.  [default: all, or 2000 if drawn]"),
    click.option(
        "--same-fraction",
        type=click.FloatRange(0, 1),
        default=0.5,
        show_default=True,
        help="Fraction of the drawn pairs that are of one class.",
    ),
    pair_labels,
    click.option("--threshold", type=float, help="Score this threshold instead of choosing one on half of the pairs."),
)
@section(
    "Few-shot classification and retrieval",
    click.option("--way", type=click.IntRange(min=2), default=5, show_default=True, help="Classes in an episode."),
    click.option("--shot", type=POSITIVE, default=1, show_default=True, help="Examples of each class."),
    click.option("--episodes", type=POSITIVE, default=1000, show_default=True, help="Number of episodes."),
    click.option(
        "--queries",
        type=POSITIVE,
        default=1000,
        show_default=True,
        help="Queries of the retrieval at most.",
    ),
)
@section(
    OUTPUT,
    output_format("text", "json", text="Print text, or one JSON object."),
    click.option("--json", "json_file", metavar="FILE", help="Write all results, for 'compare' and 'plot'."),
    click.option("--picture", metavar="OUT", help="Draw all results (.png, .svg or .pdf)."),
)
@twin_options
def evaluate(twin: TwinOptions, text_format: str, json_file: str | None, picture: str | None, **settings: Any) -> None:
    """Evaluate a trained twin.

    On pairs, by default those of its own TEST data layer: verification accuracy, ROC curve, equal error rate, and true
    accepts at low false accept rates. Each pair counts once; of a source without an end, the pairs are a sample. On
    labeled images: N-way K-shot accuracy, recall among the nearest images, and mean average precision.
    """
    from siamese_proto.data.images.labeled_source import LabeledSource
    from siamese_proto.evaluation.evaluate import EvaluationSettings, evaluate_twin
    from siamese_proto.evaluation.plots.figures import plot_evaluation
    from siamese_proto.evaluation.plots.style import check_picture
    from siamese_proto.evaluation.report import as_json, as_table, save_evaluation
    from siamese_proto.files import check_writable

    if twin.settings["one_is_same"] is not None and settings["pair_labels"]:
        raise click.UsageError("--same-label and --pair-labels exclude each other; give one of them")
    if picture:
        check_picture(picture)
    if json_file:
        check_writable(json_file)
    shared = {name: settings.pop(name) for name in ("classes", "labels", "root_folder")}
    for name in ("pairs", "labeled"):
        if settings[name] is not None:
            settings[name] = LabeledSource(settings[name], **shared)
    opened = twin.open(settings["seed"])
    with progress_bar("evaluating"):
        evaluation, embedding = evaluate_twin(opened, EvaluationSettings(**settings))
    click.echo(as_json(evaluation) if text_format == "json" else as_table(evaluation))
    if json_file:
        save_evaluation(evaluation, json_file)
    if picture:
        plot_evaluation(evaluation, picture, embedding=embedding)
