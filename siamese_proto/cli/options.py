"""Options that several commands share, and the graphs that they build."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

import click

from siamese_proto.cli.caffe_flags import flag, split
from siamese_proto.cli.group import MODEL_OPTION, NetArgument, section
from siamese_proto.compiler import build_graph
from siamese_proto.errors import NetError, quoted
from siamese_proto.graph.build import OnProblem, stop_at_once
from siamese_proto.graph.ir import Graph, Phase, Shape
from siamese_proto.layers.python.user_code import register_layers
from siamese_proto.proto.parsed import ParsedNet

Decorator: TypeAlias = Callable[[Callable[..., None]], Callable[..., None]]

PHASES = ("TRAIN", "TEST")
ALL = "ALL"  # both phases in one drawing
POSITIVE = click.IntRange(min=1)

# Sections of the help that several commands have.
NET, RUN, DATA, OUTPUT = "Which net", "How to run", "Data", "Output"


@dataclass(frozen=True)
class NetOptions:
    """What `net_options` and `python_layers` choose: the arguments of `build_graph` and `Net`."""

    level: int
    stages: tuple[str, ...]
    shapes: dict[str, Shape] = field(default_factory=dict)
    allow_python_layers: bool = False

    def build(self, parsed: ParsedNet, phase: Phase, on_problem: OnProblem = stop_at_once) -> Graph:
        """Build the graph of a net in this state."""
        return build_graph(parsed, phase, **vars(self), on_problem=on_problem)

    def graph_to_show(self, parsed: ParsedNet, phase: Phase) -> Graph:
        """Build the graph of a net for display. Errors in layers become warnings on stderr, and the rest is shown."""

        def on_problem(problem: NetError) -> None:
            if problem.location is None:
                raise problem  # not an error in the net

        graph = self.build(parsed, phase, on_problem)
        for problem in graph.problems:
            click.echo(f"warning: {problem}", err=True)
        _show_notes(graph)
        return graph

    def graph_to_write(self, parsed: ParsedNet, phase: Phase) -> Graph:
        """Build the graph of a net for export. Raises the first error of the net."""
        graph = self.build(parsed, phase)
        if graph.problems:
            raise graph.problems[0]
        _show_notes(graph)
        return graph


def _show_notes(graph: Graph) -> None:
    for note in graph.notes:
        click.echo(f"note: {note}; to set the shape, use --shape BLOB=N,C,H,W", err=True)


def collected(name: str, kind: type, *options: Decorator) -> Decorator:
    """Add options to a command, which gets their values as one argument `name`, a dataclass of type `kind`."""
    names = [field.name for field in fields(kind)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def with_one_argument(**values: Any) -> None:
            collected = {name: values.pop(name) for name in names if name in values}
            command(**{name: kind(**collected)}, **values)

        decorated: Callable[..., None] = with_one_argument
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


def choice(*spellings: str, choices: Sequence[str], **settings: Any) -> Decorator:
    """Return an option with these choices, in upper or lower case; the first one is the default."""
    shown: dict[str, Any] = {"default": choices[0], "show_default": True} | settings
    return click.option(*spellings, type=click.Choice(choices, case_sensitive=False), **shown)


def output_format(*formats: str, text: str | None = None) -> Decorator:
    """Return the option for the format of what a command prints, with its help."""
    return section(OUTPUT, choice("--format", "text_format", choices=formats, help=text))


def net_argument(name: str = "model", *, metavar: str = "NET", **settings: Any) -> Decorator:
    """Return the net's argument, and its alias `--model`. The command needs `cls=Command`."""
    text = f"The net, instead of the argument {metavar.rstrip('.')}."
    alias = flag("model", name=MODEL_OPTION, metavar="FILE", expose_value=False, help=text)
    argument = click.argument(name, cls=NetArgument, metavar=metavar, type=click.Path(path_type=Path), **settings)
    return lambda command: argument(section(NET, alias)(command))


def phase(*choices: str, default: str) -> Decorator:
    """Return the option for the net's phase."""
    return section(NET, choice("--phase", choices=choices, default=default, help="Phase of the net."))


def _register(ctx: click.Context, param: click.Parameter, files: tuple[str, ...]) -> None:
    for file in files if not ctx.resilient_parsing else ():
        register_layers(file)


def _shapes(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, Shape]:
    shapes = {}
    for text in texts:
        name, _, sizes = text.rpartition("=")  # names may hold a `=`
        try:
            shape = tuple(int(size) for size in sizes.split(",")) if sizes.strip() else ()
        except ValueError:
            name, shape = "", ()
        if not name or any(size < 0 for size in shape):
            raise click.BadParameter(f"{quoted(text)} is not of the form pair_data=64,2,28,28")
        shapes[name] = shape
    return shapes


user_layers = section(
    NET,
    click.option(
        "--layers",
        metavar="FILE",
        multiple=True,
        expose_value=False,
        is_eager=True,
        callback=_register,
        help="First run this Python file, which registers custom layer types with @sp.layer. Its code runs with your "
        "rights, so use only files that you trust. Can be repeated.",
    ),
)
python_layers = section(
    NET, click.option("--allow-python-layers", is_flag=True, help="Allow the net to run the code of its Python layers.")
)
_STATE = (
    click.option(
        "--stage",
        "stages",
        metavar="A,B",
        default="",
        callback=lambda ctx, param, text: split(text),
        help="Stages for the include rules of layers.",
    ),
    click.option("--level", type=int, default=0, show_default=True, help="Level for the include rules of layers."),
    user_layers,
    click.option(
        "--shape",
        "shapes",
        metavar="BLOB=N,C,H,W",
        multiple=True,
        callback=_shapes,
        help="Shape of an input blob whose data is missing. Can be repeated.",
    ),
)


def net_options(*others: Decorator) -> Decorator:
    """Return the options of `NetOptions` (and `others`, such as `python_layers`); the command gets them as `state`."""
    return collected("state", NetOptions, section(NET, *_STATE), *others)


running = section(
    RUN,
    click.option("--compile", "compiled", is_flag=True, help="Use torch.compile: slow to start, for one batch size."),
    choice(
        "--precision",
        choices=["fp32", "tf32", "bf16", "fp16"],
        help="Number format of the computation; parameters stay fp32. tf32 and fp16 need a GPU.",
    ),
)
no_fuse = section(
    RUN,
    click.option(
        "--no-fuse",
        "fuse",
        is_flag=True,
        flag_value=False,
        default=True,
        help="Run every layer as written, and twin branches one by one.",
    ),
)
log_file = section(
    OUTPUT,
    click.option("--log", "log_file", metavar="FILE", help="Append the log lines, with Caffe's prefix, to this file."),
)
bad_records = section(
    DATA,
    click.option(
        "--skip-bad-records",
        is_flag=True,
        help="Skip and count records that cannot be used. Without it, the first one ends the run.",
    ),
)
mismatched = section(
    DATA,
    click.option(
        "--skip-mismatched",
        is_flag=True,
        help="Skip layers whose shapes differ from the weights file; they keep the values of their fillers.",
    ),
)
pair_labels = section(
    DATA,
    click.option(
        "--pair-labels",
        metavar="same=A,different=B",
        default="",
        show_default="same=1,different=0",
        help="Meaning of pair labels, as numbers or as ranges without their end: same=0.5:,different=:0.5.",
    ),
)
