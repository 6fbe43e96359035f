"""Databases of images, as created by Caffe's convert_imageset."""

from __future__ import annotations

import io
import itertools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from siamese_proto.data.bad_records import BadRecordError
from siamese_proto.data.databases.database import Backend, create_database
from siamese_proto.data.databases.datum import Decoding, Size, make_datum, of_image, pixels_of, size_of
from siamese_proto.data.images.decode import read_file, resize
from siamese_proto.data.images.image_list import read_list
from siamese_proto.data.images.labeled_source import LabeledSource
from siamese_proto.errors import DataError, quoted
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from siamese_proto.data.databases.datum import Pixels

Encoding = Literal["", "as found", "jpg", "png", "bmp", "webp"]
AT_ONCE = 1000  # records written together, as Caffe's tools do
_PILLOW = {"jpg": "JPEG", "png": "PNG", "bmp": "BMP", "webp": "WEBP"}
_OPENCV_QUALITY = {"jpg": {"quality": 95}, "webp": {"quality": 95}, "png": {}, "bmp": {}}


@dataclass(frozen=True)
class ListedImage:
    """An image to write to a database: its name in the key, file path, label and number."""

    name: str
    path: str
    label: int
    number: int

    @property
    def key(self) -> bytes:
        """`00000012_cats/3.jpg`, as Caffe's tool writes it."""
        return b"%08d_%s" % (self.number, os.fsencode(self.name))


@dataclass(frozen=True)
class Conversion:
    """How image files become records.

    Raw records are in color (blue, green, red) or gray. With an `encoding`, records hold the bytes of an image file:
    those of the original file if it has that encoding and needs no change, otherwise newly encoded ones. `new_size` is
    (height, width); (0, 0) keeps the original size.
    """

    gray: bool = False
    new_size: tuple[int, int] = (0, 0)
    encoding: Encoding = ""

    def datum(self, image: ListedImage) -> schema.Datum:
        """Return the record of an image. Raises BadRecordError if its file cannot be used."""
        data = read_file(image.path)
        original = schema.Datum(data=data, encoded=True, label=image.label)
        decoding = Decoding(force_color=not self.gray, force_gray=self.gray)
        with of_image(image.path):
            pixels = pixels_of(b"", original, decoding)
            if self.encoding == "as found":
                size_of(b"", original, Decoding())  # raises for more than 8 bits per value, which Data layers refuse
            changed = self.new_size[0] > 0 or (self.gray and size_of(b"", original, Decoding(any_depth=True))[0] != 1)
        if self.new_size[0] and pixels.shape[1:] != self.new_size:
            pixels = resize(pixels, self.new_size)
        suffix = Path(image.path).suffix.lower().removeprefix(".")
        original_encoding = "jpg" if suffix == "jpeg" else suffix
        encoding = original_encoding if self.encoding == "as found" else self.encoding
        if not self.encoding:
            raw = make_datum(pixels, image.label)
            raw.encoded = False  # Caffe's tool writes the default explicitly
            return raw
        if not changed and encoding == original_encoding:
            return original
        if encoding not in _PILLOW:
            raise BadRecordError(
                image.path,
                f"image {quoted(image.path)} has no suffix that determines its encoding; specify the encoding",
            )
        return schema.Datum(data=_encoded(pixels, encoding), encoded=True, label=image.label)


def list_images(source: str, root: str | None = None) -> list[ListedImage]:
    """List the images of a file with lines `path label`, or of a folder with one subfolder per class.

    `root` is prepended unchanged to every path of a list, as in Caffe. By default, paths are relative to the list's
    folder. Classes of a folder are numbered in the order of their names. Raises DataError.
    """
    if Path(source).is_dir():
        with LabeledSource(source, "FOLDER").open() as images:
            paths, labels = images.names, images.labels.tolist()
        names = [Path(os.path.relpath(path, source)).as_posix() for path in paths]
        return [ListedImage(*each) for each in zip(names, paths, labels, itertools.count())]
    if not Path(source).is_file():
        raise DataError(f"{quoted(source)} does not exist; give a list of lines 'path label', or a folder")
    entries = read_list(source, Path(source).stat().st_mtime_ns)
    before = str(Path(source).parent / "_")[:-1] if root is None else root
    return [ListedImage(name, before + name, label, number) for number, (name, label) in enumerate(entries)]


def shuffled(images: Sequence[ListedImage], seed: int) -> list[ListedImage]:
    """Shuffle the images with the seed, and number them in the new order."""
    import numpy

    order = numpy.random.default_rng(seed).permutation(len(images)).tolist()
    return [
        ListedImage(images[index].name, images[index].path, images[index].label, number)
        for number, index in enumerate(order)
    ]


@dataclass(frozen=True)
class Written:
    """What was written to a database."""

    records: int
    sizes: dict[Size, int]  # (C, H, W) -> records
    left_out: int


def write_images(
    path: str,
    backend: Backend,
    images: Sequence[ListedImage],
    conversion: Conversion,
    *,
    check_size: bool = False,
    overwrite: bool = False,
    on_bad: Callable[[BadRecordError], None] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Written:
    """Create a database with one record per image, under the keys `NUMBER_NAME`.

    An image that cannot be used raises BadRecordError. If `on_bad` is given, it is called with the error instead, and
    the image is left out. With `check_size`, all images must have the same size. `progress` is called with the number
    of images done.
    """
    sizes: Counter[Size] = Counter()
    left_out = 0
    with create_database(path, backend, overwrite=overwrite) as writer:
        for begin in range(0, len(images), AT_ONCE):
            batch = images[begin : begin + AT_ONCE]
            records = []
            for image in batch:
                try:
                    datum = conversion.datum(image)
                except BadRecordError as problem:
                    if on_bad is None:
                        raise
                    on_bad(problem)
                    left_out += 1
                    continue
                size = size_of(image.key, datum, Decoding())
                if check_size and size not in (sizes or {size: 0}):
                    raise DataError(
                        f"image {quoted(image.path)} has size {form_of(size)}, but those before"
                        f" {form_of(next(iter(sizes)))} (channels x height x width); resize them to one size"
                    )
                sizes[size] += 1
                records.append((image.key, datum.SerializeToString()))
            if records:
                writer.put(records)
            progress(batch[-1].number + 1)
        if not sizes:
            raise DataError(f"none of the {left_out} images can be used, so no database is made")
    return Written(sizes.total(), dict(sizes), left_out)


def form_of(size: Size) -> str:
    """Format a size, such as `3 x 20 x 24`."""
    return " x ".join(map(str, size))


def _encoded(pixels: Pixels, encoding: str) -> bytes:
    """Encode an image file, with the default quality of OpenCV."""
    import numpy
    from PIL import Image

    if len(pixels) == 1:
        image = Image.fromarray(pixels[0])
    else:
        image = Image.fromarray(numpy.ascontiguousarray(pixels[::-1].transpose(1, 2, 0)))
    file = io.BytesIO()
    image.save(file, _PILLOW[encoding], **_OPENCV_QUALITY[encoding])
    return file.getvalue()
