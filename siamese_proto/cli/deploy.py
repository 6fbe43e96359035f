"""siamese-proto deploy: make the inference net of a training net."""

from pathlib import Path
from typing import Any

import click

from siamese_proto.cli.group import Command, section
from siamese_proto.cli.options import NET, OUTPUT, NetOptions, net_argument, net_options
from siamese_proto.compiler import build_graph
from siamese_proto.errors import NetError, quoted
from siamese_proto.export.deploy import Deployment
from siamese_proto.export.deploy import deploy as deploy_net
from siamese_proto.files import check_writable
from siamese_proto.proto.reader import parse_net
from siamese_proto.proto.writer import save_text
from siamese_proto.weights import match_weights, read_weights, write_weights


@click.command(cls=Command)
@net_argument()
@section(
    OUTPUT,
    click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="File to write."),
    click.option("--both", is_flag=True, help="Keep all towers, with the distance of their features as output."),
    click.option("--tower", type=click.IntRange(1), metavar="N", help="The tower to keep, from 1; default: the first."),
    click.option("--output", "outputs", metavar="BLOB", multiple=True, help="A blob to compute; can be repeated."),
)
@section(
    NET,
    click.option(
        "--weights",
        type=click.Path(),
        help="Weights trained with NET; those of FILE are written next to it, as .caffemodel.",
    ),
)
@net_options()
def deploy(
    model: Path,
    out: Path,
    both: bool,
    tower: int | None,
    outputs: tuple[str, ...],
    weights: str | None,
    state: NetOptions,
) -> None:
    """Write the inference net of the training net NET: Input layers instead of data, no losses, no labels.

    For a twin, this is one tower up to its features, or with --both all towers and their distance. If the towers
    differ, a note shows the difference, and --tower selects one. Weights trained with NET fit by layer name.
    """
    check_writable(out)
    if tower is not None and (both or outputs):
        raise click.UsageError(f"--tower and {'--both' if both else '--output'} exclude each other")
    chosen: Any = {"level": state.level, "stages": state.stages, "shapes": state.shapes}
    deployment = deploy_net(parse_net(model), both=both, tower=tower, outputs=outputs, **chosen)
    for note in deployment.notes:
        click.echo(f"note: {note}; select another with --tower N, or all with --both", err=True)
    if weights is not None:
        _write_weights(deployment, weights, out.with_suffix(".caffemodel"))
    save_text(out, deployment.text)
    click.echo(f"{out}: written, with {sum(layer.type != 'Input' for layer in deployment.net.message.layer)} layers")


def _write_weights(deployment: Deployment, weights: str, target: Path) -> None:
    """Write the weights of the layers of the inference net."""
    check_writable(target)
    graph = build_graph(deployment.text, "TEST")
    values, report = match_weights(graph, read_weights(weights))
    if report.missing:
        raise NetError(f"{weights}: has no weights for layer {quoted(report.missing[0])} of the inference net")
    write_weights(target, graph, values)
    click.echo(f"{target}: written, with the weights of {', '.join(report.loaded)}")
