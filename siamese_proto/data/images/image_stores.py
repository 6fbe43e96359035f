"""Where labeled images lie: in an array, in files, or in the records of a database."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeVar

from siamese_proto.data.bad_records import BadRecordError
from siamese_proto.data.databases.datum import Decoding, Size, key_text, parse_datum, pixels_of, size_of
from siamese_proto.data.images.decode import read_file, resize
from siamese_proto.errors import DataError, quoted
from siamese_proto.proto import schema

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from siamese_proto.data.databases.datum import Pixels
    from siamese_proto.data.databases.store import Database

    Labels = NDArray[numpy.int64]

Result = TypeVar("Result")

_GRAY = (0.114, 0.587, 0.299)  # of blue, green and red, as OpenCV weighs them
_JPEG_END = b"\xff\xd9"
_AT_ONCE = 1000  # images of an array that are resized together


@dataclass(frozen=True)
class Form:
    """What every image is brought to: colour or grey (None: as the first image is), and a size (0, 0: its own)."""

    is_color: bool | None = None
    new_size: tuple[int, int] = (0, 0)  # height, width

    def sized(self, size: Size) -> Size:
        """(C, H, W) of an image of this size once it is brought to the form."""
        channels = size[0] if self.is_color is None or size[0] not in (1, 3) else (3 if self.is_color else 1)
        return (channels, *(self.new_size if self.new_size[0] else size[1:]))

    def applied(self, pixels: Pixels) -> Pixels:
        """Raw pixels (..., C, H, W) in this form; images of other than one or three channels keep them."""
        import numpy

        channels = pixels.shape[-3]
        if self.is_color and channels == 1:
            pixels = numpy.repeat(pixels, 3, axis=-3)
        if self.is_color is False and channels == 3:
            gray = numpy.tensordot(numpy.array(_GRAY, numpy.float32), pixels, (0, pixels.ndim - 3))
            pixels = numpy.expand_dims(gray.round().astype(pixels.dtype) if pixels.dtype.kind == "u" else gray, -3)
        return self.resized(pixels)

    def resized(self, pixels: Pixels) -> Pixels:
        """One image (C, H, W) or several (N, C, H, W) in the size asked for."""
        import numpy

        if not self.new_size[0] or pixels.shape[-2:] == self.new_size:
            return pixels
        if pixels.ndim == 3:
            return resize(pixels, self.new_size)
        images, channels, height, width = pixels.shape
        parts = [
            resize(pixels[begin : begin + _AT_ONCE].reshape(-1, height, width), self.new_size)
            for begin in range(0, images, _AT_ONCE)
        ]
        return numpy.concatenate(parts).reshape(images, channels, *self.new_size)


class ImageStore(ABC):
    """Images with a label and a name each, of which any one can be read; from several threads at once."""

    def __init__(self, source: str, class_names: Mapping[int, str]) -> None:
        self.source = source
        self.class_names = class_names  # of the labels that have one

    @abstractmethod
    def labels(self) -> Labels:
        """The class of every image, (N,)."""

    @abstractmethod
    def names(self) -> Sequence[str]:
        """What each image is called in messages."""

    @property
    @abstractmethod
    def size(self) -> Size:
        """(C, H, W) of the first image, found without reading the others."""

    @abstractmethod
    def read(self, row: int) -> Pixels:
        """One image, (C, H, W); DataError with its name where it cannot be read."""

    def read_many(self, rows: NDArray[Any]) -> Pixels | list[Pixels]:
        """Several images: one array (n, C, H, W) where that is at hand, else a list."""
        return [self.read(row) for row in rows.tolist()]

    @abstractmethod
    def check(self, row: int) -> None:
        """Raise DataError where an image cannot be read, as far as that can be told without decoding it."""

    @abstractmethod
    def close(self) -> None:
        """Give files back; a second call does nothing."""


class ArrayStore(ImageStore):
    """Images in memory, (N, C, H, W)."""

    def __init__(self, source: str, images: Pixels, labels: Labels, class_names: Mapping[int, str]) -> None:
        super().__init__(source, class_names)
        self._images = images
        self._labels = labels

    def labels(self) -> Labels:
        return self._labels

    def names(self) -> Sequence[str]:
        return [f"{self.source}[{row}]" for row in range(len(self._images))]

    @property
    def size(self) -> Size:
        _, channels, height, width = self._images.shape
        return channels, height, width

    def read(self, row: int) -> Pixels:
        image: Pixels = self._images[row]
        return image

    def read_many(self, rows: NDArray[Any]) -> Pixels | list[Pixels]:
        images: Pixels = self._images[rows]
        return images

    def check(self, row: int) -> None:
        """Whatever lies in memory can be read."""

    def close(self) -> None:
        """Nothing is held."""


class FileStore(ImageStore):
    """Image files, of a list or named one by one; `hint` says what to do where one is not there."""

    def __init__(
        self,
        source: str,
        paths: Sequence[str],
        labels: Labels,
        class_names: Mapping[int, str],
        form: Form,
        hint: str = "check the list",
    ) -> None:
        super().__init__(source, class_names)
        self._hint = hint
        self._paths = paths
        self._labels = labels
        self._form = form

    def labels(self) -> Labels:
        return self._labels

    def names(self) -> Sequence[str]:
        return self._paths

    @cached_property
    def _first(self) -> tuple[Size, Decoding]:
        size = self._first_size()
        return self._form.sized((min(size[0], 3), *size[1:])), _decoding(size[0] > 1)

    @property
    def size(self) -> Size:
        return self._first[0]

    def _first_size(self) -> Size:
        """Of the first image that can be read."""
        problems = []
        for row in range(len(self._paths)):
            try:
                return self._guarded(row, partial(size_of, b"", self._datum(row), _decoding(self._form.is_color)))
            except DataError as error:
                problems.append(error)
        raise problems[0]

    def read(self, row: int) -> Pixels:
        decoding = self._first[1]
        return self._form.resized(self._guarded(row, lambda: pixels_of(b"", self._datum(row), decoding)))

    def check(self, row: int) -> None:
        datum = self._datum(row)
        self._guarded(row, lambda: check_encoded(b"", datum, _decoding(self._form.is_color)))

    def close(self) -> None:
        """Nothing is held."""

    def _datum(self, row: int) -> schema.Datum:
        return schema.Datum(data=read_file(self._paths[row], self._hint), encoded=True)

    def _guarded(self, row: int, work: Callable[[], Result]) -> Result:
        """What `work` does with the bytes of an image file, whose errors speak of a record."""
        try:
            return work()
        except DataError as error:
            if error.message.startswith("image "):
                raise
            reason = error.message.removeprefix("record '' cannot be used: ").removesuffix("; make the database again")
            raise DataError(f"image {quoted(self._paths[row])} cannot be read: {reason}") from error


class RecordStore(ImageStore):
    """Records of a database, raw or encoded; labels are known once all have been gone through."""

    def __init__(self, database: Database, form: Form) -> None:
        super().__init__(database.path, {})
        self._database = database
        self._form = form

    @cached_property
    def _index(self) -> tuple[list[bytes], Labels]:
        import numpy

        keys, labels = [], []
        for key, value in self._database.records():
            keys.append(key)
            labels.append(_label_of(key, value))
        return keys, numpy.array(labels, numpy.int64)

    def labels(self) -> Labels:
        return self._index[1]

    def names(self) -> Sequence[str]:
        return [key.decode(errors="backslashreplace") for key in self._index[0]]

    @cached_property
    def _first(self) -> tuple[Size, Decoding]:
        from siamese_proto.data.databases.database import first_record

        key, value = first_record(self._database)
        datum = parse_datum(key, value)
        if not datum.encoded:
            return self._form.sized(size_of(key, datum, Decoding())), _decoding(self._form.is_color)
        size = size_of(key, datum, _decoding(self._form.is_color))
        return self._form.sized((min(size[0], 3), *size[1:])), _decoding(size[0] > 1)

    @property
    def size(self) -> Size:
        return self._first[0]

    def _datum(self, row: int) -> tuple[bytes, schema.Datum]:
        key = self._index[0][row]
        for found, value in self._database.records(key):
            if found == key:
                return key, parse_datum(key, value)
            break
        raise DataError(f"record {key_text(key)} of database {quoted(self.source)} is gone: it was changed meanwhile")

    def read(self, row: int) -> Pixels:
        key, datum = self._datum(row)
        pixels = pixels_of(key, datum, self._first[1])
        return self._form.resized(pixels) if datum.encoded else self._form.applied(pixels)

    def check(self, row: int) -> None:
        key, datum = self._datum(row)
        if datum.encoded:
            check_encoded(key, datum, _decoding(self._form.is_color))
        else:
            size_of(key, datum, Decoding())

    def close(self) -> None:
        self._database.close()


def _label_of(key: bytes, value: bytes) -> int:
    """The label of a record, and -1 where the bytes are no Datum, which is told when that record is read."""
    try:
        return parse_datum(key, value).label
    except BadRecordError:
        return -1


def check_encoded(key: bytes, datum: schema.Datum, decoding: Decoding) -> None:
    """Raise DataError where the bytes are no image file; only files whose end does not tell are decoded."""
    if datum.data.endswith(_JPEG_END):
        size_of(key, datum, decoding)
    else:
        pixels_of(key, datum, decoding)


def _decoding(is_color: bool | None) -> Decoding:
    return Decoding(any_depth=True) if is_color is None else Decoding(force_color=is_color, force_gray=not is_color)
