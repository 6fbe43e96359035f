"""Upgrade a solver file to the current format, like Caffe's tool: upgrade_solver_proto_text.py IN OUT."""

from __future__ import annotations

from pathlib import Path

import click

from siamese_proto.cli.group import OneLineProblems
from siamese_proto.proto.upgrade.files import upgrade_solver_file


@click.command(cls=OneLineProblems)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
def main(source: Path, target: Path) -> None:
    """Upgrade the solver file IN to the current format and write it to OUT."""
    for change in upgrade_solver_file(source, target):
        click.echo(change)


if __name__ == "__main__":
    main()
