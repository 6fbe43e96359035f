"""Read image files, and resize images. Records with image files are decoded in `databases.datum`."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from siamese_proto.data.bad_records import BadRecordError
from siamese_proto.errors import DataError, quoted

if TYPE_CHECKING:
    from siamese_proto.data.databases.datum import Pixels


def read_file(name: str, hint: str = "check the list") -> bytes:
    """Return the bytes of an image file. Raises BadRecordError, with `hint`, if it cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(name).st_mode):  # a device would be read without end
            raise BadRecordError(name, f"image {quoted(name)} is no file; {hint}")
        with open(name, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:  # a ValueError where the name holds a zero byte
        problem = getattr(error, "strerror", None) or error
        raise BadRecordError(name, f"image {quoted(name)} cannot be read: {problem}; {hint}") from error


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize an image (C, H, W) to (height, width), bilinearly as OpenCV's INTER_LINEAR (bytes within one gray level).

    Raises DataError for a size above Pillow's limit: one such image would fill the memory.
    """
    import torch
    from PIL import Image

    if Image.MAX_IMAGE_PIXELS is not None and size[0] * size[1] > Image.MAX_IMAGE_PIXELS:
        raise DataError(
            f"images cannot be resized to {size[0]} x {size[1]} (height x width): that is above Pillow's limit"
            " (PIL.Image.MAX_IMAGE_PIXELS); give a smaller size"
        )
    image = torch.from_numpy(pixels.copy()).float()[None]
    resized = torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=False)
    values = resized[0] if pixels.dtype.kind == "f" else resized[0].round().clamp(0, 255).byte()
    result: Pixels = values.numpy()
    return result
