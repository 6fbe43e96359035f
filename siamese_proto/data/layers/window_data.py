"""The WindowData layer: windows of images, drawn at random from a window file."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from siamese_proto.data.bad_records import BadRecordError, Reading
from siamese_proto.data.databases.datum import Decoding, Size, of_image, pixels_of
from siamese_proto.data.images.decode import read_file, resize
from siamese_proto.data.layers.source_layer import SourceLayer
from siamese_proto.data.layers.windows import Cutting, WindowImage, read_windows
from siamese_proto.data.transform import draw_choices, load_mean
from siamese_proto.errors import DataError, GraphError, did_you_mean, quoted
from siamese_proto.files import find_path
from siamese_proto.graph.ir import Shape, exactly
from siamese_proto.layers.base import RunState, layer
from siamese_proto.proto import schema

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from siamese_proto.data.transform import Floats

    Windows = NDArray[numpy.int64]  # (n, 6), a row `image label x1 y1 x2 y2` each

_log = logging.getLogger(__name__)
_MODES = ("warp", "square")
_OUT_OF_USE = ("mean_file", "crop_size", "mirror")
_NOT_OBEYED = ("scale", "force_color", "force_gray")  # of transform_param


@layer("WindowData")
class WindowData(SourceLayer):
    """Windows of images, cut out and brought to `crop_size`; in each batch background first, then objects (R-CNN).

    () -> (batch_size, 3, crop_size, crop_size), labels (batch_size,). Caffe: window_data_layer.cpp
    `fg_fraction` of a batch, rounded down, are objects: windows that overlap one by `fg_threshold` or more. The others
    overlap by less than `bg_threshold`, with label 0. Colours are blue, green, red; `y = (x - mean) * scale`, and 0
    where a window enlarged by `context_pad` or `crop_mode: "square"` lies beyond its image. What is drawn depends on
    the seed and the position in the stream alone. `scale` is that of window_data_param; `crop_size`, `mirror`,
    `mean_file` and `mean_value` those of transform_param.
    The source lists images, each `# NUMBER` from 0 on, path, channels, height, width and number of windows on a line
    each, then a line `label overlap x1 y1 x2 y2` a window.
    """

    tops = exactly(2)
    reads = ("window_data_param", "transform_param")
    source_kind = "window file"

    def read(self, message: schema.LayerParameter) -> None:
        settings, transform = message.window_data_param, message.transform_param
        self.settings, self.cropping = settings, transform
        self.source, self.batch_size = settings.source, settings.batch_size
        if transform.crop_size < 1:
            raise GraphError("no crop_size is given; write one above 0", field="transform_param.crop_size")
        if settings.crop_mode not in _MODES:
            hint = did_you_mean(settings.crop_mode, _MODES)
            raise GraphError(
                f"crop_mode {quoted(settings.crop_mode)} is neither 'warp' nor 'square'{hint}",
                field="window_data_param.crop_mode",
            )
        if 2 * settings.context_pad >= transform.crop_size:
            raise GraphError(
                f"context_pad {settings.context_pad} on both sides leaves nothing of crop_size {transform.crop_size}",
                field="window_data_param.context_pad",
            )
        if not 0 <= settings.fg_fraction <= 1:
            raise GraphError("fg_fraction must be from 0 to 1", field="window_data_param.fg_fraction")
        if transform.HasField("mean_file") and transform.mean_value:
            raise GraphError(
                "mean_file and mean_value exclude each other; keep one", field="transform_param.mean_value"
            )
        if len(transform.mean_value) not in (0, 1, 3):
            raise GraphError(
                f"{len(transform.mean_value)} mean values for 3 channels; write one, or one a channel",
                field="transform_param.mean_value",
            )

    def first_size(self) -> Size:
        self.locate()
        return self.size_by_settings()

    def size_by_settings(self) -> Size:
        return 3, self.cropping.crop_size, self.cropping.crop_size

    def shapes_of(self, size: Size) -> Sequence[Shape]:
        return (self.batch_size, *size), (self.batch_size,)

    def open_source(self, run: RunState) -> WindowBatches:
        if self.cropping.scale != 1 and not self.settings.HasField("scale"):
            # Caffe's upgrade of V1 files moves it there, where its layer does not look for it.
            _log.warning(
                "layer %s: transform_param.scale has no effect, as in Caffe; write window_data_param { scale: %g }",
                quoted(self.name),
                self.cropping.scale,
            )
        images = self.locate()
        objects, background = self._sorted(images)
        batch_size = self.batch_size
        drawn = int(_single(batch_size) * _single(self.settings.fg_fraction))
        for windows, count, what in ((background, batch_size - drawn, "background"), (objects, drawn, "object")):
            if count and not len(windows):
                raise DataError(
                    f"{count} windows of each batch are to be {what} windows, but window file"
                    f" {quoted(self.source)} has none for these thresholds; change them, or fg_fraction",
                    field="window_data_param.fg_fraction",
                )
        return WindowBatches(
            [self._place(image.name) for image in images],
            (background, objects),
            (batch_size - drawn, drawn),
            Cutting(self.cropping.crop_size, self.settings.context_pad, self.settings.crop_mode == "square"),
            self._mean(),
            self.settings.scale,
            Reading.of(run, self.name),
            mirror=self.cropping.mirror,
            seed=run.seed,
            keep_files=self.settings.cache_images,
        )

    def unused_fields(self) -> Sequence[str]:
        old = [f"window_data_param.{name}" for name in _OUT_OF_USE if self.settings.HasField(name)]
        return old + [f"transform_param.{name}" for name in _NOT_OBEYED if self.cropping.HasField(name)]

    def describe(self) -> str:
        return f"windows of {self.source}, batches of {self.batch_size}"

    def locate(self) -> tuple[WindowImage, ...]:
        """Return the images of the window file, with their windows."""
        path = super().locate()
        return read_windows(path, Path(path).stat().st_mtime_ns)

    def _sorted(self, images: Sequence[WindowImage]) -> tuple[Windows, Windows]:
        """The windows of objects and of background; an object window must have a label above 0."""
        import numpy

        table = numpy.concatenate([image.windows for image in images])
        numbers = numpy.repeat(numpy.arange(len(images)), [len(image.windows) for image in images])
        overlap = table[:, 1].astype(numpy.float32)
        objects = overlap >= _single(self.settings.fg_threshold)
        background = ~objects & (overlap < _single(self.settings.bg_threshold))
        whole = numpy.column_stack([numbers, table[:, 0], table[:, 2:]]).astype(numpy.int64)
        wrong = numpy.flatnonzero(objects & (whole[:, 1] < 1))
        if len(wrong):
            label, name = whole[wrong[0], 1], images[whole[wrong[0], 0]].name
            raise DataError(
                f"a window of image {quoted(name)} overlaps an object by {overlap[wrong[0]]:g}, but has label {label};"
                " labels of objects are above 0",
                field=_SOURCE,
            )
        whole[background, 1] = 0
        return whole[objects], whole[background]

    def _place(self, name: str) -> str:
        return find_path(self.settings.root_folder + name, self.context.folder) or self.settings.root_folder + name

    def _mean(self) -> Floats:
        """What is taken from the pixels, in a shape that broadcasts to (3, crop_size, crop_size)."""
        import numpy

        size = self.cropping.crop_size
        if not self.cropping.HasField("mean_file"):
            values = numpy.array(self.cropping.mean_value or [0], numpy.float32)
            return values[:, None, None]
        path, mean = load_mean(self.cropping.mean_file, self.context.folder)
        begin = (mean.shape[-1] - size) // 2  # from the width alone, as Caffe has it
        middle = mean[:, begin : begin + size, begin : begin + size] if mean.ndim == 3 and begin >= 0 else mean[:0]
        if middle.shape != (3, size, size):
            form = " x ".join(map(str, mean.shape))
            raise DataError(
                f"mean_file {quoted(path)} has size {form} (channels x height x width), of which no square of"
                f" crop_size {size} can be taken in 3 channels"
            )
        return middle


_SOURCE = "window_data_param.source"


def _single(value: float) -> numpy.float32:
    """In single precision, as Caffe computes with these settings."""
    import numpy

    single: numpy.float32 = numpy.float32(value)
    return single


@dataclass(frozen=True)
class WindowBatches:
    """The source of a WindowData layer's feeder; see `feeder.Source`."""

    files: Sequence[str]
    windows: tuple[Windows, Windows]  # background, objects
    counts: tuple[int, int]  # of each in a batch
    cutting: Cutting
    mean: Floats
    scale: float
    reading: Reading
    mirror: bool
    seed: int
    keep_files: bool
    _kept: dict[int, bytes] = field(default_factory=dict)

    def batches(self, first: int) -> Iterator[Sequence[Floats]]:
        """Data (N, 3, crop, crop) and labels (N,), both float32."""
        import numpy

        size = sum(self.counts)
        for number in itertools.count(first):
            choices = draw_choices(self.seed, number * size, size)
            drawn = numpy.concatenate(
                [
                    windows[(part[:, 1] % len(windows)).astype(numpy.intp)]
                    for windows, part in zip(self.windows, numpy.split(choices, self.counts[:1]), strict=True)
                    if len(part)
                ]
            )
            mirrored = (choices[:, 0] % 2 == 1) & self.mirror
            read = self.reading.all(list(zip(drawn, mirrored.tolist(), strict=True)), self._cut)
            yield numpy.stack([image for image, _ in read]), numpy.array([label for _, label in read], numpy.float32)

    def close(self) -> None:
        """Forget the files kept."""
        self._kept.clear()

    def _cut(self, choice: tuple[NDArray[numpy.int64], bool]) -> tuple[Floats, int]:
        """The picture of a window, mirrored or not, and its label."""
        import numpy

        (image, label, x1, y1, x2, y2), mirrored = choice[0].tolist(), choice[1]
        name = self.files[image]
        with of_image(name):
            pixels = pixels_of(b"", schema.Datum(data=self._bytes(image), encoded=True), Decoding(True))
        _, height, width = pixels.shape
        rows, columns = self.cutting.spans((x1, y1, x2, y2), (height, width), mirrored=mirrored)
        inside = 0 <= rows.begin < rows.end <= height and 0 <= columns.begin < columns.end <= width
        if not inside or min(rows.size, columns.size) < 1:
            raise BadRecordError(
                f"{name}: {x1} {y1} {x2} {y2}",
                f"window {x1} {y1} {x2} {y2} (x1 y1 x2 y2) cannot be cut out of image {quoted(name)}, which is"
                f" {width} x {height} (width x height); correct the window file",
            )
        cut = resize(pixels[:, rows.begin : rows.end, columns.begin : columns.end], (rows.size, columns.size))
        size = self.cutting.crop_size
        mean = numpy.broadcast_to(self.mean, (3, size, size))
        top = numpy.zeros((3, size, size), numpy.float32)
        there = numpy.s_[:, rows.offset : rows.offset + rows.size, columns.offset : columns.offset + columns.size]
        top[there] = ((cut[:, :, ::-1] if mirrored else cut) - mean[there]) * numpy.float32(self.scale)
        return top, label

    def _bytes(self, image: int) -> bytes:
        if not self.keep_files:
            return read_file(self.files[image])
        if image not in self._kept:
            self._kept[image] = read_file(self.files[image])
        return self._kept[image]
