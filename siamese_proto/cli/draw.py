"""siamese-proto draw: draw a net."""

from pathlib import Path
from typing import Any

import click

from siamese_proto.cli.group import Command, section
from siamese_proto.cli.options import (
    ALL,
    OUTPUT,
    PHASES,
    NetOptions,
    choice,
    net_argument,
    net_options,
    phase,
    python_layers,
)
from siamese_proto.export import drawing
from siamese_proto.passes.fuse_towers import fuse_towers
from siamese_proto.proto.reader import parse_net


@click.command(cls=Command)
@net_argument()
@click.argument("out", type=click.Path(), required=False)
@section(
    OUTPUT,
    click.option("--html", type=click.Path(), metavar="FILE", help="Write an interactive page to this file."),
)
@phase(*PHASES, ALL, default="TRAIN")
@net_options(python_layers)
@section(
    "Appearance",
    choice(
        "--rankdir",
        choices=["TB", "BT", "LR", "RL"],
        help="Direction from data to loss: top to bottom, left to right, ...",
    ),
    choice(
        "--style",
        choices=list(drawing.STYLES),
        help="Colors and fonts: ours, those of Caffe's draw_net, for print, for dark pages.",
    ),
    choice(
        "--detail",
        choices=["layers", "blobs", "full"],
        default="blobs",
        help="Layers and sharing; blobs adds shapes and counts; full adds fillers, multipliers and lines.",
    ),
    choice(
        "--towers",
        choices=["side-by-side", "collapsed"],
        help="Identical towers side by side, or drawn once.",
    ),
    click.option(
        "--fused", is_flag=True, help="Draw what runs: towers that share all parameters as one, on joined batches."
    ),
)
def draw(model: Path, out: str | None, html: str | None, phase: str, state: NetOptions, **look: Any) -> None:
    """Draw NET to OUT, a file whose name ends in .svg, .png, .pdf, .dot or .html.

    The HTML page shows details of a layer under the pointer and the users of shared parameters, and layers can be
    searched. It needs no network connection.

    Databases do not have to exist. Unknown and wrong layers are drawn, with a warning.
    """
    outputs = [name for name in (out, html) if name is not None]
    pages = [name for name in outputs if name == html or drawing.is_page(name)]
    if not outputs:
        raise click.UsageError("Missing argument 'OUT' or option '--html'.")
    for name in outputs:
        if name in pages:
            drawing.check_page(name)
        else:
            drawing.check_output(name, or_page=True)
    parsed = parse_net(model)
    graph = state.graph_to_show(parsed, "TEST" if phase == "TEST" else "TRAIN")
    test = state.graph_to_show(parsed, "TEST") if phase == ALL else None
    if look["fused"] and not fuse_towers(graph).replaced:
        click.echo(
            "note: nothing is fused: no towers share all their parameters, or their shapes are unknown", err=True
        )
    for name in outputs:
        if name in pages:
            drawing.write_page(graph, name, test=test, parsed=parsed, **look)
        else:
            remark = drawing.render(drawing.draw(graph, test=test, **look), name)
            if remark:
                click.echo(f"note: {name}: {remark}", err=True)
