"""siamese-proto data merge: merge databases."""

import click

from siamese_proto.cli.data.options import backend, backend_of, overwrite, progress, seed


@click.command()
@click.argument("sources", metavar="DB...", nargs=-1, required=True)
@click.argument("out")
@backend
@click.option("--shuffle", is_flag=True, help="Shuffle the records with the seed.")
@seed
@click.option("--any-size", is_flag=True, help="Allow records of different sizes.")
@overwrite
def merge(
    sources: tuple[str, ...], out: str, backend: str, shuffle: bool, seed: int, any_size: bool, overwrite: bool
) -> None:
    """Merge the records of several databases, LevelDB or LMDB, into the new database OUT.

    Records keep the order of the databases and are renumbered. All must have the same size.
    """
    from siamese_proto.data.databases.database import open_database
    from siamese_proto.data.databases.merging import merge_databases

    total = 0
    for source in sources:
        with open_database(source) as database:
            total += database.count()
    with progress(out, total, "records") as report_progress:
        count = merge_databases(
            sources,
            out,
            backend_of(backend),
            seed=seed if shuffle else None,
            any_size=any_size,
            overwrite=overwrite,
            progress=report_progress,
        )
    click.echo(f"{out}: {count} records of {len(sources)} databases")
