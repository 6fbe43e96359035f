"""siamese-proto data digits: pair databases of the included digits."""

from pathlib import Path
from typing import Any

import click

from siamese_proto.cli.data.options import backend, draw, fraction, overwrite, seed
from siamese_proto.cli.data.sources import make_pairs


@click.command()
@click.argument("folder", metavar="OUTDIR", default=".")
@backend
@click.option("--train-count", type=click.IntRange(min=1), default=6000, show_default=True)
@click.option("--test-count", type=click.IntRange(min=1), default=2000, show_default=True)
@draw
@fraction
@seed
@overwrite
def digits(
    folder: str, backend: str, train_count: int, test_count: int, seed: int, overwrite: bool, **drawing: Any
) -> None:
    """Make a train and a test pair database in OUTDIR from the 1,797 included handwritten digits.

    The two databases share no images. Names: digits_train_BACKEND and digits_test_BACKEND.
    """
    from siamese_proto.data.images.digits import load_digits

    for number, (part, count, (pixels, classes)) in enumerate(
        zip(("train", "test"), (train_count, test_count), load_digits(), strict=True)
    ):
        out = str(Path(folder) / f"digits_{part}_{backend.lower()}")
        # Different seeds, so that the two draws are independent.
        make_pairs(out, backend, pixels, classes, count=count, seed=2 * seed + number, overwrite=overwrite, **drawing)
