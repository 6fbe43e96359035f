"""siamese-proto embed: features of images, as arrays or as a picture."""

import os

import click

from siamese_proto.cli.group import Command, section
from siamese_proto.cli.options import DATA, OUTPUT, net_argument
from siamese_proto.cli.twin_options import (
    TwinOptions,
    class_choice,
    labels_file,
    progress_bar,
    root_folder,
    twin_options,
)

_ARRAYS = (".npz", ".npy")


@click.command(cls=Command)
@net_argument()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@section(
    OUTPUT,
    click.option(
        "-o", "--out", "outs", metavar="FILE", multiple=True, required=True, help="Write this file. Can be repeated."
    ),
    click.option("--second", is_flag=True, help="Compute the features of the second tower, if the towers differ."),
)
@section(
    DATA,
    class_choice,
    labels_file,
    root_folder,
)
@twin_options
def embed(
    sources: tuple[str, ...],
    outs: tuple[str, ...],
    second: bool,
    classes: str,
    labels: str,
    root_folder: str,
    twin: TwinOptions,
) -> None:
    """Compute the features of images: files, folders, or labeled images (IDX, list, database, 'digits').

    FILE.npz contains features, labels, names and class_names; FILE.npy only the features; FILE.png, .svg or .pdf is a
    picture of them as points, with a color for each class. More than two features are projected by PCA.
    """
    from siamese_proto.data.images.labeled_source import LabeledSource
    from siamese_proto.errors import DataError, quoted
    from siamese_proto.evaluation.features import embed_images, open_images, save_features
    from siamese_proto.evaluation.plots.features import plot_embedding
    from siamese_proto.evaluation.plots.style import FORMATS, check_picture
    from siamese_proto.files import check_writable

    for out in outs:
        suffix = os.path.splitext(out)[1].lower()
        if suffix in FORMATS:
            check_picture(out)
        elif suffix in _ARRAYS:
            check_writable(out)
        else:
            raise DataError(f"{quoted(out)}: its name must end in {', '.join((*_ARRAYS, *FORMATS))}")
    labeled = [LabeledSource(path, labels=labels, root_folder=root_folder, classes=classes) for path in sources]
    opened = twin.open()
    with (
        progress_bar("embedding"),
        open_images(opened, labeled) as images,
    ):
        embedding = embed_images(opened, images, side=int(second))
    click.echo(f"images: {opened.preprocessing()}")
    count, width = embedding.features.shape
    for out in outs:
        if out.lower().endswith(_ARRAYS):
            save_features(embedding, out)
        else:
            plot_embedding(embedding, out, f"{count} images of {os.path.basename(sources[0].rstrip('/'))}")
        click.echo(f"{out}: {count} images, {width} features each")
