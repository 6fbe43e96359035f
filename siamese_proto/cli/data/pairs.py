"""siamese-proto data pairs: a pair database from labeled images, or from a CSV that names pairs."""

import os
from typing import Any

import click

from siamese_proto.cli.data.options import backend, backend_of, draw, fraction, overwrite, progress, seed
from siamese_proto.cli.data.sources import (
    good_ones,
    make_pairs,
    open_source,
    size_of,
    source_options,
    two_at_most,
)
from siamese_proto.cli.options import pair_labels
from siamese_proto.errors import quoted
from siamese_proto.layers.pair_labels import PairLabels, read_pair_labels

_EXPECTED = "same=1,different=0"


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE [LABELS]")
@click.argument("out")
@backend
@click.option("--count", type=click.IntRange(min=1), help="Number of pairs.  [default: number of images]")
@draw
@fraction
@seed
@click.option("--shuffle", is_flag=True, help="Shuffle the pairs of a CSV with the seed.")
@pair_labels
@source_options
@overwrite
def pairs(
    sources: tuple[str, ...],
    out: str,
    count: int | None,
    backend: str,
    overwrite: bool,
    draw: Any,
    same_fraction: float,
    seed: int,
    shuffle: bool,
    **chosen: Any,
) -> None:
    """Make the pair database OUT from SOURCE.

    SOURCE is an IDX file of images (the format of MNIST, plain or .gz; LABELS is found by its name by default), a
    folder with one subfolder per class, a list of lines "path label", a labeled LMDB or LevelDB, the embedded "digits"
    ("digits:train", "digits:test"), or a CSV of image1,image2,label, whose pairs are used unchanged. Spaces or
    tabs may replace the commas. The format of LFW's pairs.txt also works.

    A record holds two images stacked on channels, with label 1 for the same class and 0 for different ones. Other
    labels of a CSV need --pair-labels.
    """
    mapping = read_pair_labels(chosen.pop("pair_labels") or _EXPECTED)
    if _is_csv(two_at_most(sources)[0], chosen["kind"]):
        order_by = seed if shuffle else None
        _copy_csv(sources[0], out, backend, mapping, count=count, overwrite=overwrite, seed=order_by, **chosen)
        return
    if mapping.text != _EXPECTED:
        raise click.UsageError("--pair-labels says what the labels of a CSV mean, but these pairs are drawn by class")
    with open_source(sources, **chosen) as images:
        make_pairs(
            out,
            backend,
            images,
            images.labels,
            count=count or len(images),
            draw=draw,
            same_fraction=same_fraction,
            seed=seed,
            overwrite=overwrite,
        )


def _is_csv(source: str, kind: str | None) -> bool:
    from siamese_proto.data.images.pair_lines import pair_form

    named = source.lower().endswith(".csv") or (os.path.isfile(source) and pair_form(source) is not None)
    return kind == "csv" or (kind is None and named)


def _copy_csv(
    source: str,
    out: str,
    backend: str,
    mapping: PairLabels,
    *,
    count: int | None,
    overwrite: bool,
    seed: int | None,
    **chosen: Any,
) -> None:
    """Write the pairs that a CSV names."""
    import numpy

    from siamese_proto.data.databases.pairs import write_tuples
    from siamese_proto.data.images.labeled_source import LabeledSource
    from siamese_proto.data.images.pair_list import open_pairs
    from siamese_proto.data.sampling import GivenTuples

    csv = LabeledSource(
        source,
        root_folder=chosen["root_folder"],
        is_color=None if chosen["gray"] is None else not chosen["gray"],
        new_size=size_of(chosen["resize_height"], chosen["resize_width"]),
    )
    images, csv_pairs = open_pairs(csv)
    csv_pairs = GivenTuples(csv_pairs.tuples, mapping.are_same(csv_pairs.labels, quoted(source)).astype(numpy.float32))
    csv_pairs = csv_pairs.of_images(good_ones(images, skip_bad_records=chosen["skip_bad_records"]))
    total = len(csv_pairs.labels)
    order = numpy.arange(total) if seed is None else numpy.random.default_rng(seed).permutation(total)
    tuples, labels = csv_pairs.draw(order[:count])
    with images, progress(out, len(labels), "pairs") as report_progress:
        write_tuples(out, backend_of(backend), images, tuples, labels, overwrite=overwrite, progress=report_progress)
    same = int((labels == 1).sum())
    click.echo(f"{out}: {len(labels)} pairs, {same} same and {len(labels) - same} different")
