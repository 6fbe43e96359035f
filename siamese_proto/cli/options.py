"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable

import click

from siamese_proto.compiler import build_graph
from siamese_proto.errors import NetError, quoted
from siamese_proto.graph.ir import Graph, Phase, Shape
from siamese_proto.layers.python.user_code import register_layers
from siamese_proto.proto.parsed import ParsedNet

PHASES = ("TRAIN", "TEST")
ALL = "ALL"  # both in one drawing


def phase(*choices: str, default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option that says which of the net's phases is meant."""
    kind = click.Choice(choices, case_sensitive=False)
    return click.option("--phase", type=kind, default=default, show_default=True, help="Which of the net's phases.")


def user_layers(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option that registers the user's own layer types before anything else is done."""
    return click.option(
        "--layers",
        metavar="FILE",
        multiple=True,
        expose_value=False,
        is_eager=True,
        callback=_register,
        help="Run this Python file, which registers layer types with @sp.layer, first. Its code runs with your rights: "
        "give files that you trust. Can be repeated.",
    )(command)


def python_layers(command: Callable[..., None]) -> Callable[..., None]:
    """Add the leave to run the code of Python layers."""
    text = "Let the net run the code of its Python layers."
    return click.option("--allow-python-layers", is_flag=True, help=text)(command)


def bad_records(command: Callable[..., None]) -> Callable[..., None]:
    """Add the leave to go on where records cannot be used."""
    text = "Leave out records that cannot be used, and count them; without it the first one ends the run."
    return click.option("--skip-bad-records", is_flag=True, help=text)(command)


def mismatched(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option that skips layers of other shapes when weights are loaded."""
    text = "Leave layers whose shapes differ from those in the weights file as their fillers made them, and list them."
    return click.option("--skip-mismatched", is_flag=True, help=text)(command)


def pair_labels(command: Callable[..., None]) -> Callable[..., None]:
    """Add the option that says what the labels of pairs mean."""
    text = "What labels of pairs mean, as numbers or ranges without their end: same=0.5:,different=:0.5. Else 1 and 0."
    return click.option("--pair-labels", metavar="same=A,different=B", default="", help=text)(command)


def running(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say how a net is computed: compiled or not, and in which numbers."""
    kinds = click.Choice(["fp32", "tf32", "bf16", "fp16"])
    text = "Numbers to compute with; parameters stay fp32. tf32 and fp16 need a GPU."
    precision = click.option("--precision", type=kinds, default="fp32", show_default=True, help=text)
    text = "Let torch.compile make one program of the net: slow to begin, and for one batch size."
    return click.option("--compile", "compiled", is_flag=True, help=text)(precision(command))


def net_state(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which layers of a phase are meant, and what its data look like."""
    shape = click.option(
        "--shape",
        "shapes",
        metavar="BLOB=N,C,H,W",
        multiple=True,
        callback=_shapes,
        help="Shape of an input whose data are not there; can be repeated.",
    )
    return stages_and_level(shape(command))


def stages_and_level(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which layers of a phase are meant, and which types of layers there are besides ours."""
    for option in (
        click.option(
            "--stage", "stages", metavar="A,B", default="", callback=_stages, help="Stages, separated by commas."
        ),
        click.option("--level", type=int, default=0, show_default=True, help="Level of the net."),
        user_layers,
    ):
        command = option(command)
    return command


def graph_to_show(
    parsed: ParsedNet,
    phase: Phase,
    level: int,
    stages: tuple[str, ...],
    shapes: dict[str, Shape],
    *,
    allow_python_layers: bool = False,
) -> Graph:
    """The graph of a net that is to be looked at: what is wrong with its layers is printed, and the rest shown."""

    def tell(problem: NetError) -> None:
        if problem.location is None:
            raise problem  # not a fault of the net's

    graph = build_graph(parsed, phase, level, stages, shapes, allow_python_layers=allow_python_layers, on_problem=tell)
    for problem in graph.problems:
        click.echo(f"warning: {problem}", err=True)
    _show_notes(graph)
    return graph


def graph_to_write(
    parsed: ParsedNet, phase: Phase, level: int, stages: tuple[str, ...], shapes: dict[str, Shape]
) -> Graph:
    """The graph of a net that is to be written in another form, which takes all of it: raises its first problem."""
    graph = build_graph(parsed, phase, level, stages, shapes)
    if graph.problems:
        raise graph.problems[0]
    _show_notes(graph)
    return graph


def _show_notes(graph: Graph) -> None:
    for note in graph.notes:
        click.echo(f"note: {note}; the shapes behind it can be given with --shape BLOB=N,C,H,W", err=True)


def _register(ctx: click.Context, param: click.Parameter, files: tuple[str, ...]) -> None:
    for file in files if not ctx.resilient_parsing else ():
        register_layers(file)


def _stages(ctx: click.Context, param: click.Parameter, text: str) -> tuple[str, ...]:
    return tuple(stage.strip() for stage in text.split(",") if stage.strip())


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
