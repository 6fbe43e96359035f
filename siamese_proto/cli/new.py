"""siamese-proto new: a project of one's own."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from siamese_proto.errors import quoted
from siamese_proto.networks import missing_sources, network_titles, start_project


@click.command()
@click.argument("name", required=False)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--train", metavar="SOURCE", help="Images to train on, in place of those that the net names.")
@click.option("--test", metavar="SOURCE", help="Images to test on, in place of those that the net names.")
def new(name: str | None, folder: Path | None, train: str | None, test: str | None) -> None:
    """Start a project in FOLDER from the network NAME: its net, solver and deploy files. Without NAME, list them.

    SOURCE is what PairData reads: a folder with a folder for each class, a list file, a file of MNIST's format, a
    database, or `digits:train` and `digits:test`, the handwritten digits that come along.
    """
    if name is None:
        titles = network_titles()
        width = max(map(len, titles))
        for network, title in titles.items():
            click.echo(f"{network:{width}}  {title}")
        return
    if folder is None:
        raise click.UsageError(f"a folder is missing: siamese-proto new {name} FOLDER")
    for path in start_project(name, folder, train, test):
        click.echo(f"{path}: written")
    click.echo("next:")
    place = str(folder)
    click.echo(f"  cd {shlex.quote(f'./{place}' if place.startswith('-') else place)}")
    for command in _next_commands(folder):
        click.echo(f"  {command}")


def _next_commands(folder: Path) -> list[str]:
    """What one would type in the folder."""
    commands = []
    missing = missing_sources(folder)
    if any(source.startswith("digits_") for source in missing):
        commands.append("siamese-proto data digits .")
    elif missing:
        commands.append(
            f"# put the data there, or name others in train_test.prototxt: {', '.join(map(quoted, missing))}"
        )
    return [
        *commands,
        "siamese-proto check train_test.prototxt",
        "siamese-proto draw train_test.prototxt net.svg",
        "siamese-proto train --solver solver.prototxt --log train.log",
        "siamese-proto plot train.log curves.png",
        "siamese-proto evaluate --model train_test.prototxt --weights FILE.caffemodel",
    ]
