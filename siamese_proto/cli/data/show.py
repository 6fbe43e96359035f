"""siamese-proto data show: what a database holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from siamese_proto.cli.data.options import backend_of, found_backend
from siamese_proto.data.databases.store import Database
from siamese_proto.errors import DataError, quoted

if TYPE_CHECKING:
    from siamese_proto.data.databases.listing import Listing

_LISTED = 20  # labels at most


@click.command()
@click.argument("database", metavar="DB")
@found_backend
@click.option("--picture", metavar="OUT.png", help="Write a picture of the first records with their labels.")
@click.option(
    "--count", type=click.IntRange(min=1), default=16, show_default=True, help="Records listed and in the picture."
)
def show(database: str, backend: str | None, picture: str | None, count: int) -> None:
    """Print what the database DB holds. It may be in use."""
    from siamese_proto.data.databases.database import first_record, open_database
    from siamese_proto.data.databases.listing import list_database

    with open_database(database, backend_of(backend) if backend else None) as opened:
        first_record(opened)
        _print_listing(database, opened, list_database(opened))
        _print_first(opened, count)
        if picture:
            _write_picture(opened, picture, count)


def _form(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def _print_listing(path: str, database: Database, listing: Listing) -> None:
    click.echo(f"{path}: {database.backend}, {listing.records} records")
    if listing.encoded:
        click.echo(f"encoded images: {listing.encoded}")
    for size, number in listing.sizes.items():
        click.echo(f"size {_form(size)} (channels x height x width): {number} records")
    for label, number in list(listing.labels.items())[:_LISTED]:
        click.echo(f"label {label}: {number} records ({number / listing.records:.1%})")
    if len(listing.labels) > _LISTED:
        click.echo(f"and {len(listing.labels) - _LISTED} more labels")


def _print_first(database: Database, count: int) -> None:
    import itertools

    from siamese_proto.data.databases.datum import Decoding, key_text, size_of
    from siamese_proto.data.databases.listing import datums

    click.echo("first records:")
    for key, datum in itertools.islice(datums(database), count):
        kind = "encoded, " if datum.encoded else ""
        click.echo(f"  {key_text(key)}: {kind}{_form(size_of(key, datum, Decoding()))}, label {datum.label}")


def _write_picture(database: Database, out: str, count: int) -> None:
    import io
    import itertools

    from siamese_proto.data.databases.datum import Decoding, pixels_of
    from siamese_proto.data.databases.listing import datums, draw_records
    from siamese_proto.files import write_atomically

    records = [
        (pixels_of(key, datum, Decoding()), datum.label) for key, datum in itertools.islice(datums(database), count)
    ]
    image = io.BytesIO()
    try:
        draw_records(records).save(image, Path(out).suffix.lstrip(".").upper() or "PNG")
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"picture {quoted(out)} cannot be written in that format; name it OUT.png") from error
    write_atomically(out, image.getvalue())
    click.echo(f"picture: {out}")
