"""siamese-proto time: how long a net takes, layer by layer and as a whole."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from siamese_proto.cli.caffe_flags import chosen_device, flag, split
from siamese_proto.cli.group import Command, section
from siamese_proto.cli.options import (
    NET,
    OUTPUT,
    PHASES,
    RUN,
    net_argument,
    net_state,
    phase,
    python_layers,
    running,
)
from siamese_proto.errors import escaped
from siamese_proto.graph.ir import Phase, Shape

if TYPE_CHECKING:
    from siamese_proto.solver.profile import NetTime


@click.command(cls=Command)
@net_argument(type=str)
@phase(*PHASES, default="TRAIN")
@section(
    RUN,
    flag("iterations", type=click.IntRange(min=1), default=50, show_default=True, help="Passes to take the mean of."),
    flag("gpu", metavar="ID", help="Run on this GPU."),
    click.option("--no-fuse", is_flag=True, help="Run every layer as it is written, twin branches one by one."),
)
@section(
    NET,
    flag("weights", metavar="A,B", help="Weights files, copied by layer name."),
)
@running
@section(
    OUTPUT,
    click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True),
)
@net_state
@python_layers
def time(
    model: str,
    phase: Phase,
    iterations: int,
    weights: str | None,
    gpu: str | None,
    no_fuse: bool,
    compiled: bool,
    precision: str,
    form: str,
    level: int,
    stages: tuple[str, ...],
    shapes: dict[str, Shape],
    allow_python_layers: bool,
) -> None:
    """Time a net forward and backward, each layer by itself and the passes as they are run.

    The net's data need not exist: it is fed random numbers, and labels 0. Nothing is written. Layers are timed one
    after the other, so that --compile changes the passes alone.
    """
    from siamese_proto.compiler import build_graph
    from siamese_proto.net.net import Net
    from siamese_proto.proto.reader import parse_net
    from siamese_proto.solver.precision import execution
    from siamese_proto.solver.profile import made_up_batch, time_net

    device = chosen_device(gpu)
    allowed = allow_python_layers
    graph = build_graph(parse_net(Path(model)), phase, level, stages, shapes, allow_python_layers=allowed)
    batch = made_up_batch(graph)
    net = Net(graph, phase, split(weights), fuse=not no_fuse, allow_python_layers=allowed, writes_files=False)
    net.to(device)
    execution(precision, net.device).apply(net, compiled=compiled)
    found = time_net(net, {name: blob.to(net.device) for name, blob in batch.items()}, iterations)
    if form == "json":
        click.echo(as_json(found))
    elif sys.stdout.isatty():
        _print_table(found)
    else:
        click.echo("\n".join(caffe_lines(found)))


def caffe_lines(found: NetTime) -> list[str]:
    """The lines that `caffe time` logs."""
    lines = ["Average time per layer: "]
    for layer in found.layers:
        lines.append(f"{escaped(layer.name):>10}\tforward: {layer.forward:g} ms.")
        lines.append(f"{escaped(layer.name):>10}\tbackward: {layer.backward:g} ms.")
    return [
        *lines,
        f"Average Forward pass: {found.forward:g} ms.",
        f"Average Backward pass: {found.backward:g} ms.",
        f"Average Forward-Backward: {found.step:g} ms.",
        f"Total Time: {found.step * found.iterations:g} ms.",
    ]


def as_json(found: NetTime) -> str:
    """Milliseconds of every layer and of the passes."""
    layers = [vars(layer) for layer in found.layers]
    passes = {"forward": found.forward, "backward": found.backward, "step": found.step}
    return json.dumps({"iterations": found.iterations, **passes, "layers": layers}, indent=2)


def _print_table(found: NetTime) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table("layer", "type", title=f"milliseconds, mean of {found.iterations}")
    for head in ("forward", "backward"):
        shown.add_column(head, justify="right")
    for layer in found.layers:
        shown.add_row(Text(escaped(layer.name)), layer.type, f"{layer.forward:.3f}", f"{layer.backward:.3f}")
    shown.add_section()
    shown.add_row("whole pass", "", f"{found.forward:.3f}", f"{found.backward:.3f}")
    Console().print(shown)
