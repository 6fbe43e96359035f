"""siamese-proto summary: a net as a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from siamese_proto import summary as table
from siamese_proto.cli.options import net_state
from siamese_proto.compiler import load_graph
from siamese_proto.graph.ir import Phase, Shape

FORMATS: dict[str, Callable[[table.Summary], str]] = {
    "md": table.to_markdown,
    "json": table.to_json,
    "csv": table.to_csv,
}


@click.command()
@click.argument("model", type=click.Path())
@net_state
@click.option("--format", "text_format", type=click.Choice(["table", *FORMATS]), default="table", show_default=True)
def summary(
    model: str,
    phase: Phase,
    level: int,
    stages: tuple[str, ...],
    shapes: dict[str, Shape],
    text_format: str,
) -> None:
    """Print the layers of MODEL: type, settings, output shapes, parameters, who shares them, multiply-adds.

    Totals count a shared parameter once.
    """
    made = table.summarize(load_graph(Path(model), phase, level, stages, shapes))
    if text_format in FORMATS:
        click.echo(FORMATS[text_format](made), nl=False)
    elif click.get_text_stream("stdout").isatty():
        _show(made)
    else:
        click.echo(table.to_text(made), nl=False)


def _show(made: table.Summary) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    shown = Table(title=Text(f"{made.name or 'net'} ({made.phase})", style="bold"))
    for title in table.TITLES:
        shown.add_column(title, justify="right" if title in table.NUMBERS else "left", overflow="fold")
    for row in made.rows:
        shown.add_row(*(Text(text) for text in table.cells(row)), style=None if row.parameters else "dim")
    console.print(shown)
    for total in table.totals(made):
        console.print(Text(total))
