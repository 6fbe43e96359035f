"""siamese-proto data mean: the mean image of a database."""

import os

import click

from siamese_proto.cli.data.options import backend_of, found_backend, progress


@click.command()
@click.argument("database", metavar="DB")
@click.argument("out", metavar="[OUT.binaryproto]", required=False)
@found_backend
def mean(database: str, out: str | None, backend: str | None) -> None:
    """Compute the mean image of the database DB, for mean_file, and print the mean of each channel, for mean_value.

    DB may also be a mean image as a NumPy file (.npy) of shape (channels, height, width), which is converted.
    """
    from siamese_proto.data.databases.database import open_database
    from siamese_proto.data.databases.mean_image import mean_image, read_npy, write_mean
    from siamese_proto.data.transform import is_npy
    from siamese_proto.files import check_writable

    if out is not None:
        check_writable(out)
    if os.path.isfile(database) and is_npy(database):
        mean_pixels, description = read_npy(database), f"the mean in {database}"
    else:
        with open_database(database, backend_of(backend) if backend else None) as opened:
            count = opened.count()
            with progress(out or database, count, "records") as report_progress:
                mean_pixels, description = mean_image(opened, report_progress), f"the mean of {count} records"
    if out is not None:
        write_mean(out, mean_pixels)
        click.echo(f"{out}: {description}, {' x '.join(map(str, mean_pixels.shape))}")
    for channel, value in enumerate(mean_pixels.mean((1, 2), dtype="float64")):
        click.echo(f"mean_value channel [{channel}]: {value:g}")
