"""Make a database of images, as Caffe's tool does: convert_imageset.py [FLAGS] ROOTFOLDER/ LISTFILE DB_NAME."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import cast

import click

from siamese_proto.cli.caffe_flags import flag
from siamese_proto.cli.data.options import BACKENDS, backend_of
from siamese_proto.cli.group import OneLineProblems
from siamese_proto.data.databases.image_database import Conversion, Encoding, list_images, shuffled, write_images

_SWITCH = re.compile(r"--?(no)?(gray|shuffle|check_size|encoded)(?:=(.*))?")


@click.command(cls=OneLineProblems)
@click.argument("root", metavar="ROOTFOLDER/")
@click.argument("list_file", metavar="LISTFILE")
@click.argument("out", metavar="DB_NAME")
@flag("gray", is_flag=True, help="Read images as grayscale.")
@flag("shuffle", is_flag=True, help="Shuffle the order of images and their labels.")
@flag("backend", type=BACKENDS, default="lmdb", show_default=True)
@flag("resize-width", type=int, default=0, help="Width images are resized to.")
@flag("resize-height", type=int, default=0, help="Height images are resized to.")
@flag("check-size", is_flag=True, help="Check that all images have the same size.")
@flag("encoded", is_flag=True, help="Save the encoded image in the record.")
@flag("encode-type", default="", help="What the image is to be encoded as (png, jpg, ...).")
@flag(
    "seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="What shuffling depends on (not Caffe's).",
)
def main(
    root: str,
    list_file: str,
    out: str,
    gray: bool,
    shuffle: bool,
    backend: str,
    resize_width: int,
    resize_height: int,
    check_size: bool,
    encoded: bool,
    encode_type: str,
    seed: int,
) -> None:
    """Make the database DB_NAME of the images that LISTFILE names, a line "path label" each.

    ROOTFOLDER/ is put before every path as it is. Images that cannot be read are named and left out.
    """
    encoding = encode_type.lower().lstrip(".").replace("jpeg", "jpg")
    if encoding not in ("", "jpg", "png", "bmp", "webp"):
        raise click.BadParameter(f"{encode_type!r} is none of jpg, png, bmp, webp", param_hint="--encode_type")
    if encoding and not encoded:
        click.echo("encode_type specified, assuming encoded=true.", err=True)
    images = list_images(list_file, root)
    if shuffle:
        click.echo("Shuffling data", err=True)
        images = shuffled(images, seed)
    click.echo(f"A total of {len(images)} images.", err=True)
    resized = (resize_height, resize_width) if min(resize_height, resize_width) > 0 else (0, 0)
    written = write_images(
        out,
        backend_of(backend),
        images,
        Conversion(gray, resized, cast(Encoding, encoding or ("as found" if encoded else ""))),
        check_size=check_size,
        on_bad=lambda problem: click.echo(str(problem), err=True),
        progress=lambda done: click.echo(f"Processed {done} files.", err=True),
    )
    click.echo(f"{out}: {written.records} images")


def words(arguments: Sequence[str]) -> Iterator[str]:
    """Yield arguments with switches in the form of click. Users of Caffe also write --gray=true and --nogray."""
    for word in arguments:
        switch = _SWITCH.fullmatch(word)
        if switch is None:
            yield word
        elif (switch[3] or "true").lower() in ("true", "t", "yes", "y", "1") and not switch[1]:
            yield f"--{switch[2]}"


if __name__ == "__main__":
    main(list(words(sys.argv[1:])))
