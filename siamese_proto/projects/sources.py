"""The images that a user wants to train or test on, checked before a project is written."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from siamese_proto.data.databases.database import guess_backend, open_database
from siamese_proto.data.databases.store import Backend
from siamese_proto.data.images.class_choice import choose_classes
from siamese_proto.data.images.image_list import read_list
from siamese_proto.data.images.labeled import LabeledImages
from siamese_proto.data.images.labeled_source import Kind, LabeledSource, guess_kind, is_digits
from siamese_proto.data.images.pair_list import read_rows
from siamese_proto.errors import DataError, quoted
from siamese_proto.files import find_path

_TRAIN_SHARE = 0.75  # of the classes, if one source is for training and test
_FEWEST = 2  # classes in each of the two parts: images of one class make no pair of different ones


@dataclass(frozen=True)
class ImageSource:
    """A source of images, and how a data layer reads it."""

    path: str  # as the user specified it
    kind: Kind | Literal["PAIRS", "MISSING"]  # PAIRS: a database of pairs; MISSING: it does not exist yet
    classes: str = ""  # the classes to use; "": all
    root_folder: str = ""  # prefix of the paths in a list; absolute, or relative to the list
    backend: Backend | None = None
    text: str = ""  # description of the content

    @property
    def is_path(self) -> bool:
        """Whether the source is a file or a folder that exists."""
        return self.kind not in ("DIGITS", "MISSING")

    def open(self) -> LabeledImages:
        """Open the images; those of a database of pairs are its records."""
        kind: Kind = "AUTO" if self.kind == "PAIRS" or self.kind == "MISSING" else self.kind
        return LabeledSource(self.path, kind, root_folder=self.root_folder).open()

    def with_classes(self, classes: str = "") -> ImageSource:
        """Return the source restricted to some classes, with a description. Raises DataError for unknown classes."""
        with self.open() as images:
            chosen = choose_classes(images, classes)
            count = len(set(chosen.labels.tolist()))
            text = f"{len(chosen):,} images of {count:,} class{'es' if count > 1 else ''}"
        return replace(self, classes=classes, text=f"{text} ({classes})" if classes else text)


def find_source(path: str, own_root: str = "") -> ImageSource:
    """Determine what a source is and contains.

    Args:
        path: A file or folder, or `digits`.
        own_root: A root_folder to try for the paths in a list.

    Raises:
        DataError: the source cannot be read.
    """
    if not os.path.exists(path):
        return ImageSource(path, "DIGITS").with_classes() if is_digits(path) else ImageSource(path, "MISSING")
    source = ImageSource(path, guess_kind(path), backend=guess_backend(path))
    if source.kind == "CSV":
        rows = read_rows(path)
        return replace(source, root_folder=_root_folder(path, rows[0][0], own_root), text=f"{len(rows):,} pairs")
    if source.kind == "LIST":
        first, _ = read_list(path, os.stat(path).st_mtime_ns)[0]
        return replace(source, root_folder=_root_folder(path, first, own_root)).with_classes()
    if source.kind == "DATABASE":
        with source.open() as records:
            channels = records.shape[0]
        if channels not in (1, 3):
            with open_database(path, source.backend) as database:
                text = f"{database.count():,} records of {channels} channels"
            return replace(source, kind="PAIRS", text=text)
    return source.with_classes()


def _root_folder(path: str, first: str, own_root: str) -> str:
    """The prefix for the paths in a list with which its images are found, from the folder of the project too."""
    folder = os.path.dirname(path)
    for root in dict.fromkeys(("", own_root)):
        if os.path.exists(os.path.join(folder, root + first)):
            return root
    if find_path(first, None):
        return f"{Path.cwd()}{os.sep}"
    raise DataError(
        f"{quoted(path)} names the image {quoted(first)}, which is neither in the folder of that file nor in the "
        "working directory; check the paths"
    )


def split_by_class(source: ImageSource) -> tuple[ImageSource, ImageSource]:
    """Split a source into most classes, for training, and the others. Raises DataError for too few classes."""
    if source.kind in ("CSV", "PAIRS"):
        raise DataError(f"{quoted(source.path)} has pairs, which cannot be split by class; give --test too")
    with source.open() as images:
        labels = sorted(set(images.labels.tolist()))
    if len(labels) < 2 * _FEWEST:
        raise DataError(
            f"{quoted(source.path)} has {len(labels)} classes: expected at least {2 * _FEWEST}, so that training and "
            "test have different classes; give --test too"
        )
    cut = labels[min(max(round(_TRAIN_SHARE * len(labels)), _FEWEST), len(labels) - _FEWEST)]
    return source.with_classes(f"{labels[0]}:{cut}"), source.with_classes(f"{cut}:")
