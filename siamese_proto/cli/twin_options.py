"""Options of the commands that use a trained twin."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from siamese_proto.cli.caffe_flags import chosen_device, flag, split
from siamese_proto.cli.group import section
from siamese_proto.cli.options import NET, RUN, NetOptions, net_options, python_layers
from siamese_proto.graph.comparison import METRICS
from siamese_proto.proto.values import whole_number

if TYPE_CHECKING:
    from siamese_proto.evaluation.twin import Twin

_COMPARISON = ("distance", "features", "inputs", "label", "one_is_same")
_PREPROCESSING = ("scale", "mean_values", "resize")


@dataclass(frozen=True)
class TwinOptions:
    """The values of `twin_options`."""

    model: Path
    weights: tuple[str, ...]
    gpu: str | None
    state: NetOptions
    settings: Mapping[str, Any]  # fields of `TwinSettings`

    def open(self, seed: int = 0) -> Twin:
        """Build the net with its weights; `seed` is that of its data layers."""
        from siamese_proto.evaluation.twin import TwinSettings, load_twin
        from siamese_proto.net.net import Net
        from siamese_proto.proto.reader import parse_net

        device = chosen_device(self.gpu)
        net = Net(parse_net(self.model), "TEST", seed=seed, writes_files=False, **vars(self.state))
        return load_twin(net.to(device), self.weights, TwinSettings(**self.settings))


def twin_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a trained net; the command gets them as one `twin`, a `TwinOptions`."""

    @functools.wraps(command)
    def with_twin(**values: Any) -> None:
        settings = {name: values.pop(name) for name in _COMPARISON + _PREPROCESSING}
        chosen = {name: values.pop(name) for name in ("model", "weights", "gpu", "state")}
        command(twin=TwinOptions(**chosen, settings=settings), **values)

    decorated: Callable[..., None] = with_twin
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def _weights(ctx: click.Context, param: click.Parameter, text: str) -> tuple[str, ...]:
    names = split(text)
    if not names and not ctx.resilient_parsing:
        raise click.BadParameter("no file is named")
    return names


def _size(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and whole_number(height) and whole_number(width)):
        raise click.BadParameter(f"{text!r} is not of the form 100x120, height and width")
    return whole_number(height), whole_number(width)


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    section(
        NET,
        flag("weights", required=True, metavar="A,B", callback=_weights, help="The weights files."),
        net_options(python_layers),
    ),
    section(
        "What the net compares",
        click.option(
            "--distance",
            type=click.Choice([metric.lower() for metric in METRICS], case_sensitive=False),
            callback=lambda ctx, param, text: text.upper() if text else None,
            help="Distance of features.  [default: that of the net's loss]",
        ),
        click.option(
            "--feature", "features", metavar="BLOB", multiple=True, help="Blob of the features; once for each tower."
        ),
        click.option(
            "--input", "inputs", metavar="BLOB", multiple=True, help="Blob that takes the image; once for each feature."
        ),
        click.option("--label", metavar="BLOB", default="", help="Blob with the labels of the pairs."),
        click.option(
            "--same-label",
            "one_is_same",
            type=click.Choice(["0", "1"]),
            callback=lambda ctx, param, text: None if text is None else text == "1",
            help="Label of pairs that are the same.  [default: that of the net's loss]",
        ),
    ),
    section(
        "Preprocessing of images",
        click.option("--scale", type=float, help="Multiply pixels by this number.  [default: that of the data layer]"),
        click.option(
            "--mean-value",
            "mean_values",
            type=float,
            multiple=True,
            help="Subtract this number from pixels first; once for each channel.",
        ),
        click.option(
            "--resize",
            metavar="HxW",
            callback=_size,
            help="Resize images to this height and width, and take a center crop if the net takes less.",
        ),
    ),
    section(RUN, flag("gpu", metavar="ID", show_default="the CPU", help="Run on this GPU.")),
)

seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all random choices."
)
labels_file = click.option("--labels", metavar="FILE", default="", help="Labels of an IDX file of images.")
root_folder = click.option("--root-folder", metavar="PATH", default="", help="Prefix of the paths in a list or CSV.")
class_choice = click.option(
    "--classes", metavar="A,B,C:D", default="", help="Use only these classes: names, numbers, ranges without their end."
)


@contextlib.contextmanager
def progress_bar(title: str) -> Iterator[None]:
    """Show a moving bar on stderr while a block runs, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        bar.add_task(title, total=None)
        yield
