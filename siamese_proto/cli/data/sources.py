"""What the commands that make pairs and triplets have in common."""

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
        help="What SOURCE is; judged by its files unless given.",
    ),
    click.option("--root-folder", metavar="DIR", default="", help="Where the paths of a list or CSV begin."),
    click.option("--classes", default="", help="Classes to take: labels, ranges without their end, names: 0:30,35."),
    click.option("--exclude-classes", default="", help="Classes to leave out."),
    click.option(
        "--images-per-class", type=click.IntRange(min=0), default=0, metavar="N", help="Images to take of each class."
    ),
    click.option(
        "--skip-per-class", type=click.IntRange(min=0), default=0, metavar="N", help="Images to pass over before them."
    ),
    click.option("--resize-height", type=click.IntRange(min=0), default=0, metavar="N"),
    click.option("--resize-width", type=click.IntRange(min=0), default=0, metavar="N"),
    click.option("--gray/--color", "gray", default=None, help="Bring every image to it; else as the first one is."),
    click.option(
        "--skip-bad-records", is_flag=True, help="Leave out images that cannot be read, and name them; decodes all."
    ),
)


def source_options(command: Command) -> Command:
    """The options that say which images are drawn from."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def size_of(resize_height: int, resize_width: int) -> tuple[int, int]:
    """(height, width) to bring images to; both are given or none."""
    if (resize_height > 0) != (resize_width > 0):
        raise click.UsageError("--resize-height and --resize-width must be given together")
    return resize_height, resize_width


def two_at_most(sources: tuple[str, ...]) -> tuple[str, str]:
    """The source, and the file of labels where one is named."""
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
    """The labeled images that the options choose; those that cannot be read, and lone ones, are told at once."""
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
    """Which images can be read, (N,): all, or else the others are told and left out, or end the command."""
    from siamese_proto.data.images.class_choice import readable

    return readable(images, set() if skip_bad_records else None)


def kind_of(kind: str | None) -> Any:
    """The kind of source that an option names."""
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
    """Draw and write the pairs of one database, and tell of it."""
    from siamese_proto.data.databases.pairs import draw_pairs, write_pairs

    drawn = draw_pairs(classes, count, draw=draw, same_fraction=same_fraction, seed=seed)
    with progress(out, count, "pairs") as tell:
        write_pairs(out, backend_of(backend), images, drawn, overwrite=overwrite, progress=tell)
    same = int(drawn.same.sum())
    click.echo(f"{out}: {count} pairs, {same} same and {count - same} different")
