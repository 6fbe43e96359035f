"""Preprocessing: from images in files to the input of a net, and back to pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
from numpy.typing import NDArray

from siamese_proto.data.databases.database import first_record, open_database
from siamese_proto.data.databases.datum import Decoding, Size, parse_datum, size_of
from siamese_proto.data.transform import Transform, load_mean, read_mean, read_transform, transform_batch
from siamese_proto.errors import DataError, GraphError, quoted
from siamese_proto.files import find_path
from siamese_proto.graph.comparison import data_node
from siamese_proto.graph.ir import Blob, Graph, Node
from siamese_proto.graph.traversal import Ancestry

Floats = NDArray[numpy.float32]
Pixels = NDArray[Any]  # uint8 or float32
Picture = NDArray[numpy.uint8]  # (H, W) in gray, or (H, W, 3) in red, green, blue
Resolution = tuple[int, int]  # height and width


@dataclass(frozen=True)
class Preprocessing:
    """How images of bytes become the input of a net: `y = (x - mean) * scale` of their middle."""

    size: Size  # (C, H, W) of the input
    before_crop: Resolution  # every image is resized to this
    transform: Transform
    mean: Floats | None
    source: str  # where these settings come from

    @property
    def is_color(self) -> bool | None:
        """Whether images are converted to color or to gray; None if the net takes neither."""
        return {1: False, 3: True}.get(self.size[0])

    def __call__(self, images: Sequence[Pixels] | Pixels) -> Floats:
        """Convert images (C, H, W) of size `before_crop` to (N, C, H, W). Raises DataError for another C."""
        for image in images[:1] if isinstance(images, numpy.ndarray) else images:
            if len(image) != self.size[0]:
                raise DataError(f"an image has {_channels(len(image))}, but the net takes {_channels(self.size[0])}")
        inputs = transform_batch(numpy.stack(list(images)), self.transform, self.mean, None)
        return numpy.ascontiguousarray(inputs, numpy.float32)

    def to_pictures(self, inputs: Floats) -> NDArray[numpy.uint8]:
        """Convert inputs of the net (N, C, H, W) back to pictures, (N, H, W) or (N, H, W, 3)."""
        values = inputs / (self.transform.scale or 1)
        if self.mean is not None:
            _, height, width = self.size
            y, x = (self.before_crop[0] - height) // 2, (self.before_crop[1] - width) // 2
            values = values + self.mean[:, y : y + height, x : x + width]
        elif self.transform.mean_values:
            values = values + numpy.array(self.transform.mean_values, numpy.float32)[:, None, None]
        return to_pictures(values.round().clip(0, 255).astype(numpy.uint8))

    def __str__(self) -> str:
        channels, *size = self.size
        steps = [
            {1: "gray", 3: "color (blue, green, red)"}.get(channels, _channels(channels)),
            f"resized to {self.before_crop[0]} x {self.before_crop[1]}",
        ]
        if [*self.before_crop] != size:
            steps.append(f"center crop of {size[0]} x {size[1]}")
        if self.mean is not None:
            steps.append("mean image subtracted")
        if self.transform.mean_values:
            steps.append(f"mean {', '.join(f'{value:g}' for value in self.transform.mean_values)} subtracted")
        scale = self.transform.scale
        steps.append(f"times {scale:.6g}" if scale != 1 else "values from 0 to 255")
        return f"{', '.join(steps)} ({self.source})"


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"


def to_pictures(pixels: Pixels) -> NDArray[numpy.uint8]:
    """Convert images of bytes (N, C, H, W) to pictures: BGR to (N, H, W, 3) in RGB, of others the first channel."""
    if pixels.shape[1] == 3:
        return numpy.ascontiguousarray(pixels[:, ::-1].transpose(0, 2, 3, 1))
    return numpy.ascontiguousarray(pixels[:, 0])


def find_preprocessing(
    graph: Graph,
    image: Blob,
    folder: str | None = None,
    *,
    scale: float | None = None,
    mean_values: Sequence[float] = (),
    resize: Resolution | None = None,
) -> Preprocessing:
    """Find out how images become the blob `image`.

    Random crops become center crops, and nothing is mirrored.

    Args:
        graph: The net.
        image: The blob of shape (N, C, H, W) that takes the images.
        folder: Where the net's file is.
        scale: Instead of the scale of the data layer.
        mean_values: Instead of the mean of the data layer.
        resize: Instead of the size of the records; the net takes a center crop if its input is smaller.

    Raises:
        GraphError: the blob takes no images of a known size, or none that can be cropped from the resized ones.
    """
    if image.shape is None or len(image.shape) != 4:
        raise GraphError(
            f"blob {quoted(image.name)} of shape {image.shape} takes no images; name the one that does with --input, "
            "or give its shape with --shape"
        )
    size = (image.shape[1], image.shape[2], image.shape[3])
    ancestry = Ancestry(graph.nodes)
    node = data_node(image, ancestry)
    transform = replace(read_transform(node.message.transform_param, "TEST"), mirror=False)
    if mean_values:
        transform = replace(transform, mean_file="", mean_values=tuple(mean_values))
    if scale is not None:
        transform = replace(transform, scale=scale)
    begin = _first_channel(image, node, ancestry)
    mean = _read_mean_image(transform, folder)
    if mean is not None:
        mean = mean[begin : begin + size[0]]
    elif len(transform.mean_values) not in (0, 1, size[0]):
        transform = replace(transform, mean_values=transform.mean_values[begin : begin + size[0]])
    before = resize or _size_before_crop(node, mean, transform, folder) or size[1:]
    crops = before != size[1:]
    if crops and (size[1] != size[2] or min(before) < size[1]):
        raise GraphError(
            f"images of {before[0]} x {before[1]} (height x width) cannot be cropped to the {size[1]} x {size[2]} of "
            f"the net: expected a square of at most {min(before)}; give another --resize"
        )
    source = "a deploy net does not describe it" if node.type == "Input" else f"from layer {quoted(node.name)}"
    if scale is not None or mean_values or resize is not None:
        source = "as specified"
    return Preprocessing(size, before, replace(transform, crop_size=size[1] if crops else 0), mean, source)


def _first_channel(image: Blob, node: Node, ancestry: Ancestry) -> int:
    """The channel of the records where the image begins that is sliced from them."""
    producer = ancestry.producer[image.id]
    if producer is node:
        return 0
    before = producer.tops[: [top.id for top in producer.tops].index(image.id)]
    return sum(top.shape[1] for top in before if top.shape)


def _read_mean_image(transform: Transform, folder: str | None) -> Floats | None:
    """Read the mean image, (C, H, W), in the size that it has."""
    if not transform.mean_file:
        return None
    _, mean = load_mean(transform.mean_file, folder)
    channels, height, width = (1, 1, 1, *mean.shape)[-3:]
    return read_mean(transform, (channels, height, width), folder)


def _size_before_crop(node: Node, mean: Floats | None, transform: Transform, folder: str | None) -> Resolution | None:
    """Height and width of the records that a data layer crops; None if it does not, or if they are unknown."""
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
