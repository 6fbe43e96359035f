"""Options in groups: commands with many options list them in `--help` by purpose.

@click.command(cls=GroupedCommand, groups={"Model": ("model", "weights"), "Output": ("out",)})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

OTHERS = "Other options"


class GroupedCommand(click.Command):
    """A command whose `--help` shows its options in groups.

    Args:
        groups: For each heading the names of parameters, as the function of the command has them. Options in no group
            are listed last.
    """

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        headings = {name: heading for heading, names in self.groups.items() for name in names}
        sections: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*self.groups, OTHERS)}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                sections[headings.get(param.name or "", OTHERS)].append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
