"""Compute the mean image of a database, as Caffe's tool does: compute_image_mean.py [FLAGS] INPUT_DB [OUTPUT_FILE]."""

from __future__ import annotations

import click

from siamese_proto.cli.caffe_flags import flag
from siamese_proto.cli.data.options import BACKENDS, backend_of
from siamese_proto.cli.group import OneLineProblems
from siamese_proto.data.databases.database import open_database
from siamese_proto.data.databases.mean_image import mean_image, write_mean
from siamese_proto.files import check_writable


@click.command(cls=OneLineProblems)
@click.argument("database", metavar="INPUT_DB")
@click.argument("out", metavar="[OUTPUT_FILE]", required=False)
@flag("backend", type=BACKENDS, default="lmdb", show_default=True)
def main(database: str, out: str | None, backend: str) -> None:
    """Write the mean image of INPUT_DB to OUTPUT_FILE, and print the mean of each channel."""
    if out is not None:
        check_writable(out)
    with open_database(database, backend_of(backend)) as opened:
        mean = mean_image(opened)
        click.echo(f"Processed {opened.count()} files.", err=True)
    if out is not None:
        click.echo(f"Write to {out}", err=True)
        write_mean(out, mean)
    click.echo(f"Number of channels: {len(mean)}", err=True)
    for channel, value in enumerate(mean.mean((1, 2), dtype="float64")):
        click.echo(f"mean_value channel [{channel}]: {value:g}", err=True)


if __name__ == "__main__":
    main()
