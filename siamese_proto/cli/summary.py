"""siamese-proto summary: print a net as a table."""

import sys
from collections.abc import Callable
from pathlib import Path

import click

import siamese_proto.export.summary as table
from siamese_proto.cli.group import Command
from siamese_proto.cli.options import PHASES, NetOptions, net_argument, net_options, output_format, phase, python_layers
from siamese_proto.errors import escaped
from siamese_proto.graph.ir import Phase
from siamese_proto.proto.reader import parse_net

FORMATS: dict[str, Callable[[table.Summary], str]] = {
    "md": table.to_markdown,
    "json": table.to_json,
    "csv": table.to_csv,
}


@click.command(cls=Command)
@net_argument()
@phase(*PHASES, default="TRAIN")
@net_options(python_layers)
@output_format("table", *FORMATS)
def summary(model: Path, phase: Phase, state: NetOptions, text_format: str) -> None:
    """Print the layers of NET: type, settings, output shapes, parameters and sharing, trained parameters, learning-rate
    multipliers, multiply-adds and memory of the outputs.

    Totals count a shared parameter once, and also show the number of parameters without sharing.
    """
    result = table.summarize(state.graph_to_show(parse_net(model), phase))
    if text_format in FORMATS:
        click.echo(FORMATS[text_format](result), nl=False, color=True)  # unchanged names: click would drop escape codes
    elif sys.stdout.isatty():
        _show(result)
    else:
        click.echo(table.to_text(result), nl=False)


def _show(result: table.Summary) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    lines = [table.cells(row) for row in result.rows]
    columns, left_out = table.columns_that_fit(lines, console.width - 1)
    shown = Table(title=Text(table.heading(result), style="bold"), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in columns:
        title = table.TITLES[column]
        is_number = title in table.NUMBERS
        shown.add_column(title, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row, line in zip(result.rows, lines, strict=True):
        texts = (Text(escaped(line[column])) for column in columns)
        shown.add_row(*texts, style=None if row.parameters else "dim")
    console.print(shown)
    for total in table.totals(result):
        console.print(Text(total))
    if left_out:
        console.print(Text(f"Too narrow for {', '.join(left_out)}; --format md, csv and json show them", style="dim"))
