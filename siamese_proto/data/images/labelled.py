"""Open labelled images of every kind people have them in.

with open_labelled("faces") as images:  # a folder with one sub-folder a class
    image, label = images.image(7), images.labels[7]
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from siamese_proto.data.databases.datum import Size
from siamese_proto.data.images.image_stores import ArrayStore, FileStore, Form, ImageStore, RecordStore
from siamese_proto.data.images.pair_lines import SUFFIXES, pair_form
from siamese_proto.errors import DataError, quoted
from siamese_proto.files import control_hint, find_path, where_tried

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from siamese_proto.data.databases.datum import Pixels
    from siamese_proto.data.images.image_stores import Labels

Kind = Literal["AUTO", "IDX", "FOLDER", "LIST", "CSV", "DATABASE", "DIGITS"]
Split = Literal["all", "train", "test"]
_DIGITS = {"digits": None, "digits:all": "all", "digits:train": "train", "digits:test": "test"}
_IDX_OF_IMAGES, _IDX_OF_LABELS = bytes((0, 0, 8, 3)), bytes((0, 0, 8, 1))
_SUFFIX_OF_IDX = "-ubyte"  # of MNIST's files, so that one which is damaged at its beginning is not taken for a list


class LabelledImages:
    """Images with a class each; any of them can be read at any time, from several threads at once.

    `labels` are the classes as the source numbers them, (N,) int64; `names` tell images apart in messages;
    `class_names` has a name for each label where the source has names (the sub-folders of a folder).
    """

    def __init__(self, store: ImageStore, rows: NDArray[Any] | None = None) -> None:
        self._store = store
        self._rows = rows
        self.source = store.source
        self.class_names: Mapping[int, str] = store.class_names

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def labels(self) -> Labels:
        """(N,) int64."""
        labels = self._store.labels()
        return labels if self._rows is None else labels[self._rows]

    @cached_property
    def names(self) -> Sequence[str]:
        """A path, the key of a record, or `file[number]`, for each image."""
        names = self._store.names()
        return names if self._rows is None else [names[row] for row in self._rows.tolist()]

    @property
    def shape(self) -> Size:
        """(C, H, W) of the source's first image; the others may differ where no size is asked for."""
        return self._store.size

    @property
    def in_memory(self) -> bool:
        """Whether images are at hand as arrays, with nothing to read or decode."""
        return isinstance(self._store, ArrayStore)

    def image(self, index: int) -> Pixels:
        """(C, H, W), uint8 or float32; grey, or blue, green, red. DataError with its name if it cannot be read."""
        return self._store.read(index if self._rows is None else int(self._rows[index]))

    def images(self, indices: NDArray[Any]) -> Pixels | list[Pixels]:
        """Several images: one array (n, C, H, W) where they lie in memory, else a list of (C, H, W)."""
        return self._store.read_many(indices if self._rows is None else self._rows[indices])

    def selected(self, indices: NDArray[Any]) -> LabelledImages:
        """Some of the images, in this order; they share their source with these."""
        return LabelledImages(self._store, indices if self._rows is None else self._rows[indices])

    def name_of_class(self, label: int) -> str:
        """The class's name, or its number."""
        return self.class_names.get(label, str(label))

    def unreadable(self, *, decoding: bool = False) -> dict[int, DataError]:
        """The images that cannot be read, by index: headers are read, and files whose end looks cut are decoded.

        `decoding` decodes all of them, which finds what is damaged in its middle too.
        """
        from concurrent.futures import ThreadPoolExecutor

        rows = range(len(self)) if self._rows is None else self._rows.tolist()
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            problems = threads.map(partial(self._problem, decoding=decoding and not self.in_memory), rows)
            return {index: problem for index, problem in enumerate(problems) if problem is not None}

    def problem(self, index: int) -> DataError | None:
        """Why an image cannot be read, as far as that is known without decoding it."""
        return self._problem(index if self._rows is None else int(self._rows[index]), decoding=False)

    def _problem(self, row: int, *, decoding: bool) -> DataError | None:
        try:
            if decoding:
                self._store.read(row)
            else:
                self._store.check(row)
        except DataError as error:
            return error
        return None

    def close(self) -> None:
        """Give files back; a second call does nothing."""
        self._store.close()

    def __enter__(self) -> LabelledImages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_labelled(
    source: str,
    kind: Kind = "AUTO",
    *,
    labels: str = "",
    root_folder: str = "",
    folder: str | None = None,
    split: Split = "all",
    is_color: bool | None = None,
    new_size: tuple[int, int] = (0, 0),
) -> LabelledImages:
    """Open labelled images; raises DataError where they are not there or not what `kind` says.

    `source` is an IDX file of images (`labels` beside it is found by its name, or given), a folder with one sub-folder
    a class, a list of lines `path label`, a labelled LMDB or LevelDB, or `digits`, the handwritten ones that come with
    the package: `split`, or the endings `:train` and `:test`, then chooses between two parts that share no image. Paths
    in a list begin with `root_folder` and are tried from the working directory, the list's folder and `folder`, the
    source itself from the working directory and from `folder`. Every image is brought to colour or grey (`is_color`;
    None: as the first one is) and to `new_size`, (height, width), where that is given, bilinearly.
    """
    form = Form(is_color, new_size)
    found = find_path(source, folder)
    if kind == "DIGITS" or (kind == "AUTO" and found is None and is_digits(source)):
        return LabelledImages(_digits(source, split, form))
    if found is None:
        raise DataError(f"{quoted(source)} is not there{where_tried(source, folder)}; check the path")
    if not os.path.isdir(found) and not os.path.isfile(found):  # a device would be read without end
        raise DataError(f"{quoted(source)} is neither a file nor a folder; check the path")
    kind = guess_kind(found) if kind == "AUTO" else kind
    if labels and kind != "IDX":
        raise DataError(f"{quoted(source)} has labels of its own; a file of them belongs to IDX files of images alone")
    if kind == "IDX":
        return LabelledImages(
            _idx(found, (find_path(labels, folder) or labels) if labels else labels_beside(found), form)
        )
    if kind == "FOLDER":
        return LabelledImages(_folder(found, form))
    if kind == "LIST":
        return LabelledImages(_list(found, root_folder, folder, form))
    if kind == "DATABASE":
        from siamese_proto.data.databases.database import open_database

        return LabelledImages(RecordStore(open_database(found), form))
    raise DataError(f"{quoted(source)} names pairs of images, not classes; give a list with 'path label' a line")


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


def labels_beside(images: str) -> str:
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
    from siamese_proto.data.images.idx import read_labelled

    pixels, classes = read_labelled(images, labels)
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

    from siamese_proto.data.layers.image_data import read_list

    entries = read_list(path, os.stat(path).st_mtime_ns)
    paths = listed_paths(path, root, [name for name, _ in entries], folder)
    return FileStore(path, paths, numpy.array([label for _, label in entries], numpy.int64), {}, form)


def listed_paths(listed_in: str, root: str, names: Sequence[str], folder: str | None) -> list[str]:
    """The images that a list names: where the first one is, the others are. DataError where it is nowhere."""
    from siamese_proto.data.layers.image_data import several_labels

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
