"""siamese-proto data triplets: a database of triplets from labeled images."""

from typing import Any

import click

from siamese_proto.cli.data.options import backend, backend_of, overwrite, progress, seed
from siamese_proto.cli.data.sources import open_source, source_options


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE [LABELS]")
@click.argument("out")
@backend
@click.option("--count", type=click.IntRange(min=1), help="Number of triplets.  [default: number of images]")
@seed
@source_options
@overwrite
def triplets(
    sources: tuple[str, ...], out: str, count: int | None, backend: str, overwrite: bool, seed: int, **chosen: Any
) -> None:
    """Make the database of triplets OUT from SOURCE, which can be any source of `data pairs` except a CSV.

    A record holds anchor, positive (of the anchor's class) and negative (of another), stacked on channels; its label is
    the anchor's class.
    """
    from siamese_proto.data.databases.pairs import draw_triplets, write_tuples

    with open_source(sources, **chosen) as images:
        drawn = draw_triplets(images.labels, count or len(images), seed=seed)
        with progress(out, len(drawn), "triplets") as report_progress:
            write_tuples(
                out,
                backend_of(backend),
                images,
                drawn,
                images.labels[drawn[:, 0]],
                overwrite=overwrite,
                progress=report_progress,
            )
    click.echo(f"{out}: {len(drawn)} triplets")
