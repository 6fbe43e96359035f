"""An ONNX program under the names of the net: blobs, parameters and, for what is in between, layers."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from siamese_proto.graph.ir import Graph
from siamese_proto.net.program import module_name
from siamese_proto.weights.stored import unique_names

if TYPE_CHECKING:
    import torch

_SCOPES = "pkg.torch.onnx.name_scopes"  # where torch notes the modules that a node was made by
_MADE_BY = "program."


class _Unique:
    """Names of one file, each given once."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.counts: dict[str, int] = {}

    def new(self, wanted: str) -> str:
        """`wanted`, or it with the next number that is free behind it."""
        found, count = wanted, self.counts.get(wanted, 1)
        while found in self.taken:
            count += 1
            found = f"{wanted}_{count}"
        self.counts[wanted] = count
        self.taken.add(found)
        return found


def named_model(program: torch.onnx.ONNXProgram, graph: Graph, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The ModelProto, with no trace of the machine it was made on.

    Blobs stand first: what else would have one of their names gets another.
    """
    from onnxscript import ir

    model = program.model
    names = _Unique()
    _part_outputs(model.graph, ir)
    for value, name in zip((*model.graph.inputs, *model.graph.outputs), (*inputs, *outputs), strict=True):
        value.name = names.new(name or "blob")  # "" means that there is nothing
    _name_parameters(model.graph, graph, names)
    nodes = list(model.graph.all_nodes())
    layers = {module_name(node): node.name or node.type for node in graph.nodes}
    kept = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for node in nodes:
        node.name = names.new("/".join(filter(None, (_layer_of(node, layers), node.op_type))))
        for number, value in enumerate(node.outputs):
            if id(value) not in kept:
                value.name = names.new(f"{node.name}:{number}")
    for thing in (model, *_things(model.graph)):
        thing.metadata_props.clear()
        thing.doc_string = None
    _name_batch(model.graph)
    model.graph.name = graph.name or "net"
    return ir.to_proto(model)


def _name_batch(graph: Any) -> None:
    """Call the size of the batch so: torch has numbers of its own for sizes that are not settled."""
    symbols = [dim.value for value in graph.inputs for dim in value.shape if not isinstance(dim, int)]
    for value in (*graph.inputs, *graph.outputs, *(value for node in graph.all_nodes() for value in node.outputs)):
        for axis, dim in enumerate(value.shape or ()):
            if symbols and not isinstance(dim, int) and dim.value == symbols[0]:
                value.shape[axis] = "batch"


def _part_outputs(graph: Any, ir: Any) -> None:
    """Make every output a value of its own: one may be an input, a parameter or another output as well."""
    seen = {id(value) for value in (*graph.inputs, *graph.initializers.values())}
    for index, value in enumerate(graph.outputs):
        if id(value) in seen:
            copy = ir.node("Identity", [value])
            copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
            graph.append(copy)
            graph.outputs[index] = value = copy.outputs[0]
        seen.add(id(value))


def _name_parameters(onnx_graph: Any, graph: Graph, names: _Unique) -> None:
    """Parameters as in weights files, `conv1/0`; what nothing reads is left out."""
    labels = dict(zip((node.id for node in graph.nodes), unique_names(node.name for node in graph.nodes), strict=True))
    known = {f"weights.{param.id}": f"{labels[param.owner]}/{param.index}" for param in graph.params}
    values = list(onnx_graph.initializers.values())
    onnx_graph.initializers.clear()
    for value in sorted(values, key=lambda value: value.name not in known):  # those of the net choose first
        if value.uses():
            value.name = names.new(known.get(value.name, "constant"))
            onnx_graph.register_initializer(value)


def _layer_of(node: Any, layers: dict[str, str]) -> str:
    """The name of the layer that a node is of, as far as torch knows."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    return next((layers[s[len(_MADE_BY) :]] for s in scopes if s[len(_MADE_BY) :] in layers), "")


def _things(graph: Any) -> Iterator[Any]:
    """Whatever in a graph can bear a remark."""
    yield graph
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph.all_nodes():
        yield node
        yield from node.outputs
