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


# Errors of torch for code that it cannot trace or convert to ONNX. Those of its exporter are RuntimeErrors.
REFUSALS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)
_UNKNOWN = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")


class Program(nn.Module):
    """The program of a net with its parameters as constants."""

    def __init__(self, program: fx.GraphModule, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.program = program
        self.weights = nn.Module()
        self.order = tuple(values)
        for name, tensor in values.items():
            self.weights.register_buffer(name, tensor)

    def forward(self, *blobs: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs."""
        return cast("tuple[Tensor, ...]", self.program(*blobs, *(getattr(self.weights, name) for name in self.order)))


def exported(module: nn.Module, example: Sequence[Tensor], *, any_rows: bool) -> ExportedProgram:
    """Trace a module with torch.export; with `any_rows`, the first dimension of all inputs is free.

    Raises one of REFUSALS if the module cannot be traced, or not for any size.
    """
    rows = torch.export.Dim("batch")
    dynamic = {"blobs": tuple({0: rows} for _ in example)} if any_rows else None
    with torch.no_grad():
        return torch.export.export(module, tuple(example), dynamic_shapes=dynamic, strict=False)


def converted(program: ExportedProgram) -> torch.onnx.ONNXProgram:
    """Convert the program to ONNX without folding constants, which would store some twice. Raises one of REFUSALS."""
    forms: Any = {
        torch.ops.aten.sort.stable: _sort,
        torch.ops.aten._native_batch_norm_legit_functional.default: _batch_norm,
    }
    onnx_program = torch.onnx.export(
        program,
        dynamo=True,
        optimize=False,
        verbose=False,
        custom_translation_table=forms,
    )
    if onnx_program is None:
        raise RuntimeError("torch returned no ONNX program")
    return onnx_program


def _sort(x: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """torch.sort as ONNX, which has only TopK; of equal values, the one with the lower index comes first."""
    import onnxscript

    op: Any = onnxscript.opset18  # its types are those of constants
    count = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
    return op.TopK(x, count, axis=dim, largest=int(descending), sorted=1)


def _batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float
) -> Any:
    """Normalization by the statistics of the batch; torch's exporter uses the stored ones instead."""
    import onnxscript

    op: Any = onnxscript.opset18
    axes = op.Constant(value_ints=[0, *range(2, len(x.shape))])
    batch_mean = op.ReduceMean(x, axes, keepdims=1)
    centered = op.Sub(x, batch_mean)
    batch_variance = op.ReduceMean(op.Mul(centered, centered), axes, keepdims=1)
    scale = op.Sqrt(op.Add(batch_variance, op.CastLike(op.Constant(value_float=eps), x)))
    means, scales = (op.Reshape(each, op.Constant(value_ints=[-1])) for each in (batch_mean, scale))
    return op.Div(centered, scale), means, scales, mean, variance


@contextmanager
def quiet() -> Iterator[None]:
    """Hide messages of torch about itself: deprecations inside it, and packages that are not needed here."""
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
    """Return the reason of an error of torch in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    unknown = _UNKNOWN.search(str(error))
    if unknown and unknown[1].startswith("siamese_proto."):
        return "it draws at random"
    if unknown:
        return f"torch's exporter has no {unknown[1]}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


_SCOPES = "pkg.torch.onnx.name_scopes"  # where torch records the modules of a node
_MADE_BY = "program."


class _Unique:
    """Unique names of one file."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.counts: dict[str, int] = {}

    def new(self, name: str) -> str:
        """Return the name, with a number if it is taken."""
        free, count = name, self.counts.get(name, 1)
        while free in self.taken:
            count += 1
            free = f"{name}_{count}"
        self.counts[name] = count
        self.taken.add(free)
        return free


def named_model(program: torch.onnx.ONNXProgram, graph: Graph, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """Return the ModelProto, without information about this machine.

    Blobs are named first; other values with the same name get another one.
    """
    from onnxscript import ir

    model = program.model
    names = _Unique()
    _part_outputs(model.graph, ir)
    for value, name in zip((*model.graph.inputs, *model.graph.outputs), (*inputs, *outputs), strict=True):
        value.name = names.new(name or "blob")  # "" would mean that the value does not exist
    _name_parameters(model.graph, graph, names)
    nodes = list(model.graph.all_nodes())
    layers = {module_name(node): node.name or node.type for node in graph.nodes}
    named = {id(value) for value in (*model.graph.inputs, *model.graph.outputs)}
    for node in nodes:
        node.name = names.new("/".join(filter(None, (_layer_of(node, layers), node.op_type))))
        for number, value in enumerate(node.outputs):
            if id(value) not in named:
                value.name = names.new(f"{node.name}:{number}")
    for part in (model, *_documented_parts(model.graph)):
        part.metadata_props.clear()
        part.doc_string = None
    _name_batch(model.graph)
    model.graph.name = graph.name or "net"
    return ir.to_proto(model)


def _name_batch(graph: Any) -> None:
    """Name the free batch size "batch" instead of torch's symbol."""
    symbols = [dim.value for value in graph.inputs for dim in value.shape if not isinstance(dim, int)]
    for value in (*graph.inputs, *graph.outputs, *(value for node in graph.all_nodes() for value in node.outputs)):
        for axis, dim in enumerate(value.shape or ()):
            if symbols and not isinstance(dim, int) and dim.value == symbols[0]:
                value.shape[axis] = "batch"


def _part_outputs(graph: Any, ir: Any) -> None:
    """Make every output a separate value: it may also be an input, a parameter or another output."""
    other_roles = {id(value) for value in (*graph.inputs, *graph.initializers.values())}
    for index, value in enumerate(graph.outputs):
        if id(value) in other_roles:
            copy = ir.node("Identity", [value])
            copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
            graph.append(copy)
            graph.outputs[index] = value = copy.outputs[0]
        other_roles.add(id(value))


def _name_parameters(onnx_graph: Any, graph: Graph, names: _Unique) -> None:
    """Name parameters as in weights files (`conv1/0`), and drop unused ones."""
    labels = dict(zip((node.id for node in graph.nodes), unique_names(node.name for node in graph.nodes), strict=True))
    keys = {f"weights.{param.id}": f"{labels[param.owner]}/{param.index}" for param in graph.params}
    values = list(onnx_graph.initializers.values())
    onnx_graph.initializers.clear()
    for value in sorted(values, key=lambda value: value.name not in keys):  # those of the net first
        if value.uses():
            value.name = names.new(keys.get(value.name, "constant"))
            onnx_graph.register_initializer(value)


def _layer_of(node: Any, layers: dict[str, str]) -> str:
    """Return the name of the layer of a node, if torch recorded it."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    return next((layers[s[len(_MADE_BY) :]] for s in scopes if s[len(_MADE_BY) :] in layers), "")


def _documented_parts(graph: Any) -> Iterator[Any]:
    """Yield the parts of a graph that can have metadata."""
    yield graph
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph.all_nodes():
        yield node
        yield from node.outputs
