"""siamese-proto data merge: several databases as one."""

from __future__ import annotations

import click

from siamese_proto.cli.data.options import backend, backend_of, overwrite, progress, seed


@click.command()
@click.argument("sources", metavar="DB...", nargs=-1, required=True)
@click.argument("out")
@backend
@click.option("--shuffle", is_flag=True, help="Bring the records into an order drawn from the seed.")
@seed
@click.option("--any-size", is_flag=True, help="Join records of several sizes too.")
@overwrite
def merge(
    sources: tuple[str, ...], out: str, backend: str, shuffle: bool, seed: int, any_size: bool, overwrite: bool
) -> None:
    """Join the records of several databases, LevelDB or LMDB, into the new one OUT.

    They come one database after the other, numbered anew. All must have one size.
    """
    from siamese_proto.data.databases.database import open_database
    from siamese_proto.data.databases.merging import merge_databases

    total = 0
    for source in sources:
        with open_database(source) as database:
            total += database.count()
    with progress(out, total, "records") as tell:
        count = merge_databases(
            sources,
            out,
            backend_of(backend),
            seed=seed if shuffle else None,
            any_size=any_size,
            overwrite=overwrite,
            progress=tell,
        )
    click.echo(f"{out}: {count} records of {len(sources)} databases")
