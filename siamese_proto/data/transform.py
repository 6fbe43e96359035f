"""transform_param: crop, mirror, subtract a mean, multiply (data_transformer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from siamese_proto.data.bad_records import BadRecordError
from siamese_proto.data.databases.datum import Decoding, Size
from siamese_proto.errors import DataError, GraphError, quoted
from siamese_proto.files import control_hint, find_path
from siamese_proto.graph.ir import Phase
from siamese_proto.proto import schema

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from siamese_proto.data.databases.datum import Pixels

    Floats = NDArray[numpy.float32]

_CONVERT = "siamese-proto data mean MEAN.npy MEAN.binaryproto"


@dataclass(frozen=True)
class Transform:
    """What a transform_param says, in plain fields.

    `y = (x - mean) * scale`, cropped to `crop_size` (0: not) at a random place in TRAIN and in the middle in TEST, and
    mirrored left to right by the toss of a coin in both phases. Every channel of a record is treated alike, so that
    images stacked on channels stay aligned.
    """

    phase: Phase
    scale: float = 1.0
    mirror: bool = False
    crop_size: int = 0
    mean_file: str = ""
    mean_values: tuple[float, ...] = ()
    decoding: Decoding = field(default_factory=Decoding)

    @property
    def random(self) -> bool:
        """Whether records are treated by chance."""
        return self.mirror or (self.crop_size > 0 and self.phase == "TRAIN")

    def output_size(self, size: Size) -> Size:
        """(C, H, W) of a transformed record; GraphError where the record does not suit the settings."""
        channels, height, width = size
        if len(self.mean_values) not in (0, 1, channels):
            raise GraphError(
                f"{len(self.mean_values)} mean values for {channels} channels; write one, or one a channel",
                field="transform_param.mean_value",
            )
        if not self.crop_size:
            return size
        if self.crop_size > min(height, width):
            raise GraphError(
                f"crop_size {self.crop_size} is larger than the images of the source, which are {height} x {width}"
                " (height x width); write at most the smaller of the two",
                field="transform_param.crop_size",
            )
        return channels, self.crop_size, self.crop_size


def read_transform(message: schema.TransformationParameter, phase: Phase) -> Transform:
    """The plain form of a transform_param; GraphError where two settings exclude each other."""
    if message.HasField("mean_file") and message.mean_value:
        raise GraphError("mean_file and mean_value exclude each other; keep one", field="transform_param.mean_value")
    if message.force_color and message.force_gray:
        raise GraphError("force_color and force_gray exclude each other; keep one", field="transform_param.force_gray")
    return Transform(
        phase,
        message.scale,
        message.mirror,
        message.crop_size,
        message.mean_file,
        tuple(message.mean_value),
        Decoding(message.force_color, message.force_gray),
    )


def read_mean(settings: Transform, size: Size, folder: str | None) -> Floats | None:
    """The mean image of `mean_file`, (C, H, W), if one is set; it must have the size of the records."""
    if not settings.mean_file:
        return None
    path, mean = load_mean(settings.mean_file, folder)
    if mean.shape != size:
        raise DataError(
            f"mean_file {quoted(path)} has size {_form(mean.shape)}, but the records have {_form(size)}"
            " (channels x height x width); make it from this database"
        )
    return mean


def load_mean(name: str, folder: str | None) -> tuple[str, Floats]:
    """A mean image (a BlobProto, which compute_image_mean makes), (C, H, W) unless it is none, and where it was."""
    import numpy

    path = find_path(name, folder) or name
    try:
        with open(path, "rb") as file:
            blob = schema.BlobProto.FromString(file.read())
    except DecodeError as error:
        hint = "make it with 'siamese-proto data mean'"
        if is_npy(path):
            hint = f"it is a NumPy file, which Caffe does not read; convert it: {_CONVERT}"
        raise DataError(f"mean_file {quoted(path)} is not a BlobProto; {hint}") from error
    except OSError as error:
        raise DataError(
            f"mean_file {quoted(path)} cannot be read{control_hint(path)}: {error.strerror}; check the path"
        ) from error
    dims = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    found = tuple(dims[1:]) if len(dims) == 4 and dims[0] == 1 else tuple(dims)
    values = numpy.array(blob.data if blob.data else blob.double_data, numpy.float32)
    if values.size != math.prod(found) or min(found, default=0) < 1:
        raise DataError(f"mean_file {quoted(path)} has {values.size} values for size {_form(found)}; make it again")
    return path, values.reshape(found)


def is_npy(path: str) -> bool:
    """Whether a file is one of `numpy.save`."""
    with open(path, "rb") as file:
        return file.read(6) == b"\x93NUMPY"


def _form(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))


def draw_choices(seed: int, position: int, count: int) -> NDArray[numpy.uint64]:
    """Four random numbers for each of `count` records from `position` on, (count, 4).

    They depend on the seed and on the record's position in the stream alone (one block of a counter-based generator a
    record): a resumed run draws what the first one drew, and data layers that run side by side stay in step.
    """
    import numpy

    generator = numpy.random.Philox(key=seed % 2**64, counter=position)
    return generator.random_raw(4 * count).reshape(count, 4)


@dataclass(frozen=True)
class Transformer:
    """Brings the images of a batch to what a net is fed with."""

    settings: Transform
    size: Size  # of the first record: the others must have it too, unless they are cropped
    mean: Floats | None = None
    seed: int = 0
    each_its_size: bool = False  # a batch of one record may have any height and width (data_layer.cpp: load_batch)

    def check(self, image: Pixels, what: str) -> None:
        """BadRecordError where an image may not stand beside the first one; `what` names it, as in `record '7'`."""
        self.check_size(image.shape, what)

    def check_size(self, size: tuple[int, ...], what: str) -> None:
        """The same of its size, (C, H, W), before there is an image."""
        channels, height, width = size
        crop = self.settings.crop_size
        free = (crop or self.each_its_size) and self.mean is None
        croppable = free and channels == self.size[0] and crop <= min(height, width)
        if size != self.size and not croppable:
            raise BadRecordError(
                what,
                f"{what} has size {_form(size)}, but the first one has {_form(self.size)}"
                " (channels x height x width); all must have one size, at least that of the crop where there is one",
            )

    def batch(self, images: Sequence[Pixels] | Pixels, position: int) -> Floats:
        """Images (C, H, W), record number `position` and those after it, to one (N, C, H, W) array."""
        return self.apply(images, draw_choices(self.seed, position, len(images)) if self.settings.random else None)

    def apply(self, images: Sequence[Pixels] | Pixels, choices: NDArray[numpy.uint64] | None) -> Floats:
        """Images (C, H, W) to one (N, C, H, W) array by these `choices`, one row an image, of `draw_choices`."""
        return transform_batch(images, self.settings, self.mean, choices)


def transform_batch(
    images: Sequence[Pixels] | Pixels, settings: Transform, mean: Floats | None, choices: NDArray[numpy.uint64] | None
) -> Floats:
    """Images (C, H, W), of one size unless they are cropped, to (N, C, H, W) or (N, C, crop, crop).

    `choices` are those of `draw_choices`, where something is left to chance.
    """
    import numpy

    if mean is not None:  # before cropping: the mean's pixel is the one at the same place of the whole image
        images = [numpy.subtract(image, mean, dtype=numpy.float32) for image in images]
    if choices is None and isinstance(images, numpy.ndarray):
        rows, columns, _ = _window(images.shape[2:], settings, None)
        values = images[:, :, rows, columns].astype(numpy.float32)
    else:
        values = _placed(images, settings, choices)
    if settings.mean_values:
        values -= numpy.array(settings.mean_values, numpy.float32)[:, None, None]
    if settings.scale != 1:
        values *= numpy.float32(settings.scale)
    return values


def _placed(
    images: Sequence[Pixels] | Pixels, settings: Transform, choices: NDArray[numpy.uint64] | None
) -> NDArray[numpy.float32]:
    """Images cropped and mirrored one by one, each straight to its place in the batch."""
    import numpy

    side = settings.crop_size
    channels, height, width = images[0].shape
    placed = numpy.empty((len(images), channels, side or height, side or width), numpy.float32)
    own = [None] * len(images) if choices is None else choices.tolist()
    for place, image, choice in zip(placed, images, own, strict=True):
        rows, columns, mirrored = _window(image.shape[1:], settings, choice)
        window = image[:, rows, columns]
        place[...] = window[:, :, ::-1] if mirrored else window
    return placed


def _window(size: Sequence[int], settings: Transform, choice: Sequence[int] | None) -> tuple[slice, slice, bool]:
    """The rows and columns to take of an image of this height and width, and whether they are mirrored."""
    side = settings.crop_size
    mirrored = settings.mirror and choice is not None and choice[0] % 2 == 1
    if not side:
        return slice(None), slice(None), mirrored
    free_rows, free_columns = size[0] - side, size[1] - side
    if settings.phase == "TEST" or choice is None:
        top, left = free_rows // 2, free_columns // 2
    else:
        top, left = choice[1] % (free_rows + 1), choice[2] % (free_columns + 1)
    return slice(top, top + side), slice(left, left + side), mirrored
