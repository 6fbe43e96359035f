"""Writing a net as ONNX, for the commands that do."""

from __future__ import annotations

from pathlib import Path

import click

from siamese_proto.errors import quoted
from siamese_proto.files import write_atomically
from siamese_proto.graph.ir import Graph


def write_onnx(target: Path, graph: Graph, weights: str | None) -> None:
    """Write the net with the parameters of a weights file, or those that its fillers draw, and say what came of it."""
    from siamese_proto.export.onnx import check_packages, make_onnx
    from siamese_proto.net.net import Net

    check_packages()
    net = Net(graph, fuse=False, writes_files=False)
    if weights is None:
        click.echo("note: no --weights are given, so the parameters are those that the fillers draw", err=True)
    else:
        click.echo(str(net.load_weights(weights)))
    made = make_onnx(net.graph, net.tensors)
    for name in made.begins_anew:
        click.echo(f"note: layer {quoted(name)} begins every run with a state of zeros", err=True)
    write_atomically(target, made.content)
    batch = "any batch" if made.any_batch else "fixed shapes"
    click.echo(
        f"{target}: written, {', '.join(made.inputs)} -> {', '.join(made.outputs)}, {batch}; "
        f"onnxruntime computes the same within {made.difference:.1e}"
    )
