"""siamese-proto search: the images nearest to one."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from siamese_proto.cli.twin_options import TwinOptions, labels_file, output_format, root_folder, twin_options, waiting
from siamese_proto.errors import escaped


@click.command()
@click.argument("query", metavar="QUERY")
@click.option(
    "--in", "source", metavar="SOURCE", required=True, help="A folder, other labelled images, or a .npz of 'embed'."
)
@click.option("--count", type=click.IntRange(min=1), default=10, show_default=True, help="Images to find.")
@click.option("--picture", metavar="OUT", help="Draw the query and what was found (.png, .svg or .pdf).")
@labels_file
@root_folder
@output_format
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

    The features of many images are worth keeping: `embed SOURCE -o features.npz`, and then `--in features.npz`.
    """
    from siamese_proto.evaluation.compare import plot_found, search_images
    from siamese_proto.evaluation.plots.pictures import check_picture

    if picture:
        check_picture(picture)
    opened = twin.open()
    with waiting("embedding") as progress:
        found, pictures = search_images(
            opened,
            query,
            source,
            twin.subject(opened),
            count=count,
            labels=labels,
            root_folder=root_folder,
            progress=progress,
        )
    if text_format == "json":
        click.echo(json.dumps([asdict(one) for one in found], indent=2, ensure_ascii=False))
    else:
        for one in found:
            click.echo(
                f"{one.distance:10.4f}  {escaped(one.name)}"
                + (f"  (class {escaped(one.class_name)})" if one.class_name else "")
            )
    if picture:
        plot_found(opened, query, found, pictures, picture)
