"""siamese-proto data images: a database of images, as created by Caffe's convert_imageset."""

from typing import cast

import click

from siamese_proto.cli.data.options import backend, backend_of, overwrite, progress, seed
from siamese_proto.cli.data.sources import size_of


@click.command()
@click.argument("source")
@click.argument("out")
@backend
@click.option(
    "--root", metavar="ROOT/", help="Prefix of every path of a list, prepended unchanged.  [default: the list's folder]"
)
@click.option("--gray", is_flag=True, help="Write grayscale records with one channel.")
@click.option("--resize-height", type=click.IntRange(min=0), default=0, metavar="N")
@click.option("--resize-width", type=click.IntRange(min=0), default=0, metavar="N")
@click.option("--encoded", is_flag=True, help="Store encoded image files in the records.")
@click.option(
    "--encode-type",
    type=click.Choice(["jpg", "png", "bmp", "webp"]),
    help="Encoding of stored image files.  [default: that of each file]",
)
@click.option("--check-size", is_flag=True, help="Require all images to have the same size.")
@click.option("--shuffle", is_flag=True, help="Shuffle the images with the seed.")
@seed
@click.option("--skip-bad-images", is_flag=True, help="Skip and report images that cannot be read.")
@overwrite
def images(
    source: str,
    out: str,
    backend: str,
    root: str | None,
    gray: bool,
    resize_height: int,
    resize_width: int,
    encoded: bool,
    encode_type: str | None,
    check_size: bool,
    shuffle: bool,
    seed: int,
    skip_bad_images: bool,
    overwrite: bool,
) -> None:
    """Make the database OUT from SOURCE: a list of lines "path label", or a folder with one subfolder per class.

    Records are in Caffe's format, raw pixels (blue, green, red) or image files, under keys such as 00000012_cats/3.jpg.
    """
    from siamese_proto.data.databases.image_database import Conversion, Encoding, list_images, shuffled, write_images

    listed = list_images(source, root)
    listed = shuffled(listed, seed) if shuffle else listed
    encoding = encode_type or ("as found" if encoded else "")
    with progress(out, len(listed), "images") as report_progress:
        written = write_images(
            out,
            backend_of(backend),
            listed,
            Conversion(gray, size_of(resize_height, resize_width), cast(Encoding, encoding)),
            check_size=check_size,
            overwrite=overwrite,
            on_bad=(lambda problem: click.echo(f"left out: {problem}", err=True)) if skip_bad_images else None,
            progress=report_progress,
        )
    left_out = f", {written.left_out} left out" if written.left_out else ""
    click.echo(f"{out}: {written.records} images{left_out}")
    if len(written.sizes) > 1:
        click.echo(
            f"note: the images have {len(written.sizes)} sizes; Data layers read them only with a crop_size", err=True
        )
