"""siamese-proto port: write a net as PyTorch source or ONNX."""

from pathlib import Path

import click
import numpy as np

from siamese_proto.cli.convert import write_onnx
from siamese_proto.cli.group import Command, section
from siamese_proto.cli.options import NET, OUTPUT, PHASES, NetOptions, choice, net_argument, net_options, phase
from siamese_proto.errors import NetError
from siamese_proto.export.source import Ported
from siamese_proto.export.source import port as ported_from
from siamese_proto.files import check_writable, write_atomically
from siamese_proto.graph.ir import Graph, Phase
from siamese_proto.proto.reader import parse_net


@click.command(cls=Command)
@net_argument()
@section(
    OUTPUT,
    click.option("-o", "--out", type=click.Path(), required=True, help="File to write: .py, or .onnx."),
    choice(
        "--format",
        "kind",
        choices=["python", "onnx"],
        default=None,
        help="PyTorch source, or an ONNX model with its weights; by default the suffix of OUT decides.",
    ),
)
@phase(*PHASES, default="TEST")
@net_options()
@section(
    NET,
    click.option("--weights", type=click.Path(), help="Trained weights, written next to OUT.py as .safetensors."),
)
def port(model: Path, out: str, kind: str | None, phase: Phase, state: NetOptions, weights: str | None) -> None:
    """Write NET as PyTorch source that needs only torch, or as ONNX.

    The towers of a twin become one class. Run as a program, the source loads the weights next to it and prints the
    shapes of its outputs. An ONNX model (with the extra "onnx") has the names of the blobs.
    """
    target = Path(out)
    suffix = ".onnx" if kind == "onnx" or (kind is None and target.suffix == ".onnx") else ".py"
    if target.suffix != suffix:
        raise NetError(
            f"{out}: the name of {'an ONNX model' if suffix == '.onnx' else 'PyTorch source'} must end with {suffix}"
        )
    check_writable(target)
    graph = state.graph_to_write(parse_net(model), phase)
    if suffix == ".onnx":
        write_onnx(target, graph, weights)
        return
    ported = ported_from(graph)
    if weights is not None:
        _write_weights(graph, ported, weights, target.with_suffix(".safetensors"))
    write_atomically(target, ported.source.encode("ascii"))
    click.echo(f"{target}: written")


def _write_weights(graph: Graph, ported: Ported, weights: str, target: Path) -> None:
    from safetensors.numpy import save

    from siamese_proto.net.net import Net

    net = Net(graph, fuse=False, writes_files=False)
    click.echo(str(net.load_weights(weights)))
    tensors = net.tensors
    # Arrays are written row by row, whatever their memory layout.
    arrays = {key: np.ascontiguousarray(tensors[param].detach().numpy()) for param, key in ported.keys.items()}
    write_atomically(target, save(arrays, {"format": "pt"}))
    click.echo(f"{target}: written")
