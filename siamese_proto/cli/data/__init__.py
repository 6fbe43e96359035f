"""siamese-proto data: make databases, and look inside; one file a command."""

from __future__ import annotations

import click

from siamese_proto.cli.group import LazyGroup

COMMANDS = {
    "pairs": "Make a pair database from IDX files.",
    "digits": "Make pair databases from the digits that come along.",
    "show": "Print what a database holds.",
}


@click.group(cls=LazyGroup, commands_help=COMMANDS, package="siamese_proto.cli.data")
def data() -> None:
    """Make pair databases, and look inside databases."""
