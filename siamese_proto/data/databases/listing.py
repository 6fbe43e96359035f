"""Show what a database holds: counts over its records, and a picture of the first ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from siamese_proto.data.databases.datum import Decoding, Size, parse_datum, size_of
from siamese_proto.data.databases.store import Database
from siamese_proto.proto import schema

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from siamese_proto.data.databases.datum import Pixels

_GAP = 6  # pixels between neighbors
_CAPTION = 14  # pixels below each record
_LEAST_SIDE = 84  # smaller images are enlarged by an integer factor to about this size
_WIDTH = 900  # of the picture, approximate
_BACKGROUND, _INK = (24, 24, 28), (235, 235, 235)
_SAME, _DIFFERENT = (90, 200, 120), (235, 120, 90)


@dataclass(frozen=True)
class Listing:
    """Counts over all records of a database."""

    records: int
    encoded: int  # records that hold an image file
    sizes: dict[Size, int]  # (C, H, W) -> records, most frequent first
    labels: dict[int, int]  # label -> records, by label


def datums(database: Database) -> Iterator[tuple[bytes, schema.Datum]]:
    """Yield key and message of every record."""
    return ((key, parse_datum(key, value)) for key, value in database.records())


def list_database(database: Database) -> Listing:
    """Count all records of a database. Raises DataError with the key of a record that cannot be read."""
    sizes: Counter[Size] = Counter()
    labels: Counter[int] = Counter()
    encoded = 0
    for key, datum in datums(database):
        sizes[size_of(key, datum, Decoding())] += 1
        labels[datum.label] += 1
        encoded += datum.encoded
    return Listing(labels.total(), encoded, dict(sizes.most_common()), dict(sorted(labels.items())))


def draw_records(records: Sequence[tuple[Pixels, int]]) -> Any:
    """Draw records (C, H, W) with their labels below as a Pillow image.

    One or three channels (blue, green, red) are one image. Two channels, and larger multiples of one or three, are
    images side by side. The label of a pair (2 or 6 channels) is shown as same (1) or different (0).
    """
    from PIL import Image, ImageDraw

    tiles = [_tile(pixels) for pixels, _ in records]
    width = max(tile.width for tile in tiles) + _GAP
    height = max(tile.height for tile in tiles) + _CAPTION + _GAP
    columns = max(1, min(len(tiles), (_WIDTH - _GAP) // width))
    rows = math.ceil(len(tiles) / columns)
    picture = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for number, (tile, (pixels, label)) in enumerate(zip(tiles, records, strict=True)):
        x, y = _GAP + number % columns * width, _GAP + number // columns * height
        picture.paste(tile, (x, y))
        text, color = f"label {label}", _INK
        if pixels.shape[0] in (2, 6) and label in (0, 1):
            text, color = ("same", _SAME) if label else ("different", _DIFFERENT)
        draw.text((x, y + tile.height + 1), text, fill=color)
    return picture


def images_of(pixels: Pixels) -> list[NDArray[numpy.uint8]]:
    """Split the channels of a record into images, (H, W) or (H, W, 3) in red, green, blue."""
    import numpy

    if pixels.dtype != numpy.uint8:
        pixels = numpy.nan_to_num(pixels, posinf=0, neginf=0)
        lowest, span = pixels.min(), max(float(numpy.ptp(pixels)), 1e-12)
        pixels = ((pixels - lowest) * (255 / span)).astype(numpy.uint8)
    step = 3 if len(pixels) % 3 == 0 else 1
    parts = [pixels[channel : channel + step] for channel in range(0, len(pixels), step)]
    return [part[::-1].transpose(1, 2, 0) if step == 3 else part[0] for part in parts]


def _tile(pixels: Pixels) -> Any:
    from PIL import Image

    images = [Image.fromarray(image).convert("RGB") for image in images_of(pixels)]
    width, height = images[0].size
    factor = max(1, round(_LEAST_SIDE / max(width, height)))
    tile = Image.new("RGB", ((width * factor + 2) * len(images) - 2, height * factor), _BACKGROUND)
    for number, image in enumerate(images):
        enlarged = image.resize((width * factor, height * factor), Image.Resampling.NEAREST)
        tile.paste(enlarged, (number * (width * factor + 2), 0))
    return tile
