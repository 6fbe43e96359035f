"""siamese-proto time: how long a net takes, layer by layer and in total."""

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
    PHASES,
    POSITIVE,
    RUN,
    NetOptions,
    net_argument,
    net_options,
    no_fuse,
    output_format,
    phase,
    python_layers,
    running,
)
from siamese_proto.errors import escaped
from siamese_proto.graph.ir import Phase

if TYPE_CHECKING:
    from siamese_proto.solver.profile import NetTime


@click.command(cls=Command)
@net_argument()
@phase(*PHASES, default="TRAIN")
@section(NET, flag("weights", metavar="A,B", help="Weights files, loaded by layer name."))
@net_options(python_layers)
@section(
    RUN,
    flag("iterations", type=POSITIVE, default=50, show_default=True, help="Number of passes to average."),
    flag("gpu", metavar="ID", show_default="the CPU", help="Run on this GPU."),
)
@no_fuse
@running
@output_format("text", "json")
def time(
    model: Path,
    phase: Phase,
    iterations: int,
    weights: str | None,
    gpu: str | None,
    fuse: bool,
    compiled: bool,
    precision: str,
    text_format: str,
    state: NetOptions,
) -> None:
    """Time the forward and backward pass of a net, for each layer and in total.

    The data of the net need not exist: its inputs are random numbers, and labels are 0. No files are written. Layers
    are timed one after the other, so --compile affects only the total.
    """
    from siamese_proto.net.net import Net
    from siamese_proto.proto.reader import parse_net
    from siamese_proto.solver.precision import execution
    from siamese_proto.solver.profile import random_batch, time_net

    device = chosen_device(gpu)
    graph = state.build(parse_net(model), phase)
    batch = random_batch(graph)
    net = Net(
        graph, phase, split(weights), fuse=fuse, allow_python_layers=state.allow_python_layers, writes_files=False
    )
    net.to(device)
    execution(precision, net.device).apply(net, compiled=compiled)
    times = time_net(net, {name: blob.to(net.device) for name, blob in batch.items()}, iterations)
    if text_format == "json":
        click.echo(as_json(times))
    elif sys.stdout.isatty():
        _print_table(times)
    else:
        click.echo("\n".join(caffe_lines(times)))


def caffe_lines(times: NetTime) -> list[str]:
    """Return the lines that `caffe time` logs."""
    lines = ["Average time per layer: "]
    for layer in times.layers:
        lines.append(f"{escaped(layer.name):>10}\tforward: {layer.forward:g} ms.")
        lines.append(f"{escaped(layer.name):>10}\tbackward: {layer.backward:g} ms.")
    return [
        *lines,
        f"Average Forward pass: {times.forward:g} ms.",
        f"Average Backward pass: {times.backward:g} ms.",
        f"Average Forward-Backward: {times.step:g} ms.",
        f"Total Time: {times.step * times.iterations:g} ms.",
    ]


def as_json(times: NetTime) -> str:
    """Return the milliseconds of every layer and of the passes."""
    layers = [vars(layer) for layer in times.layers]
    passes = {"forward": times.forward, "backward": times.backward, "step": times.step}
    return json.dumps({"iterations": times.iterations, **passes, "layers": layers}, indent=2)


def _print_table(times: NetTime) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("layer", "type", title=f"milliseconds, mean of {times.iterations}")
    for head in ("forward", "backward"):
        table.add_column(head, justify="right")
    for layer in times.layers:
        table.add_row(Text(escaped(layer.name)), layer.type, f"{layer.forward:.3f}", f"{layer.backward:.3f}")
    table.add_section()
    table.add_row("whole pass", "", f"{times.forward:.3f}", f"{times.backward:.3f}")
    Console().print(table)
