"""siamese-proto inspect: the content of a weights file or solver state."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from siamese_proto.cli.options import output_format
from siamese_proto.errors import escaped
from siamese_proto.weights.inspect import Contents, contents


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@output_format("text", "json", text="Format of the output.")
def inspect(file: Path, text_format: str) -> None:
    """List the layers and arrays of a weights FILE in any format, or the history in a solver state.

    For each array it shows the shape, the type, the smallest, largest and mean number, the array that it is a copy of,
    and how many of its numbers are not finite.
    """
    listing = contents(file)
    click.echo(json.dumps(asdict(listing), indent=2) if text_format == "json" else _as_text(listing))


def _as_text(listing: Contents) -> str:
    rows: list[tuple[str, ...]] = [("layer", "type", "blob", "shape", "numbers", "least", "most", "mean", "")]
    for row in listing.rows:
        notes = [f"same as {row.same_as}"] if row.same_as else []
        notes += [f"{row.not_finite} not finite"] if row.not_finite else []
        shape = "x".join(map(str, row.shape)) or "()"
        numbers = [f"{value:.4g}" if value is not None else "" for value in (row.least, row.most, row.mean)]
        cells = (row.layer, row.type, str(row.blob), shape, row.kind, *numbers, ", ".join(notes))
        rows.append(tuple(map(escaped, cells)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*map(escaped, listing.head), *(lines if listing.rows else []), listing.total])
