"""siamese-proto search: the images nearest to one."""

import click

from siamese_proto.cli.group import Command, section
from siamese_proto.cli.options import DATA, OUTPUT, POSITIVE, net_argument, output_format
from siamese_proto.cli.twin_options import (
    TwinOptions,
    labels_file,
    progress_bar,
    root_folder,
    twin_options,
)


@click.command(cls=Command)
@net_argument()
@click.argument("query", metavar="QUERY")
@section(
    DATA,
    click.option(
        "--in", "source", metavar="SOURCE", required=True, help="A folder, other labeled images, or a .npz of 'embed'."
    ),
    labels_file,
    root_folder,
)
@section(
    OUTPUT,
    click.option("--count", type=POSITIVE, default=10, show_default=True, help="Number of images to find."),
    click.option("--picture", metavar="OUT", help="Draw the query and the images found (.png, .svg or .pdf)."),
    output_format("text", "json", text="Print text, or one JSON object."),
)
@twin_options
def search(
    query: str,
    source: str,
    count: int,
    picture: str | None,
    labels: str,
    root_folder: str,
    text_format: str,
    twin: TwinOptions,
) -> None:
    """Find the images of SOURCE that are nearest to the image file QUERY.

    For many images, save the features once with `embed SOURCE -o features.npz`, and search with `--in features.npz`.
    """
    from siamese_proto.data.images.labeled_source import LabeledSource
    from siamese_proto.evaluation.plots.style import check_picture
    from siamese_proto.evaluation.report import to_json
    from siamese_proto.evaluation.search import plot_neighbors, search_images

    if picture:
        check_picture(picture)
    searched = LabeledSource(source, labels=labels, root_folder=root_folder)
    opened = twin.open()
    with progress_bar("embedding"):
        neighbors, pictures = search_images(opened, query, searched, count=count)
    click.echo(to_json(neighbors) if text_format == "json" else "\n".join(map(str, neighbors)), nl=bool(neighbors))
    if picture:
        plot_neighbors(opened, query, neighbors, pictures, picture)
