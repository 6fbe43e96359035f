"""Window files, and how a window is cut out of its image: what object detectors of the R-CNN kind train on."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from siamese_proto.errors import DataError, quoted, shortened
from siamese_proto.proto.values import whole_number

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Table = NDArray[numpy.float64]

_FORM = "see the layer reference for the form of window files"
_MOST = 2**31  # windows of an image
_COLUMNS = 6  # label, overlap, x1, y1, x2, y2


@dataclass(frozen=True)
class WindowImage:
    """An image of a window file, and its windows: (n, 6), a row `label overlap x1 y1 x2 y2` each."""

    name: str
    windows: Table


@functools.lru_cache(maxsize=4)
def read_windows(path: str, stamp: int) -> tuple[WindowImage, ...]:
    """The images of a window file; `stamp` is what changes with the file. DataError with the line that is wrong."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = ((number, line.strip()) for number, line in enumerate(file, 1) if line.strip())
            images = tuple(_images(path, lines))
    except OSError as error:
        raise DataError(f"window file {quoted(path)} cannot be read: {error.strerror}") from error
    if not images:
        raise DataError(f"window file {quoted(path)} names no image; {_FORM}")
    return images


def _images(path: str, lines: Iterator[tuple[int, str]]) -> Iterator[WindowImage]:
    for place, (number, head) in enumerate(lines):
        where = f"{path}:{number}"
        mark, index = head[:1], head[1:].strip()
        if mark != "#" or not index.isdecimal():
            raise DataError(f"{where}: {quoted(head)} is not '# NUMBER', which begins an image; {_FORM}")
        if whole_number(index) != place:
            raise DataError(
                f"{where}: the image is given number {shortened(index)}, but it is number {place}, from 0 on"
            )
        name = next(lines, (0, ""))[1]
        channels, height, width, count = (_whole(path, lines, what) for what in ("channels", "height", "width", "num"))
        if channels != 3:
            raise DataError(f"{where}: the image has {channels} channels; images are read in colour, so write 3")
        if min(height, width) < 1:
            raise DataError(f"{where}: the image is {height} x {width} (height x width); both must be above 0")
        yield WindowImage(name, _table(path, number, list(islice(lines, min(count, _MOST))), count))


def _whole(path: str, lines: Iterator[tuple[int, str]], what: str) -> int:
    number, line = next(lines, (0, ""))
    if not line.isdecimal():
        where = f"{path}:{number}: {quoted(line)}" if number else f"{path}: the end of the file"
        raise DataError(f"{where} is not the whole number that must stand there, {what}; {_FORM}")
    return whole_number(line)


def _table(path: str, head: int, lines: list[tuple[int, str]], count: int) -> Table:
    import numpy

    if len(lines) < count:
        raise DataError(f"{path}:{head}: the image has {count} windows, but the file ends after {len(lines)}")
    rows = []
    for number, line in lines:
        try:
            row = [float(word) for word in line.split()]
        except ValueError:
            row = []
        whole = [*row[:1], *row[2:]]
        if len(row) != _COLUMNS or not all(abs(value) < 2**31 for value in row) or any(value % 1 for value in whole):
            raise DataError(
                f"{path}:{number}: {quoted(line)} is not 'label overlap x1 y1 x2 y2', whole numbers but for the overlap"
            )
        rows.append(row)
    return numpy.array(rows, numpy.float64).reshape(count, _COLUMNS)


@dataclass(frozen=True)
class Span:
    """A window along one axis: the pixels from `begin` to before `end` become `size` pixels, from `offset` on."""

    begin: int
    end: int
    offset: int
    size: int


@dataclass(frozen=True)
class Cutting:
    """How windows become square images of `crop_size` pixels.

    With `context_pad` a window is first enlarged about its middle, so that what was around it fills that many pixels
    on each side; with `square` it is made as wide as high. What then lies beyond the image stays empty.
    """

    crop_size: int
    context_pad: int = 0
    square: bool = False

    def spans(self, box: tuple[int, int, int, int], size: tuple[int, int], *, mirrored: bool) -> tuple[Span, Span]:
        """Rows and columns of the window `box`, (x1, y1, x2, y2) of pixels inside it, in an image (height, width)."""
        import numpy

        x1, y1, x2, y2 = box
        if not self.context_pad and not self.square:
            return Span(y1, y2 + 1, 0, self.crop_size), Span(x1, x2 + 1, 0, self.crop_size)
        half_height, half_width = numpy.float32((y2 - y1 + 1) / 2), numpy.float32((x2 - x1 + 1) / 2)
        middle_y, middle_x = numpy.float32(y1) + half_height, numpy.float32(x1) + half_width
        if self.square:
            half_height = half_width = max(half_height, half_width)
        rows = self._span(middle_y, half_height, size[0], from_end=False)
        return rows, self._span(middle_x, half_width, size[1], from_end=mirrored)

    def _span(self, middle: Any, half: Any, length: int, *, from_end: bool) -> Span:
        """In single precision, as Caffe computes it: half a pixel more or less is a pixel after rounding."""
        import numpy

        crop = numpy.float32(self.crop_size)
        enlarged = half * (crop / numpy.float32(self.crop_size - 2 * self.context_pad))
        low, high = rounded(middle - enlarged), rounded(middle + enlarged)
        scale = crop / numpy.float32(high - low + 1)
        before, after = max(0, -low), max(0, high - length + 1)
        begin, end = low + before, high - after + 1
        size = rounded(numpy.float32(end - begin) * scale)
        offset = rounded(numpy.float32(after if from_end else before) * scale)
        return Span(begin, end, offset, min(size, self.crop_size - offset))


def rounded(value: Any) -> int:
    """The nearest whole number, halves away from zero as C rounds."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), float(value)))
