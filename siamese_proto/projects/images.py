"""The images that a user wants to train or test on, checked before a project is written."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from siamese_proto.data.databases.database import guess_backend, open_database
from siamese_proto.data.databases.store import Backend
from siamese_proto.data.images.class_choice import choose_classes
from siamese_proto.data.images.labelled import Kind, guess_kind, is_digits, open_labelled
from siamese_proto.data.images.pair_list import read_rows
from siamese_proto.data.layers.image_data import read_list
from siamese_proto.errors import DataError, quoted
from siamese_proto.files import find_path

if TYPE_CHECKING:
    from siamese_proto.data.images.labelled import LabelledImages

_SHARE = 0.75  # of the classes for training, where one source is for training and for the test
_FEWEST = 2  # classes in each of the two parts: images of one class make no pair of different ones


@dataclass(frozen=True)
class Images:
    """A source of images, and how a data layer is to read it."""

    path: str  # as it was given
    kind: Kind | Literal["PAIRS", "MISSING"]  # PAIRS: a database of pairs; MISSING: not there yet
    classes: str = ""  # the classes to use; "": all
    root_folder: str = ""  # goes before the names in a list; an absolute path, or relative to the list
    backend: Backend | None = None
    text: str = ""  # what there is, in words

    @property
    def is_path(self) -> bool:
        """Whether the source is a file or a folder that exists."""
        return self.kind not in ("DIGITS", "MISSING")


def look_at(path: str, own_root: str = "") -> Images:
    """What a source is and holds. `own_root` is a root_folder to try for the names in a list.

    Raises DataError where the source cannot be read.
    """
    if not os.path.exists(path):
        return _of_classes(Images(path, "DIGITS")) if is_digits(path) else Images(path, "MISSING")
    kind = guess_kind(path)
    if kind == "CSV":
        rows = read_rows(path)
        root = _root_folder(path, rows[0][0], own_root)
        return Images(path, "CSV", root_folder=root, text=f"{len(rows):,} pairs")
    if kind == "LIST":
        names = [name for name, _ in read_list(path, os.stat(path).st_mtime_ns)]
        return _of_classes(Images(path, "LIST", root_folder=_root_folder(path, names[0], own_root)))
    if kind == "DATABASE":
        return _of_database(path)
    return _of_classes(Images(path, kind))


def split_by_class(images: Images) -> tuple[Images, Images]:
    """The same source twice: most classes for training, the others for the test. Raises DataError for too few."""
    if images.kind in ("CSV", "PAIRS"):
        raise DataError(f"{quoted(images.path)} names pairs, of which none can be set aside by class; give --test too")
    with _open(images) as opened:
        labels = sorted(set(opened.labels.tolist()))
    if len(labels) < 2 * _FEWEST:
        raise DataError(
            f"{quoted(images.path)} has {len(labels)} classes: expected at least {2 * _FEWEST}, so that training and "
            "test have classes of their own; give --test too"
        )
    cut = labels[min(max(round(_SHARE * len(labels)), _FEWEST), len(labels) - _FEWEST)]
    parts = replace(images, classes=f"{labels[0]}:{cut}"), replace(images, classes=f"{cut}:")
    return _of_classes(parts[0]), _of_classes(parts[1])


def _open(images: Images) -> LabelledImages:
    kind: Kind = "AUTO" if images.kind == "PAIRS" or images.kind == "MISSING" else images.kind
    return open_labelled(images.path, kind, root_folder=images.root_folder)


def _of_classes(images: Images) -> Images:
    with _open(images) as opened:
        chosen = choose_classes(opened, images.classes)
        count = len(set(chosen.labels.tolist()))
        text = f"{len(chosen):,} images of {count:,} class{'es' if count > 1 else ''}"
    return replace(images, text=text + (f" ({images.classes})" if images.classes else ""))


def _of_database(path: str) -> Images:
    backend = guess_backend(path)
    images = Images(path, "DATABASE", backend=backend)
    with _open(images) as opened:
        channels = opened.shape[0]
    if channels in (1, 3):
        return _of_classes(images)
    with open_database(path, backend) as database:
        return replace(images, kind="PAIRS", text=f"{database.count():,} records of {channels} channels")


def _root_folder(path: str, first: str, own_root: str) -> str:
    """What goes before the names in a list, so that they are found from the project's folder too."""
    folder = os.path.dirname(path)
    for root in dict.fromkeys(("", own_root)):
        if os.path.exists(os.path.join(folder, root + first)):
            return root
    if find_path(first, None):
        return f"{Path.cwd()}{os.sep}"
    raise DataError(
        f"{quoted(path)} names the image {quoted(first)}, which is neither in the folder of that file nor in the "
        "working directory; check the names"
    )
