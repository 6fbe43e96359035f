"""siamese-proto data: create and inspect databases; one module per command."""

import click

from siamese_proto.cli.group import LazyGroup

COMMANDS = {
    "pairs": "Make a pair database from labeled images, or from a CSV of pairs.",
    "triplets": "Make a database of triplets from labeled images.",
    "images": "Make a database of images from a list or a folder.",
    "digits": "Make pair databases from the included digits.",
    "mean": "Compute the mean image of a database.",
    "merge": "Merge databases into one.",
    "show": "Print what a database holds.",
}


@click.group(cls=LazyGroup, commands_help=COMMANDS, package="siamese_proto.cli.data")
def data() -> None:
    """Create and inspect databases."""
