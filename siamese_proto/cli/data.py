"""siamese-proto data: make databases, and look inside."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from siamese_proto.data.store import Backend, Database
from siamese_proto.errors import DataError, quoted

if TYPE_CHECKING:
    from siamese_proto.data.listing import Listing
    from siamese_proto.data.pairs import Draw

_TOLD_EVERY = 10000  # records, where lines tell the progress
_LISTED = 20  # labels at most

_backend = click.option(
    "--backend", type=click.Choice(["leveldb", "lmdb"], case_sensitive=False), default="leveldb", show_default=True
)
_draw = click.option(
    "--draw",
    type=click.Choice(["balanced", "uniform"]),
    default="balanced",
    show_default=True,
    help="balanced: a set fraction of the pairs is alike; uniform: both images from all, as Caffe's tool draws.",
)
_fraction = click.option(
    "--same-fraction",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Of the pairs, how many are alike (balanced drawing only).",
)
_seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
_overwrite = click.option("--overwrite", is_flag=True, help="Replace databases of these names.")


@click.group()
def data() -> None:
    """Make pair databases, and look inside databases."""


@data.command()
@click.argument("images")
@click.argument("labels")
@click.argument("out")
@_backend
@click.option("--count", type=click.IntRange(min=1), help="Pairs to make; as many as images unless given.")
@_draw
@_fraction
@_seed
@_overwrite
def pairs(images: str, labels: str, out: str, count: int | None, backend: str, overwrite: bool, **drawing: Any) -> None:
    """Make the pair database OUT from IDX files (the format of MNIST), plain or .gz.

    A record holds two images stacked on channels, with label 1 where they are of one class and 0 where not.
    """
    from siamese_proto.data.idx import read_labelled

    pixels, classes = read_labelled(images, labels)
    _make(out, backend, pixels, classes, count=count or len(pixels), overwrite=overwrite, **drawing)


@data.command()
@click.argument("folder", metavar="OUTDIR", default=".")
@_backend
@click.option("--train-count", type=click.IntRange(min=1), default=6000, show_default=True)
@click.option("--test-count", type=click.IntRange(min=1), default=2000, show_default=True)
@_draw
@_fraction
@_seed
@_overwrite
def digits(
    folder: str, backend: str, train_count: int, test_count: int, seed: int, overwrite: bool, **drawing: Any
) -> None:
    """Make a train and a test pair database in OUTDIR from the 1,797 handwritten digits that come along.

    The images of the two are not the same ones. Names: digits_train_BACKEND and digits_test_BACKEND.
    """
    from siamese_proto.data.digits import load_digits

    for number, (part, count, (pixels, classes)) in enumerate(
        zip(("train", "test"), (train_count, test_count), load_digits(), strict=True)
    ):
        out = str(Path(folder) / f"digits_{part}_{backend.lower()}")
        # Another seed for each, so that the two are not drawn alike.
        _make(out, backend, pixels, classes, count=count, seed=2 * seed + number, overwrite=overwrite, **drawing)


@data.command()
@click.argument("database", metavar="DB")
@click.option(
    "--backend",
    type=click.Choice(["leveldb", "lmdb"], case_sensitive=False),
    help="Judged by the files unless given.",
)
@click.option("--picture", metavar="OUT.png", help="Write a picture of the first records with their labels.")
@click.option(
    "--count", type=click.IntRange(min=1), default=16, show_default=True, help="Records listed and in the picture."
)
def show(database: str, backend: str | None, picture: str | None, count: int) -> None:
    """Print what the database DB holds. It may be in use."""
    from siamese_proto.data.database import first_record, open_database
    from siamese_proto.data.listing import list_database

    with open_database(database, _name(backend) if backend else None) as opened:
        first_record(opened)
        _print_listing(database, opened, list_database(opened))
        _print_first(opened, count)
        if picture:
            _write_picture(opened, picture, count)


def _name(backend: str) -> Backend:
    return cast(Backend, backend.upper())


def _make(
    out: str,
    backend: str,
    images: Any,
    classes: Any,
    *,
    count: int,
    draw: Draw,
    same_fraction: float,
    seed: int,
    overwrite: bool,
) -> None:
    from siamese_proto.data.pairs import draw_pairs, write_pairs

    drawn = draw_pairs(classes, count, draw=draw, same_fraction=same_fraction, seed=seed)
    with _progress(out, count) as tell:
        write_pairs(out, _name(backend), images, drawn, overwrite=overwrite, progress=tell)
    same = int(drawn.same.sum())
    click.echo(f"{out}: {count} pairs, {same} same and {count - same} different")


@contextlib.contextmanager
def _progress(out: str, count: int) -> Iterator[Callable[[int], None]]:
    """A bar on terminals, a line now and then elsewhere."""
    if sys.stdout.isatty():
        from rich.progress import Progress

        with Progress(transient=True) as bar:
            task = bar.add_task(Path(out).name, total=count)
            yield lambda written: bar.update(task, completed=written)
    else:
        yield (
            lambda written: (
                click.echo(f"{out}: {written} of {count} pairs")
                if written % _TOLD_EVERY == 0 and written < count
                else None
            )
        )


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
        click.echo(f"and {len(listing.labels) - _LISTED} labels more")


def _print_first(database: Database, count: int) -> None:
    import itertools

    from siamese_proto.data.datum import Decoding, key_text, size_of
    from siamese_proto.data.listing import datums

    click.echo("first records:")
    for key, datum in itertools.islice(datums(database), count):
        kind = "encoded, " if datum.encoded else ""
        click.echo(f"  {key_text(key)}: {kind}{_form(size_of(key, datum, Decoding()))}, label {datum.label}")


def _write_picture(database: Database, out: str, count: int) -> None:
    import io
    import itertools

    from siamese_proto.data.datum import Decoding, pixels_of
    from siamese_proto.data.listing import datums
    from siamese_proto.data.picture import draw_records
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
