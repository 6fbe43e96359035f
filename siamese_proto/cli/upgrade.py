"""siamese-proto upgrade: upgrade files to the current format."""

from pathlib import Path

import click

from siamese_proto.files import check_writable
from siamese_proto.proto.load import kind_of
from siamese_proto.proto.upgrade.files import upgrade_net_file, upgrade_solver_file

WEIGHTS = ".caffemodel"


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
def upgrade(source: Path, target: Path) -> None:
    """Upgrade IN, a net, a solver file or a .caffemodel, to the current format and write it to OUT."""
    check_writable(target)
    if source.suffix == WEIGHTS:
        from siamese_proto.weights.formats import read_weights, write_stored

        write_stored(target, read_weights(source))
        changes: tuple[str, ...] = ()
    elif kind_of(source) == "solver":
        changes = upgrade_solver_file(source, target)
    else:
        changes = upgrade_net_file(source, target)
    for change in changes:
        click.echo(change)
    click.echo(f"{target}: written")
