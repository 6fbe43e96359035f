"""From images as they lie in files to what a net was trained on, and back to pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
from google.protobuf.message import DecodeError

from siamese_proto.data.databases.database import first_record, open_database
from siamese_proto.data.databases.datum import Decoding, Size, parse_datum, size_of
from siamese_proto.data.transform import Transform, read_mean, read_transform, transform_batch
from siamese_proto.errors import DataError, GraphError, quoted
from siamese_proto.files import find_path
from siamese_proto.graph.comparison import data_node
from siamese_proto.graph.features import Ancestry
from siamese_proto.graph.ir import Blob, Graph, Node
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from siamese_proto.data.databases.datum import Pixels

    Floats = NDArray[numpy.float32]


@dataclass(frozen=True)
class Preparation:
    """What is done to an image of bytes before a net sees it: `y = (x - mean) * scale` of its middle."""

    size: Size  # (C, H, W) that the net takes
    before_crop: tuple[int, int]  # height and width that every image is brought to
    transform: Transform
    mean: Floats | None
    told_by: str  # where these settings are from

    @property
    def is_color(self) -> bool | None:
        """Whether images are brought to colour, or to grey; None where the net takes neither."""
        return {1: False, 3: True}.get(self.size[0])

    def __call__(self, images: Sequence[Pixels] | Pixels) -> Floats:
        """Images (C, H, W) of the size `before_crop`, to (N, C, H, W); DataError where the channels are others."""
        for image in images[:1] if isinstance(images, numpy.ndarray) else images:
            if len(image) != self.size[0]:
                raise DataError(f"an image has {_channels(len(image))}, but the net takes {_channels(self.size[0])}")
        prepared = transform_batch(numpy.stack(list(images)), self.transform, self.mean, None)
        return numpy.ascontiguousarray(prepared, numpy.float32)

    def __str__(self) -> str:
        channels, height, width = self.size
        colour = {1: "grey", 3: "colour (blue, green, red)"}.get(channels, _channels(channels))
        steps = [colour, f"resized to {self.before_crop[0]} x {self.before_crop[1]}"]
        if self.before_crop != (height, width):
            steps.append(f"the middle {height} x {width} of it")
        if self.mean is not None:
            steps.append("mean image subtracted")
        if self.transform.mean_values:
            steps.append(f"mean {', '.join(f'{value:g}' for value in self.transform.mean_values)} subtracted")
        steps.append(
            f"times {self.transform.scale:.6g}" if self.transform.scale != 1 else "values 0 to 255 as they are"
        )
        return f"{', '.join(steps)} ({self.told_by})"


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"


def find_preparation(
    graph: Graph,
    image: Blob,
    folder: str | None = None,
    *,
    scale: float | None = None,
    mean_values: Sequence[float] = (),
    resize: tuple[int, int] | None = None,
) -> Preparation:
    """How images become the blob `image`: as the data layer that it comes from says, unless settings are given.

    Random crops become crops of the middle, and nothing is mirrored. `resize` is (height, width), of which the middle
    is taken where the net takes less. Raises GraphError where the net takes no images of a known size.
    """
    if image.shape is None or len(image.shape) != 4:
        raise GraphError(
            f"blob {quoted(image.name)} of shape {image.shape} takes no images; name the one that does with --input, "
            "or give its shape with --shape"
        )
    size = (image.shape[1], image.shape[2], image.shape[3])
    ancestry = Ancestry(graph)
    node = data_node(image, ancestry)
    transform = replace(read_transform(node.message.transform_param, "TEST"), mirror=False)
    given = scale is not None or bool(mean_values) or resize is not None
    if mean_values:
        transform = replace(transform, mean_file="", mean_values=tuple(mean_values))
    if scale is not None:
        transform = replace(transform, scale=scale)
    offset = _first_channel(image, node, ancestry)
    mean = _mean(transform, folder)
    if mean is not None:
        mean = mean[offset : offset + size[0]]
    elif len(transform.mean_values) not in (0, 1, size[0]):
        transform = replace(transform, mean_values=transform.mean_values[offset : offset + size[0]])
    before = resize or _before_crop(node, mean, transform, folder) or size[1:]
    transform = replace(transform, crop_size=size[1] if before != size[1:] else 0)
    if before != size[1:] and (size[1] != size[2] or min(before) < size[1]):
        raise GraphError(
            f"no {size[1]} x {size[2]}, which is what the net takes, can be cut from the middle of images of "
            f"{before[0]} x {before[1]} (height x width)"
        )
    source = "deploy files tell nothing of it" if node.type == "Input" else f"as layer {quoted(node.name)} has it"
    return Preparation(size, before, transform, mean, "as given" if given else source)


def _first_channel(image: Blob, node: Node, ancestry: Ancestry) -> int:
    """Where the image's channels begin in the records that it is cut from."""
    maker = ancestry.maker[image.id]
    if maker is node:
        return 0
    before = maker.tops[: [top.id for top in maker.tops].index(image.id)]
    return sum(top.shape[1] for top in before if top.shape)


def _mean(transform: Transform, folder: str | None) -> Floats | None:
    """The mean image of the settings, (C, H, W), whatever its size."""
    if not transform.mean_file:
        return None
    path = find_path(transform.mean_file, folder) or transform.mean_file
    try:
        blob = schema.BlobProto.FromString(Path(path).read_bytes())
    except (OSError, DecodeError):
        return read_mean(transform, (0, 0, 0), folder)  # which says what is wrong with it
    dims = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
    size = (*(1,) * (3 - len(dims)), *dims)[-3:]
    return read_mean(transform, (size[0], size[1], size[2]), folder)


def _before_crop(node: Node, mean: Floats | None, transform: Transform, folder: str | None) -> tuple[int, int] | None:
    """Height and width of the records that a data layer takes the middle of; None where that is not known."""
    if mean is not None:
        return mean.shape[1], mean.shape[2]
    if not transform.crop_size:
        return None
    for settings in (node.message.image_data_param, node.message.pair_data_param):
        if settings.new_height and settings.new_width:
            return settings.new_height, settings.new_width
    path = find_path(node.message.data_param.source, folder) if node.message.data_param.source else None
    if path is None:
        return None
    with open_database(path) as database:
        key, value = first_record(database)
        _, height, width = size_of(key, parse_datum(key, value), Decoding())
    return height, width


def as_pictures(images: Floats, preparation: Preparation) -> NDArray[numpy.uint8]:
    """Prepared images (N, C, H, W) as (N, H, W) or (N, H, W, 3) in red, green, blue, whatever they were divided by."""
    transform = preparation.transform
    values = images / (transform.scale or 1)
    if preparation.mean is not None:
        top, left = (
            (whole - part) // 2 for whole, part in zip(preparation.before_crop, preparation.size[1:], strict=True)
        )
        values = values + preparation.mean[:, top : top + images.shape[2], left : left + images.shape[3]]
    elif transform.mean_values:
        values = values + numpy.array(transform.mean_values, numpy.float32)[:, None, None]
    return pictures_of(values.round().clip(0, 255).astype(numpy.uint8))


def pictures_of(pixels: NDArray[Any]) -> NDArray[numpy.uint8]:
    """Images (N, C, H, W) of bytes as pictures: colours in red, green, blue; of other channels the first alone."""
    if pixels.shape[1] == 3:
        return numpy.ascontiguousarray(pixels[:, ::-1].transpose(0, 2, 3, 1))
    return numpy.ascontiguousarray(pixels[:, 0])
