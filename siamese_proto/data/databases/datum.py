"""Datum, the record of Caffe's databases: a label and an image, as raw pixels or as an encoded image file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from siamese_proto.data.bad_records import BadRecordError
from siamese_proto.errors import quoted
from siamese_proto.proto import schema

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Pixels = NDArray[Any]  # uint8 or float32

Size = tuple[int, int, int]  # C, H, W
_FORMATS = (
    "JPEG",
    "PNG",
    "BMP",
    "PPM",
    "TIFF",
    "WEBP",
)  # OpenCV reads these too; some of Pillow's other formats are little tested
_TOO_LARGE = "its image is larger than Pillow's limit (PIL.Image.MAX_IMAGE_PIXELS)"


@dataclass(frozen=True)
class Decoding:
    """How to decode encoded images. Raw records are used unchanged (transform_param, io.cpp)."""

    force_color: bool = False
    force_gray: bool = False
    any_depth: bool = False  # treat images of more than 8 bits per value as gray instead of raising an error


def parse_datum(key: bytes, value: bytes) -> schema.Datum:
    """Parse the message in a record. Raises BadRecordError with the key if the bytes are not a Datum with pixels."""
    try:
        datum = schema.Datum.FromString(value)
    except DecodeError as error:
        raise bad_record(key, f"its {len(value)} bytes are not a Datum message") from error
    if not datum.encoded and not datum.data and not datum.float_data:
        raise bad_record(key, "it holds no pixels")
    return datum


def key_text(key: bytes) -> str:
    """Format a key for messages."""
    return quoted(key.decode(errors="backslashreplace"))


def bad_record(key: bytes, problem: str) -> BadRecordError:
    """Return the error for one record of a database."""
    return BadRecordError(key_text(key), f"record {key_text(key)} cannot be used: {problem}; make the database again")


@contextlib.contextmanager
def of_image(name: str) -> Iterator[None]:
    """Report errors about a record in this block as errors about the image file `name`."""
    try:
        yield
    except BadRecordError as error:
        reason = error.message.removeprefix("record '' cannot be used: ").removesuffix("; make the database again")
        if reason == error.message:
            raise
        raise BadRecordError(name, f"image {quoted(name)} cannot be used: {reason}") from error


def size_of(key: bytes, datum: schema.Datum, decoding: Decoding) -> Size:
    """Return (C, H, W) without decoding the pixels. Raises BadRecordError if the size does not match the data."""
    if datum.encoded:
        with _opened(key, datum.data) as image:
            return len(_mode(key, image, decoding)), image.height, image.width
    size = (datum.channels, datum.height, datum.width)
    count = len(datum.data) or len(datum.float_data)
    if min(size) < 1 or size[0] * size[1] * size[2] != count:
        form = f"{size[0]} x {size[1]} x {size[2]}"
        raise bad_record(key, f"it holds {count} values, but its size is {form} (channels x height x width)")
    return size


def pixels_of(
    key: bytes, datum: schema.Datum, decoding: Decoding, admit: Callable[[Size], None] = lambda size: None
) -> Pixels:
    """Return the image, (C, H, W), uint8 or (from `float_data`) float32; color channels are blue, green, red.

    `admit` is called with the size before anything of that size is allocated, and may raise an error.
    """
    import numpy

    if datum.encoded:
        return _decode(key, datum.data, decoding, admit)
    size = size_of(key, datum, decoding)
    admit(size)
    if datum.data:
        return numpy.frombuffer(datum.data, numpy.uint8).reshape(size)
    return numpy.array(datum.float_data, numpy.float32).reshape(size)


def make_datum(pixels: NDArray[numpy.uint8], label: int) -> schema.Datum:
    """Return a raw record with pixels (C, H, W)."""
    channels, height, width = pixels.shape
    return schema.Datum(channels=channels, height=height, width=width, data=pixels.tobytes(), label=label)


def _opened(key: bytes, data: bytes) -> Any:
    """Open a Pillow image without reading its pixels. Pillow's size limit applies."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise bad_record(key, f"its {len(data)} bytes are not an image file that Pillow can read") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise bad_record(key, _TOO_LARGE) from error
    except MemoryError:
        raise
    except Exception as error:  # for damaged files, Pillow's decoders raise exceptions of any type
        raise _damaged(key, error) from error
    # Between its limit and twice its limit, Pillow only warns.
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise bad_record(key, _TOO_LARGE)
    return image


def _damaged(key: bytes, error: Exception) -> BadRecordError:
    return bad_record(key, f"its image file is damaged ({str(error) or type(error).__name__})")


def _mode(key: bytes, image: Any, decoding: Decoding) -> str:
    """Return the Pillow mode to decode to: that of the file unless color or gray is forced."""
    if decoding.force_color:
        return "RGB"
    if decoding.force_gray:
        return "L"
    if image.mode.startswith(("I", "F")):
        if decoding.any_depth:
            return "L"
        raise bad_record(key, f"its image has more than 8 bits per value (Pillow's mode {image.mode})")
    if image.mode in ("1", "L"):
        return "L"
    return "RGBA" if image.mode in ("RGBA", "LA") or "transparency" in image.info else "RGB"


def _decode(key: bytes, data: bytes, decoding: Decoding, admit: Callable[[Size], None]) -> NDArray[numpy.uint8]:
    import numpy

    with _opened(key, data) as image:
        mode = _mode(key, image, decoding)
        admit((len(mode), image.height, image.width))
        try:
            if image.mode.startswith("I"):  # OpenCV keeps the upper byte of two; Pillow would clip to 255
                upper = (numpy.asarray(image) >> 8).clip(0, 255).astype(numpy.uint8)
                return upper[None] if mode == "L" else numpy.repeat(upper[None], 3, axis=0)
            if mode == "L" and image.format == "PNG" and image.mode not in ("1", "L"):
                return _png_gray(numpy.asarray(image.convert("RGB")))
            if mode == "L":
                image.draft("L", image.size)  # use the luminance stored in the JPEG, as OpenCV does
            pixels = numpy.asarray(image.convert(mode))
        except MemoryError:
            raise
        except Exception as error:  # as in `_opened`
            raise _damaged(key, error) from error
    if mode == "L":
        return pixels[None]
    planes = numpy.empty((pixels.shape[2], *pixels.shape[:2]), numpy.uint8)
    planes[:3] = pixels[:, :, 2::-1].transpose(2, 0, 1)  # blue first
    planes[3:] = pixels[:, :, 3:].transpose(2, 0, 1)
    return planes


def _png_gray(pixels: NDArray[numpy.uint8]) -> NDArray[numpy.uint8]:
    """Convert (H, W, 3) to (1, H, W) with libpng's fixed-point weights, as OpenCV does (png_set_rgb_to_gray)."""
    import numpy

    weights = numpy.array([9797, 19234, 3737], numpy.uint32)
    return (pixels.astype(numpy.uint32) @ weights >> 15).astype(numpy.uint8)[None]
