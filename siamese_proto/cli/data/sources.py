"""Helpers that the commands for pairs and triplets share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from siamese_proto.cli.data.options import backend_of, progress

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    from siamese_proto.data.databases.pairs import Draw
    from siamese_proto.data.images.labeled import LabeledImages

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--kind",
        type=click.Choice(["idx", "folder", "list", "csv", "database", "digits"], case_sensitive=False),
        help="Kind of SOURCE.  [default: determined from its files]",
    ),
    click.option(
        "--root-folder", metavar="DIR", default="", help="Folder that paths of a list or CSV are relative to."
    ),
    click.option("--classes", default="", help="Classes to use: labels, half-open ranges or names, such as 0:30,35."),
    click.option("--exclude-classes", default="", help="Classes to leave out."),
    click.option(
        "--images-per-class", type=click.IntRange(min=0), default=0, metavar="N", help="Images to use per class."
    ),
    click.option(
        "--skip-per-class", type=click.IntRange(min=0), default=0, metavar="N", help="Images to skip per class first."
    ),
    click.option("--resize-height", type=click.IntRange(min=0), default=0, metavar="N"),
    click.option("--resize-width", type=click.IntRange(min=0), default=0, metavar="N"),
    click.option("--gray/--color", "gray", default=None, help="Convert all images.  [default: as the first image]"),
    click.option(
        "--skip-bad-records", is_flag=True, help="Skip and report images that cannot be read; decodes all images."
    ),
)


def source_options(command: Command) -> Command:
    """Add the options that choose the images."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def size_of(resize_height: int, resize_width: int) -> tuple[int, int]:
    """Return (height, width) to resize images to. Raises UsageError unless both or neither are set."""
    if (resize_height > 0) != (resize_width > 0):
        raise click.UsageError("--resize-height and --resize-width must be given together")
    return resize_height, resize_width


def two_at_most(sources: tuple[str, ...]) -> tuple[str, str]:
    """Return the source and the label file, which may be empty."""
    if len(sources) > 2:
        raise click.UsageError("give SOURCE and OUT, or IMAGES, LABELS and OUT")
    return sources[0], sources[1] if len(sources) == 2 else ""


def open_source(
    sources: tuple[str, ...],
    *,
    kind: str | None,
    root_folder: str,
    classes: str,
    exclude_classes: str,
    images_per_class: int,
    skip_per_class: int,
    resize_height: int,
    resize_width: int,
    gray: bool | None,
    skip_bad_records: bool,
) -> LabeledImages:
    """Open the labeled images that the options choose. Report unreadable images and classes of one image."""
    from siamese_proto.data.images.class_choice import choose_classes, warn_of_lone_images
    from siamese_proto.data.images.labeled_source import LabeledSource

    source, labels = two_at_most(sources)
    images = LabeledSource(
        source,
        kind_of(kind),
        labels=labels,
        root_folder=root_folder,
        is_color=None if gray is None else not gray,
        new_size=size_of(resize_height, resize_width),
    ).open()
    limits = {"per_class": images_per_class, "skip": skip_per_class}
    images = choose_classes(images, classes, exclude_classes, **limits)
    images = images.selected(good_ones(images, skip_bad_records=skip_bad_records).nonzero()[0])
    warn_of_lone_images(images)
    return images


def good_ones(images: LabeledImages, *, skip_bad_records: bool) -> NDArray[numpy.bool_]:
    """Return which images can be read, (N,). Others raise DataError or, with `skip_bad_records`, are reported."""
    from siamese_proto.data.images.class_choice import readable

    return readable(images, set() if skip_bad_records else None)


def kind_of(kind: str | None) -> Any:
    """Return the kind of source that an option names."""
    return (kind or "auto").upper()


def make_pairs(
    out: str,
    backend: str,
    images: Any,
    classes: Any,
    *,
    count: int,
    draw: Draw,
    same_fraction: float,
    seed: int,
    overwrite: bool,
) -> None:
    """Draw and write the pairs of one database, and print a summary."""
    from siamese_proto.data.databases.pairs import draw_pairs, write_pairs

    drawn = draw_pairs(classes, count, draw=draw, same_fraction=same_fraction, seed=seed)
    with progress(out, count, "pairs") as report_progress:
        write_pairs(out, backend_of(backend), images, drawn, overwrite=overwrite, progress=report_progress)
    same = int(drawn.same.sum())
    click.echo(f"{out}: {count} pairs, {same} same and {count - same} different")
