"""Datum, the record of Caffe's databases: an image, raw or as the bytes of an image file, and a label."""

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
_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")  # those OpenCV reads too; Pillow has more, some rarely tried
_TOO_LARGE = "its image is larger than Pillow's limit (PIL.Image.MAX_IMAGE_PIXELS)"


@dataclass(frozen=True)
class Decoding:
    """How encoded images become pixels; raw records are taken as they are (transform_param, io.cpp)."""

    force_color: bool = False
    force_gray: bool = False
    any_depth: bool = False  # images of more than 8 bits a value are taken for grey ones, not refused


def parse_datum(key: bytes, value: bytes) -> schema.Datum:
    """The message in a record; BadRecordError naming its key where the bytes are none."""
    try:
        datum = schema.Datum.FromString(value)
    except DecodeError as error:
        raise bad_record(key, f"its {len(value)} bytes are not a Datum message") from error
    if not datum.encoded and not datum.data and not datum.float_data:
        raise bad_record(key, "it holds no pixels")
    return datum


def key_text(key: bytes) -> str:
    """A key as it is shown to people."""
    return quoted(key.decode(errors="backslashreplace"))


def bad_record(key: bytes, problem: str) -> BadRecordError:
    """The error for one record of a database."""
    return BadRecordError(key_text(key), f"record {key_text(key)} cannot be used: {problem}; make the database again")


@contextlib.contextmanager
def of_image(name: str) -> Iterator[None]:
    """Have what is told of a record's bytes in this block be told of the image file that they are."""
    try:
        yield
    except BadRecordError as error:
        reason = error.message.removeprefix("record '' cannot be used: ").removesuffix("; make the database again")
        if reason == error.message:
            raise
        raise BadRecordError(name, f"image {quoted(name)} cannot be used: {reason}") from error


def size_of(key: bytes, datum: schema.Datum, decoding: Decoding) -> Size:
    """(C, H, W) without decoding the pixels; BadRecordError where the sizes do not agree with the bytes."""
    if datum.encoded:
        with _opened(key, datum.data) as image:
            return len(_mode(key, image, decoding)), image.height, image.width
    size = (datum.channels, datum.height, datum.width)
    count = len(datum.data) or len(datum.float_data)
    if min(size) < 1 or size[0] * size[1] * size[2] != count:
        form = f"{size[0]} x {size[1]} x {size[2]}"
        raise bad_record(key, f"it holds {count} values, but says that it is {form} (channels x height x width)")
    return size


def pixels_of(
    key: bytes, datum: schema.Datum, decoding: Decoding, admit: Callable[[Size], None] = lambda size: None
) -> Pixels:
    """The image, (C, H, W), uint8 or (from `float_data`) float32; colours in the order blue, green, red.

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
    """A raw record of (C, H, W) bytes."""
    channels, height, width = pixels.shape
    return schema.Datum(channels=channels, height=height, width=width, data=pixels.tobytes(), label=label)


def _opened(key: bytes, data: bytes) -> Any:
    """A Pillow image of which only the header has been read; its limits on sizes hold."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise bad_record(key, f"its {len(data)} bytes are no image file that Pillow knows") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise bad_record(key, _TOO_LARGE) from error
    except MemoryError:
        raise
    except Exception as error:  # for damaged files, Pillow's decoders raise exceptions of any type
        raise _damaged(key, error) from error
    # Above its limit Pillow only warns, up to twice that.
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS:
        raise bad_record(key, _TOO_LARGE)
    return image


def _damaged(key: bytes, error: Exception) -> BadRecordError:
    return bad_record(key, f"its image file is damaged ({str(error) or type(error).__name__})")


def _mode(key: bytes, image: Any, decoding: Decoding) -> str:
    """Pillow's name of the pixels to deliver: as the file has them unless colour or grey is forced."""
    if decoding.force_color:
        return "RGB"
    if decoding.force_gray:
        return "L"
    if image.mode.startswith(("I", "F")):
        if decoding.any_depth:
            return "L"
        raise bad_record(key, f"its image has more than 8 bits a value (Pillow's mode {image.mode})")
    if image.mode in ("1", "L"):
        return "L"
    return "RGBA" if image.mode in ("RGBA", "LA") or "transparency" in image.info else "RGB"


def _decode(key: bytes, data: bytes, decoding: Decoding, admit: Callable[[Size], None]) -> NDArray[numpy.uint8]:
    import numpy

    with _opened(key, data) as image:
        mode = _mode(key, image, decoding)
        admit((len(mode), image.height, image.width))
        try:
            if image.mode.startswith("I"):  # OpenCV keeps the upper of two bytes; Pillow would cut all above 255 to it
                upper = (numpy.asarray(image) >> 8).clip(0, 255).astype(numpy.uint8)
                return upper[None] if mode == "L" else numpy.repeat(upper[None], 3, axis=0)
            if mode == "L" and image.format == "PNG" and image.mode not in ("1", "L"):
                return _png_gray(numpy.asarray(image.convert("RGB")))
            if mode == "L":
                image.draft("L", image.size)  # a JPEG's own luminance, as OpenCV takes it
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
    """(H, W, 3) to (1, H, W) by libpng's fixed-point weights, as OpenCV does (png_set_rgb_to_gray)."""
    import numpy

    weights = numpy.array([9797, 19234, 3737], numpy.uint32)
    return (pixels.astype(numpy.uint32) @ weights >> 15).astype(numpy.uint8)[None]
