"""siamese-proto new: start a project."""

import shlex
from pathlib import Path

import click

from siamese_proto.errors import quoted
from siamese_proto.zoo import network_files, network_titles


@click.command()
@click.argument("name", required=False)
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option("--train", metavar="SOURCE", help="Train on these images instead of those in the net.")
@click.option("--test", metavar="SOURCE", help="Test on these images instead of those in the net.")
def new(name: str | None, folder: Path | None, train: str | None, test: str | None) -> None:
    """Start a project in FOLDER from the network NAME: its net, solver and deploy files. Without NAME, list them.

    SOURCE is a source of a PairData layer: a folder with a sub-folder for each class, a list file, a CSV of pairs, a
    file in MNIST's format, a database, or `digits:train` and `digits:test`, the included handwritten digits. Without
    --test, a quarter of the classes of the training images is for the test.
    """
    if name is None:
        titles = network_titles()
        width = max(map(len, titles))
        for network, title in titles.items():
            click.echo(f"{network:{width}}  {title}")
        return
    network_files(name)  # report an unknown network before a missing folder
    if folder is None:
        raise click.UsageError(f"missing FOLDER: siamese-proto new {name} FOLDER")
    from siamese_proto.projects.project import start_project

    project = start_project(name, folder, train, test)
    for path in project.files:
        click.echo(f"{path}: written")
    for phase, source in sorted(project.sources.items(), reverse=True):
        if source.text:
            click.echo(f"{phase}: {source.text} from {quoted(source.path)}")
    for plan in project.plans:
        click.echo(str(plan))
    place = f"./{folder}" if str(folder).startswith("-") else str(folder)
    click.echo(f"next:\n  cd {shlex.quote(place)}")
    for command in _next_commands(project.missing, [plan.solver for plan in project.plans]):
        click.echo(f"  {command}")


def _next_commands(missing: tuple[str, ...], solvers: list[str]) -> list[str]:
    """The commands to run in the folder."""
    commands = []
    if any(source.startswith("digits_") for source in missing):
        commands.append("siamese-proto data digits .")
    elif missing:
        names = ", ".join(map(quoted, missing))
        commands.append(f"# add the data, or write other sources in train_test.prototxt: {names}")
    train = ["siamese-proto train --solver solver.prototxt --log train.log"]
    if "solver_quick.prototxt" in solvers:
        quick = "siamese-proto train --solver solver_quick.prototxt --log train.log"
        train = [quick, f"# or the complete training: {train[0]}"]
    return [
        *commands,
        "siamese-proto check train_test.prototxt",
        "siamese-proto draw train_test.prototxt net.svg",
        *train,
        "siamese-proto plot train.log curves.png",
        "siamese-proto evaluate --model train_test.prototxt --weights FILE.caffemodel",
    ]
