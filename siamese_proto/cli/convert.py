"""siamese-proto convert: convert weights, and nets to ONNX."""

import os
from pathlib import Path

import click

from siamese_proto.cli.options import NetOptions, net_options
from siamese_proto.errors import NetError, quoted
from siamese_proto.files import check_writable, write_atomically
from siamese_proto.graph.ir import Graph
from siamese_proto.proto.reader import parse_net
from siamese_proto.weights.files import looks_like
from siamese_proto.weights.formats import check_format, read_weights, write_stored


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--weights", type=click.Path(), help="Trained weights of a net that is converted to ONNX.")
@net_options()
def convert(source: Path, target: Path, weights: str | None, state: NetOptions) -> None:
    """Convert the weights in IN to the format of OUT, or the net in IN to OUT.onnx.

    .caffemodel, .caffemodel.h5, .safetensors and .pt store the same layers and the same numbers, bit for bit. Shared
    arrays are stored once, except in a .caffemodel, which stores them with every layer that uses them, as in Caffe.

    An ONNX model (with the extra "onnx") contains the net of phase TEST and its weights. The options --shape, --level,
    --stage and --layers apply to such a net.
    """
    check_writable(target)
    if target.suffix == ".onnx":
        _check_net(source, target)
        write_onnx(target, state.graph_to_write(parse_net(source), "TEST"), weights)
        return
    check_format(target)
    if weights is not None:
        raise NetError(f"{target}: --weights applies to a net that is converted to ONNX: OUT must end with .onnx")
    stored = read_weights(source)
    write_stored(target, stored)
    blobs = sum(len(layer.blobs) for layer in stored.layers)
    click.echo(f"{target}: {blobs} blobs of {len(stored.layers)} layers, {os.path.getsize(target):,} bytes")


def _check_net(source: Path, target: Path) -> None:
    """Raise NetError if the file contains only weights."""
    with open(source, "rb") as opened:
        start = opened.read(512)
    if start and not looks_like(start):
        raise NetError(
            f"{source}: contains only weights; ONNX needs the net too: convert NET.prototxt {target} --weights {source}"
        )


def write_onnx(target: Path, graph: Graph, weights: str | None) -> None:
    """Write the net with the parameters of a weights file, or initial ones, and print a summary."""
    from siamese_proto.export.onnx import check_packages, make_onnx
    from siamese_proto.net.net import Net

    check_packages()
    net = Net(graph, fuse=False, writes_files=False)
    if weights is None:
        click.echo("note: without --weights, the parameters have their initial values", err=True)
    else:
        click.echo(str(net.load_weights(weights)))
    model = make_onnx(net.graph, net.tensors)
    for name in model.stateless:
        click.echo(f"note: layer {quoted(name)} starts every run with a state of zeros", err=True)
    write_atomically(target, model.content)
    batch = "any batch" if model.any_batch else "fixed shapes"
    click.echo(
        f"{target}: written, {', '.join(model.inputs)} -> {', '.join(model.outputs)}, {batch}; "
        f"onnxruntime computes the same within {model.difference:.1e}"
    )
