"""siamese-proto new: start a project."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from siamese_proto.errors import quoted
from siamese_proto.zoo import network_files, network_titles


@click.command()
@click.argument("name", required=False)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--train", metavar="SOURCE", help="Images to train on, instead of those that the net names.")
@click.option("--test", metavar="SOURCE", help="Images to test on, instead of those that the net names.")
def new(name: str | None, folder: Path | None, train: str | None, test: str | None) -> None:
    """Start a project in FOLDER from the network NAME: its net, solver and deploy files. Without NAME, list them.

    SOURCE is what PairData reads: a folder with a folder for each class, a list file, a CSV of pairs, a file of MNIST's
    format, a database, or `digits:train` and `digits:test`, the handwritten digits that are included. Without --test,
    a quarter of the classes of the training images is set aside for the test.
    """
    if name is None:
        titles = network_titles()
        width = max(map(len, titles))
        for network, title in titles.items():
            click.echo(f"{network:{width}}  {title}")
        return
    network_files(name)  # whether there is such a network matters more than the folder
    if folder is None:
        raise click.UsageError(f"a folder is missing: siamese-proto new {name} FOLDER")
    from siamese_proto.projects.starting import start_project

    project = start_project(name, folder, train, test)
    for path in project.files:
        click.echo(f"{path}: written")
    for phase, images in sorted(project.images.items(), reverse=True):
        if images.text:
            click.echo(f"{phase}: {images.text} from {quoted(images.path)}")
    for planned in project.plans:
        click.echo(str(planned))
    click.echo("next:")
    place = str(folder)
    click.echo(f"  cd {shlex.quote(f'./{place}' if place.startswith('-') else place)}")
    solvers = [planned.solver for planned in project.plans]
    for command in _next_commands(project.missing, "solver_quick.prototxt" in solvers):
        click.echo(f"  {command}")


def _next_commands(missing: tuple[str, ...], has_quick_solver: bool) -> list[str]:
    """What to type in the folder."""
    commands = []
    if any(source.startswith("digits_") for source in missing):
        commands.append("siamese-proto data digits .")
    elif missing:
        commands.append(
            f"# put the data there, or name others in train_test.prototxt: {', '.join(map(quoted, missing))}"
        )
    train = ["siamese-proto train --solver solver.prototxt --log train.log"]
    if has_quick_solver:
        train = [
            "siamese-proto train --solver solver_quick.prototxt --log train.log",
            f"# or the whole training: {train[0]}",
        ]
    return [
        *commands,
        "siamese-proto check train_test.prototxt",
        "siamese-proto draw train_test.prototxt net.svg",
        *train,
        "siamese-proto plot train.log curves.png",
        "siamese-proto evaluate --model train_test.prototxt --weights FILE.caffemodel",
    ]
