"""A picture of the first records of a database, to see what is in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from siamese_proto.data.databases.datum import Pixels

_GAP = 6  # pixels between neighbours
_CAPTION = 14  # pixels below each record
_LEAST_SIDE = 84  # smaller images are enlarged by a whole factor to about this
_WIDTH = 900  # of the picture, about
_BACKGROUND, _INK = (24, 24, 28), (235, 235, 235)
_SAME, _DIFFERENT = (90, 200, 120), (235, 120, 90)


def draw_records(records: Sequence[tuple[Pixels, int]]) -> Any:
    """A Pillow image of records (C, H, W) with their labels below.

    One and three channels (blue, green, red) are one image; two, and larger multiples of one or three, are shown as
    images side by side, and a label of such a pair is spelt out as same (1) or different (0).
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
        left, top = _GAP + number % columns * width, _GAP + number // columns * height
        picture.paste(tile, (left, top))
        text, colour = _caption(pixels.shape[0], label)
        draw.text((left, top + tile.height + 1), text, fill=colour)
    return picture


def images_of(pixels: Pixels) -> list[NDArray[numpy.uint8]]:
    """The images stacked on the channels of a record, (H, W) or (H, W, 3) in red, green, blue."""
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


def _caption(channels: int, label: int) -> tuple[str, tuple[int, int, int]]:
    if channels in (2, 6) and label in (0, 1):
        return ("same", _SAME) if label else ("different", _DIFFERENT)
    return f"label {label}", _INK
