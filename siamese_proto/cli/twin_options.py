"""What the commands that use a trained twin have in common: the options that say which, and how far they are."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from siamese_proto.cli.caffe_flags import chosen_device, flag, split
from siamese_proto.cli.options import net_state, python_layers
from siamese_proto.graph.comparison import METRICS
from siamese_proto.graph.ir import Shape
from siamese_proto.proto.values import whole_number

if TYPE_CHECKING:
    from siamese_proto.evaluation.report import Subject
    from siamese_proto.evaluation.twin import Twin

_SIZE = "HxW"


@dataclass(frozen=True)
class TwinOptions:
    """What was said of the net to use; see `twin_options`."""

    model: str
    weights: tuple[str, ...]
    features: tuple[str, ...]
    inputs: tuple[str, ...]
    label: str
    same_label: str | None
    distance: str | None
    scale: float | None
    mean_values: tuple[float, ...]
    resize: tuple[int, int] | None
    gpu: str | None
    level: int
    stages: tuple[str, ...]
    shapes: dict[str, Shape]
    allow_python_layers: bool

    def open(self, seed: int = 0) -> Twin:
        """Make the net, with its weights; `seed` settles what its data layers draw."""
        from siamese_proto.evaluation.twin import Choice, open_twin
        from siamese_proto.proto.reader import parse_net

        choice = Choice(
            self.features,
            self.inputs,
            self.label,
            next((metric for metric in METRICS if metric.lower() == (self.distance or "")), None),
            None if self.same_label is None else self.same_label == "1",
            self.scale,
            self.mean_values,
            self.resize,
        )
        return open_twin(
            parse_net(Path(self.model)),
            self.weights,
            choice,
            level=self.level,
            stages=self.stages,
            shapes=self.shapes,
            allow_python_layers=self.allow_python_layers,
            device=chosen_device(self.gpu),
            seed=seed,
        )

    def subject(self, twin: Twin, images: str = "") -> Subject:
        """What is judged or used, to be written down."""
        from siamese_proto.evaluation.report import Subject, digest_of

        features = tuple(blob.name for blob in twin.comparison.features)
        return Subject(self.model, self.weights, digest_of(self.weights), twin.metric.kind, features, images)


def twin_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a trained net; the command gets them as one `twin`, a `TwinOptions`."""

    @functools.wraps(command)
    def gathered(**given: Any) -> None:
        said = {name: given.pop(name) for name in TwinOptions.__dataclass_fields__}
        command(twin=TwinOptions(**said), **given)

    decorated: Callable[..., None] = gathered
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _weights(ctx: click.Context, param: click.Parameter, text: str) -> tuple[str, ...]:
    names = split(text)
    if not names and not ctx.resilient_parsing:
        raise click.BadParameter("no file is named")
    return names


def _lower(ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
    return text.lower() if text else None


def _size(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and whole_number(height) and whole_number(width)):
        raise click.BadParameter(f"{text!r} is not of the form 100x120, height and width")
    return whole_number(height), whole_number(width)


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    flag("model", required=True, metavar="FILE", help="The net: one that trains, or one tower of it."),
    flag("weights", required=True, metavar="A,B", callback=_weights, help="The weights files."),
    click.option(
        "--distance",
        type=click.Choice([metric.lower() for metric in METRICS], case_sensitive=False),
        callback=_lower,
        help="How far features are apart; as the net's loss has it unless given.",
    ),
    click.option("--feature", "features", metavar="BLOB", multiple=True, help="The feature; once for each tower."),
    click.option("--input", "inputs", metavar="BLOB", multiple=True, help="What takes the image; once a feature."),
    click.option("--label", metavar="BLOB", default="", help="The blob that tells of each pair whether it is alike."),
    click.option(
        "--same-label", type=click.Choice(["0", "1"]), help="The label of pairs that are alike; as the loss has it."
    ),
    click.option("--scale", type=float, help="Multiply pixels by this, as training did; as the data layer has it."),
    click.option(
        "--mean-value",
        "mean_values",
        type=float,
        multiple=True,
        help="Subtract this from pixels first; once a channel.",
    ),
    click.option(
        "--resize", metavar=_SIZE, callback=_size, help="Bring images to this size, and take the middle of that."
    ),
    flag("gpu", metavar="ID", help="Run on this GPU."),
    net_state,
    python_layers,
)

output_format = click.option(
    "--format",
    "text_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="For people, or one JSON object.",
)
same_seed = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is drawn.")
labels_file = click.option("--labels", metavar="FILE", default="", help="The labels of an IDX file of images.")
root_folder = click.option("--root-folder", metavar="PATH", default="", help="Put before the paths of a list or CSV.")
chosen_classes = click.option(
    "--classes", metavar="A,B,C:D", default="", help="Of labelled images only these classes: names, numbers, ranges."
)


@contextlib.contextmanager
def waiting(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr where that is a terminal; what is given is called with the number done so far."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
