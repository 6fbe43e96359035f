"""Choose classes, and how many images of each: 30 people for training, 10 others for testing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from siamese_proto.data.images.labeled import LabeledImages
from siamese_proto.errors import DataError, did_you_mean, quoted
from siamese_proto.proto.values import whole_number

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

_log = logging.getLogger(__name__)
_NAMED = 10  # at most, where many could be named


def choose_classes(
    images: LabeledImages, classes: str = "", exclude: str = "", *, per_class: int = 0, skip: int = 0
) -> LabeledImages:
    """Some classes, and some images of each.

    `classes` are to be kept (empty: all) and those of `exclude` are not: labels, names of classes, and ranges of labels
    without their end, separated by commas: `0:30`, `3,7,12:`, `anna,bert`. Of each class the first `skip` images are
    passed over and `per_class` (0: all) of the others taken. Raises DataError where nothing is left, and for a label or
    a name that no image has.
    """
    import numpy

    labels = images.labels
    if not len(labels):
        raise DataError(f"{quoted(images.source)} has no images")
    kept = named_classes(classes, labels, images.class_names) if classes else numpy.ones(len(labels), numpy.bool_)
    if exclude:
        kept &= ~named_classes(exclude, labels, images.class_names)
    if per_class or skip:
        place = _places_in_class(labels)
        kept &= (place >= skip) & (place < skip + (per_class or len(labels)))
    if not kept.any():
        raise DataError(f"no image of {quoted(images.source)} is left by the choice of classes; choose others")
    return images if kept.all() else images.selected(numpy.flatnonzero(kept))


def named_classes(text: str, labels: NDArray[numpy.int64], names: Mapping[int, str]) -> NDArray[numpy.bool_]:
    """Which images are of the classes that a text names, (N,); DataError for one that no image has."""
    import numpy

    chosen = numpy.zeros(len(labels), numpy.bool_)
    by_name = {name: label for label, name in names.items()}
    for item in filter(None, map(str.strip, text.split(","))):
        begin, colon, end = item.partition(":")
        if item in by_name:
            found = labels == by_name[item]
        elif colon and _is_number(begin, empty=True) and _is_number(end, empty=True):
            first = whole_number(begin) if begin else labels.min()
            behind = whole_number(end) if end else labels.max() + 1
            found = (labels >= first) & (labels < behind)
        elif _is_number(item, empty=False):
            found = labels == whole_number(item)
        else:
            raise DataError(f"there is no class {quoted(item)}{did_you_mean(item, by_name)}")
        if not found.any():
            raise DataError(f"no image has a class of {quoted(item)}; they go from {labels.min()} to {labels.max()}")
        chosen |= found
    return chosen


def warn_of_lone_images(images: LabeledImages, layer: str | None = None) -> None:
    """Log the classes that have one image, which nothing can be alike to, with the names of these images."""
    import numpy

    _, first, counts = numpy.unique(images.labels, return_index=True, return_counts=True)
    lone = first[counts == 1].tolist()
    if lone:
        named = [f"{quoted(images.names[index])} of {_class_of(images, index)}" for index in lone[:_NAMED]]
        more = f" and {len(lone) - _NAMED} more" if len(lone) > _NAMED else ""
        _log.warning(
            "%s%d of %d classes have one image, which no other is alike to: %s%s",
            *(f"layer {quoted(layer)}: " if layer else "", len(lone), len(first), ", ".join(named), more),
        )


def readable(images: LabeledImages, left_out: set[str] | None = None) -> NDArray[numpy.bool_]:
    """Which images can be read, (N,).

    Where bad ones may be left out, all are decoded, and the names of the bad ones are logged and added to `left_out`;
    else, and where none is good, they are named in a DataError.
    """
    import numpy

    problems = images.unreadable(decoding=left_out is not None)
    good = numpy.ones(len(images), numpy.bool_)
    good[list(problems)] = False
    if problems and (left_out is None or not good.any()):
        if len(problems) == 1:
            raise problems.popitem()[1]
        told = list_problems(list(problems.values()))
        raise DataError(f"{len(problems)} images of {quoted(images.source)} cannot be read: {told}")
    if problems and left_out is not None:
        left_out.update(images.names[index] for index in problems)
        _log.warning(
            "left out %d images of %s: %s", len(problems), images.source, list_problems(list(problems.values()))
        )
    return good


def list_problems(problems: Sequence[DataError]) -> str:
    """The first problems with images, for one line of a message."""
    told = [problem.message.replace(" cannot be read:", ":", 1) for problem in problems[:_NAMED]]
    return "; ".join(told) + (f"; and {len(problems) - _NAMED} more" if len(problems) > _NAMED else "")


def _class_of(images: LabeledImages, index: int) -> str:
    label = int(images.labels[index])
    return f"class {quoted(images.class_names[label]) if label in images.class_names else label}"


def _places_in_class(labels: NDArray[numpy.int64]) -> NDArray[numpy.int64]:
    """How many images of its class come before each image, (N,)."""
    import numpy

    order = numpy.argsort(labels, kind="stable")
    _, begins, counts = numpy.unique(labels[order], return_index=True, return_counts=True)
    places = numpy.empty(len(labels), numpy.int64)
    places[order] = numpy.arange(len(labels)) - numpy.repeat(begins, counts)
    return places


def _is_number(text: str, *, empty: bool) -> bool:
    return text.strip().removeprefix("-").isdecimal() or (empty and not text.strip())
