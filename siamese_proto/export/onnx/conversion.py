"""Torch's steps to ONNX, and the names of the net in the result."""

from __future__ import annotations

import ast
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, fx, nn

from siamese_proto.graph.ir import Graph
from siamese_proto.net.program import module_name
from siamese_proto.weights.stored import unique_names

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


# What torch raises for code that it cannot trace or turn into ONNX. Its exporter's own errors are RuntimeErrors.
REFUSALS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)
_UNKNOWN = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")


class Program(nn.Module):
    """A net's program with its parameters inside, as constants."""

    def __init__(self, program: fx.GraphModule, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.program = program
        self.weights = nn.Module()
        self.order = tuple(values)
        for name, tensor in values.items():
            self.weights.register_buffer(name, tensor)

    def forward(self, *blobs: Tensor) -> tuple[Tensor, ...]:
        """The outputs for these inputs."""
        return cast("tuple[Tensor, ...]", self.program(*blobs, *(getattr(self.weights, name) for name in self.order)))


def exported(module: nn.Module, example: Sequence[Tensor], *, any_rows: bool) -> ExportedProgram:
    """The module as torch.export sees it; with `any_rows` the first dimension of all inputs has any size.

    Raises one of REFUSALS where the module cannot be traced, or not for any size.
    """
    rows = torch.export.Dim("batch")
    dynamic = {"blobs": tuple({0: rows} for _ in example)} if any_rows else None
    with torch.no_grad():
        return torch.export.export(module, tuple(example), dynamic_shapes=dynamic, strict=False)


def converted(program: ExportedProgram) -> torch.onnx.ONNXProgram:
    """The program as ONNX, every constant where it is: folding would store some twice. Raises one of REFUSALS."""
    forms: Any = {
        torch.ops.aten.sort.stable: _sort,
        torch.ops.aten._native_batch_norm_legit_functional.default: _batch_norm,
    }
    made = torch.onnx.export(
        program,
        dynamo=True,
        optimize=False,
        verbose=False,
        custom_translation_table=forms,
    )
    if made is None:
        raise RuntimeError("torch made no ONNX program")
    return made


def _sort(x: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """torch.sort as ONNX, which has only TopK: of equal values the one with the lower index stands first."""
    import onnxscript

    op: Any = onnxscript.opset18  # its types are those of constants
    count = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
    return op.TopK(x, count, axis=dim, largest=int(descending), sorted=1)


def _batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float
) -> Any:
    """Normalisation by the statistics of the batch, for which torch's exporter takes those that are stored."""
    import onnxscript

    op: Any = onnxscript.opset18
    axes = op.Constant(value_ints=[0, *range(2, len(x.shape))])
    batch_mean = op.ReduceMean(x, axes, keepdims=1)
    centred = op.Sub(x, batch_mean)
    batch_variance = op.ReduceMean(op.Mul(centred, centred), axes, keepdims=1)
    scale = op.Sqrt(op.Add(batch_variance, op.CastLike(op.Constant(value_float=eps), x)))
    means, scales = (op.Reshape(each, op.Constant(value_ints=[-1])) for each in (batch_mean, scale))
    return op.Div(centred, scale), means, scales, mean, variance


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what torch says of its own making: deprecations inside it, packages that nobody here needs."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def reason(error: BaseException) -> str:
    """What torch refused, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    unknown = _UNKNOWN.search(str(error))
    if unknown and unknown[1].startswith("siamese_proto."):
        return "it draws at random"
    if unknown:
        return f"torch's exporter has no {unknown[1]}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


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
