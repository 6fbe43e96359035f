"""siamese-proto embed: the features of images, as arrays or as a picture."""

from __future__ import annotations

import os

import click

from siamese_proto.cli.twin_options import TwinOptions, chosen_classes, labels_file, root_folder, twin_options, waiting


@click.command()
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@click.option("-o", "--out", "outs", metavar="FILE", multiple=True, required=True, help="Can be repeated.")
@click.option("--second", is_flag=True, help="Let the images go through the second tower, where the towers differ.")
@chosen_classes
@labels_file
@root_folder
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
    """Compute the features of images: files, a folder, or labelled ones of any kind (IDX, list, database, 'digits').

    FILE.npz holds features, labels, names and class_names; FILE.npy the features alone; FILE.png, .svg or .pdf is a
    picture of the points, one colour a class: as they are where there are two features, by PCA where there are more.
    """
    from siamese_proto.evaluation.compare import check_output, embed_sources
    from siamese_proto.evaluation.features import plot_embedding, save_features

    for out in outs:
        check_output(out)
    opened = twin.open()
    with waiting("embedding") as progress:
        embedding = embed_sources(
            opened,
            sources,
            twin.subject(opened, str(opened.preparation())),
            side=int(second),
            labels=labels,
            root_folder=root_folder,
            classes=classes,
            progress=progress,
        )
    click.echo(f"images: {opened.preparation()}")
    for out in outs:
        if out.lower().endswith((".npz", ".npy")):
            save_features(embedding, out)
        else:
            plot_embedding(
                embedding, out, f"{len(embedding.features)} images of {os.path.basename(sources[0].rstrip('/'))}"
            )
        click.echo(f"{out}: {len(embedding.features)} images, {embedding.features.shape[1]} features each")
