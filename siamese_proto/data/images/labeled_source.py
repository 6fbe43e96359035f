"""Open labeled images from an IDX file, a folder, a list, a database, or the embedded digits.

with LabeledSource("faces").open() as images:  # a folder with a subfolder for each class
    image, label = images.image(7), images.labels[7]
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from siamese_proto.data.images.class_choice import choose_classes
from siamese_proto.data.images.image_list import read_list, several_labels
from siamese_proto.data.images.image_stores import ArrayStore, FileStore, Form, ImageStore, RecordStore
from siamese_proto.data.images.labeled import LabeledImages
from siamese_proto.data.images.pair_lines import SUFFIXES, pair_form
from siamese_proto.errors import DataError, quoted
from siamese_proto.files import control_hint, find_path, where_tried

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from siamese_proto.data.databases.datum import Pixels

Kind = Literal["AUTO", "IDX", "FOLDER", "LIST", "CSV", "DATABASE", "DIGITS"]
Split = Literal["all", "train", "test"]
_DIGITS = {"digits": None, "digits:all": "all", "digits:train": "train", "digits:test": "test"}
_IDX_OF_IMAGES, _IDX_OF_LABELS = bytes((0, 0, 8, 3)), bytes((0, 0, 8, 1))
_SUFFIX_OF_IDX = "-ubyte"  # of MNIST's files, so that a file with a damaged header is not taken for a list


@dataclass(frozen=True)
class LabeledSource:
    """Where labeled images are, and how to read them. A CSV of pairs is opened by `pair_list.open_pairs`.

    Attributes:
        path: An IDX file of images, a folder with a subfolder for each class, a list of lines `path label`, a labeled
            LMDB or LevelDB, or `digits`, the embedded handwritten digits. It is relative to the working directory or
            to `folder`.
        kind: What `path` is; AUTO: determined from the files.
        labels: The labels of an IDX file of images. "": the file of that name in the same folder.
        root_folder: Prefix of the paths in a list. They are relative to the working directory, the list's folder or
            `folder`.
        folder: The folder of the net, if it has one.
        split: Part of the embedded digits; the two parts share no image. The endings `:train` and `:test` of `path`
            take precedence.
        classes: The classes to use, as in `choose_classes`; "": all.
        is_color: Convert images to color or to gray; None: as the first image is.
        new_size: Resize images to this (height, width), bilinearly; (0, 0): do not resize.
    """

    path: str
    kind: Kind = "AUTO"
    labels: str = ""
    root_folder: str = ""
    folder: str | None = None
    split: Split = "all"
    classes: str = ""
    is_color: bool | None = None
    new_size: tuple[int, int] = (0, 0)

    @property
    def form(self) -> Form:
        """The color and the size of the images."""
        return Form(self.is_color, self.new_size)

    @property
    def is_csv(self) -> bool:
        """Whether the source names pairs of images, instead of images with classes."""
        if self.kind != "AUTO" or self.path.lower().endswith(".csv"):
            return self.kind in ("AUTO", "CSV")
        path = self.find()
        return path is not None and os.path.isfile(path) and pair_form(path) is not None

    def find(self) -> str | None:
        """Return the path, in the working directory or in `folder`; None if it does not exist."""
        return find_path(self.path, self.folder) if self.path else None

    @property
    def is_digits(self) -> bool:
        """Whether the images are the embedded digits."""
        return self.kind == "DIGITS" or (self.kind == "AUTO" and self.find() is None and is_digits(self.path))

    def open(self) -> LabeledImages:
        """Open the images. Raises DataError if they do not exist or are not of this kind."""
        images = LabeledImages(self._open_store())
        return choose_classes(images, self.classes) if self.classes else images

    def _open_store(self) -> ImageStore:
        if self.is_digits:
            return _digits(self.path, self.split, self.form)
        path = self.find()
        if path is None:
            raise DataError(f"{quoted(self.path)} is not there{where_tried(self.path, self.folder)}; check the path")
        if not os.path.isdir(path) and not os.path.isfile(path):  # a device would be read without end
            raise DataError(f"{quoted(self.path)} is neither a file nor a folder; check the path")
        kind = guess_kind(path) if self.kind == "AUTO" else self.kind
        if self.labels and kind != "IDX":
            raise DataError(f"{quoted(self.path)} has its own labels; a file of labels belongs only to an IDX file")
        if kind == "IDX":
            labels = (find_path(self.labels, self.folder) or self.labels) if self.labels else find_labels(path)
            return _idx(path, labels, self.form)
        if kind == "FOLDER":
            return _folder(path, self.form)
        if kind == "LIST":
            return _list(path, self.root_folder, self.folder, self.form)
        if kind == "DATABASE":
            from siamese_proto.data.databases.database import open_database

            return RecordStore(open_database(path), self.form)
        raise DataError(f"{quoted(self.path)} names pairs of images, not classes; give a list of lines 'path label'")


def is_digits(source: str) -> bool:
    """Whether a source names the embedded digits, where there is no file of that name."""
    return source in _DIGITS


def guess_kind(path: str) -> Kind:
    """What kind of source a path is, by its files: never DIGITS, which are no file."""
    from siamese_proto.data.databases.database import guess_backend

    if guess_backend(path):
        return "DATABASE"
    if Path(path).is_dir():
        return "FOLDER"
    if Path(path).suffix.lower() == ".csv":
        return "CSV"
    try:
        with open(path, "rb") as file:
            head = file.read(4)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path) as unpacked:
                head = unpacked.read(4)
    except (OSError, EOFError) as error:
        raise DataError(f"{quoted(path)} cannot be read: {error}; check the file") from error
    if head == _IDX_OF_LABELS:
        raise DataError(f"{quoted(path)} holds labels and no images; give the file of images that belongs to it")
    if head == _IDX_OF_IMAGES or path.endswith((_SUFFIX_OF_IDX, f"{_SUFFIX_OF_IDX}.gz")):
        return "IDX"
    return "LIST" if pair_form(path) is None else "CSV"


def find_labels(images: str) -> str:
    """The file of labels that belongs to an IDX file of images, found by its name; DataError where there is none."""
    folder, name = os.path.split(images)
    wanted = name.replace("images", "labels").replace("idx3", "idx1")
    plain = wanted.removesuffix(".gz")
    names = (wanted, plain, f"{plain}.gz")
    for candidate in names:
        path = os.path.join(folder, candidate)
        if candidate != name and os.path.isfile(path):
            return path
    raise DataError(f"there is no file of labels {quoted(wanted)} beside {quoted(images)}; name it as labels")


def _idx(images: str, labels: str, form: Form) -> ImageStore:
    from siamese_proto.data.images.idx import read_labeled

    pixels, classes = read_labeled(images, labels)
    return _in_memory(os.path.basename(images), pixels, classes, form)


def _digits(source: str, split: Split, form: Form) -> ImageStore:
    import numpy

    from siamese_proto.data.images.digits import load_digits

    if source and source not in _DIGITS:
        raise DataError(f"{quoted(source)} is no part of the embedded digits; write one of {', '.join(_DIGITS)}")
    chosen = _DIGITS.get(source) or split
    parts = dict(zip(("train", "test"), load_digits(), strict=True))
    used = parts.values() if chosen == "all" else [parts[chosen]]
    pixels, classes = (numpy.concatenate(arrays) for arrays in zip(*used, strict=True))
    return _in_memory(f"digits:{chosen}", pixels, classes, form)


def _in_memory(source: str, images: Pixels, classes: NDArray[Any], form: Form) -> ImageStore:
    """Grey images (N, H, W) with their classes."""
    import numpy

    if not len(images):
        raise DataError(f"{quoted(source)} has no images; give a file that has some")
    return ArrayStore(source, form.applied(images[:, None]), classes.astype(numpy.int64), {})


def _folder(root: str, form: Form) -> ImageStore:
    """Every folder below `root` that has images in it is a class; classes are numbered in the order of their names."""
    import numpy

    if not Path(root).is_dir():
        raise DataError(f"{quoted(root)} is not a folder; give one with a sub-folder a class")
    classes: dict[str, list[str]] = {}
    for place, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _leads_back(place, name))
        images = [name for name in files if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES]
        if images and place != root:
            classes[os.path.relpath(place, root)] = [os.path.join(place, name) for name in sorted(images)]
    if not classes:
        raise DataError(f"folder {quoted(root)} has no sub-folders with images; make one a class, with its images")
    names = sorted(classes)
    paths = [path for name in names for path in classes[name]]
    labels = numpy.repeat(numpy.arange(len(names)), [len(classes[name]) for name in names])
    return FileStore(root, paths, labels, dict(enumerate(names)), form, "check the folder")


def _leads_back(place: str, name: str) -> bool:
    """Whether a folder is a link to one on the way to it, below which all would be found again, without end."""
    path = Path(place, name)
    if not path.is_symlink():
        return False
    target = path.resolve()
    ways = (Path(place), *Path(place).parents)
    return any(target == folder or target in folder.parents for folder in map(Path.resolve, ways))


def _list(path: str, root: str, folder: str | None, form: Form) -> ImageStore:
    import numpy

    entries = read_list(path, os.stat(path).st_mtime_ns)
    paths = listed_paths(path, root, [name for name, _ in entries], folder)
    return FileStore(path, paths, numpy.array([label for _, label in entries], numpy.int64), {}, form)


def listed_paths(listed_in: str, root: str, names: Sequence[str], folder: str | None) -> list[str]:
    """The images that a list names: where the first one is, the others are. DataError where it is nowhere."""
    first = root + names[0]
    for beside in ("", os.path.dirname(listed_in), folder or ""):
        if os.path.exists(os.path.join(beside, first)):
            # Joined to an absolute path, a folder before it is dropped.
            return [os.path.join(beside, root + name) for name in names]
    hint = (
        several_labels(first)
        or "give the prefix of all its paths (--root-folder for a command, root_folder in a layer)"
    )
    raise DataError(
        f"image {quoted(first)}, the first of {quoted(listed_in)}, is not there{control_hint(first)}; {hint}"
    )
