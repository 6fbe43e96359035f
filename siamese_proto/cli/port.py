"""siamese-proto port: a net as PyTorch source."""

from __future__ import annotations

from pathlib import Path

import click

from siamese_proto.cli.options import PHASES, graph_to_show, net_state, phase
from siamese_proto.emitting import Ported
from siamese_proto.emitting import port as ported_from
from siamese_proto.errors import NetError
from siamese_proto.files import check_writable, replacing, write_atomically
from siamese_proto.graph.ir import Graph, Phase, Shape
from siamese_proto.proto.reader import parse_net


@click.command()
@click.argument("model", type=click.Path())
@click.option("-o", "--out", type=click.Path(), required=True, help="The file to write, MODEL.py.")
@phase(*PHASES, default="TEST")
@net_state
@click.option("--weights", type=click.Path(), help="Trained weights; they are written beside OUT, as .safetensors.")
def port(
    model: str,
    out: str,
    phase: Phase,
    level: int,
    stages: tuple[str, ...],
    shapes: dict[str, Shape],
    weights: str | None,
) -> None:
    """Write the net in MODEL as PyTorch source that needs torch alone.

    The towers of a twin become one class. Run as a program, the source loads the weights beside it and prints the
    shapes of its outputs.
    """
    target = Path(out)
    if target.suffix != ".py":
        raise NetError(f"{out}: the name of PyTorch source must end with .py")
    check_writable(target)
    graph = graph_to_show(parse_net(Path(model)), phase, level, stages, shapes)
    ported = ported_from(graph)
    if weights is not None:
        _write_weights(graph, ported, weights, target.with_suffix(".safetensors"))
    write_atomically(target, ported.source.encode("ascii"))
    click.echo(f"{target}: written")


def _write_weights(graph: Graph, ported: Ported, weights: str, target: Path) -> None:
    from safetensors.numpy import save_file

    from siamese_proto.net import Net

    net = Net(graph, fuse=False)
    click.echo(str(net.load_weights(weights)))
    tensors = net.tensors
    arrays = {key: tensors[param].detach().numpy() for param, key in ported.keys.items()}
    check_writable(target)
    with replacing(target) as partial:
        save_file(arrays, partial, metadata={"format": "pt"})
    click.echo(f"{target}: written")
