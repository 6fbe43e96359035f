"""Convert a graph to an ONNX model whose inputs, outputs and parameters have the names of the prototxt.

torch.export traces the program of the net, torch's exporter converts it, and onnxruntime runs the model and the program
for comparison.
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from siamese_proto.errors import GraphError, NetError, quoted
from siamese_proto.export.onnx.conversion import REFUSALS, Program, converted, exported, named_model, quiet, reason
from siamese_proto.export.source.planning import inputs_of, needed, outputs_of
from siamese_proto.graph.ir import Blob, Graph, Node
from siamese_proto.layers.base import Layer, RunState
from siamese_proto.layers.recurrent import Recurrent
from siamese_proto.net.program import LayerModule, Plan, build_program, in_phase, layer_modules

Numbers = NDArray[np.floating]

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_MOST_BYTES = 2**31 - 2**24  # protobuf's limit, with room for everything that is not a parameter
_REFUSALS_TO_RUN = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
_TRACED_ROWS = 3  # torch treats a batch of 1 as a constant
_TOLERANCE = 1e-3  # of the largest number: far more than rounding errors, far less than a wrong computation


@dataclass(frozen=True)
class OnnxModel:
    """A model and its properties.

    Attributes:
        any_batch: The first dimension of all inputs is free; otherwise their shapes are fixed.
        stateless: Names of layers that continue from the previous batch in Caffe, and start with zeros in the model.
        difference: The largest difference between onnxruntime and torch for random inputs, relative to the largest
            number of the output or to 1.
    """

    content: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    any_batch: bool
    stateless: tuple[str, ...]
    difference: float


@dataclass(frozen=True)
class _Task:
    """A net ready for export: inputs, layers and outputs."""

    graph: Graph
    inputs: tuple[Blob, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Blob, ...]
    module: Program
    run: RunState  # the state of the layers


def make_onnx(graph: Graph, values: Mapping[str, Tensor]) -> OnnxModel:
    """Convert a net to an ONNX model.

    Inputs are the tops of data and Input layers, outputs the blobs that `Net` returns; all have the type of the
    parameters, labels too. Parameters have the names of weights files (`conv1/0`), and each is stored once. The batch
    size is free if all layers except losses treat rows independently.

    Args:
        graph: A graph of phase TEST.
        values: The parameters, by `Param.id`.

    Raises:
        NetError: The net cannot run, a layer cannot be exported, or a package is not installed.
    """
    check_packages()
    if graph.problems:
        raise graph.problems[0]
    if graph.phase != "TEST":
        raise GraphError("an ONNX model needs a graph of phase TEST")
    task = _prepared(graph, values)
    size = sum(tensor.numel() * tensor.element_size() for tensor in task.module.weights.buffers())
    if size > _MOST_BYTES:
        raise GraphError(f"the net has {size / 2**30:.1f} GiB of parameters; an ONNX file holds less than 2 GiB")
    any_batch = _has_free_batch(task)
    names = [blob.name for blob in task.inputs], [graph.output_name(blob) for blob in task.outputs]
    with quiet():
        try:
            try:
                program = exported(task.module, _example(task, _TRACED_ROWS if any_batch else None), any_rows=any_batch)
            except REFUSALS:
                if not any_batch:
                    raise
                any_batch = False
                program = exported(task.module, _example(task, None), any_rows=False)
            model = named_model(converted(program), graph, *names)
        except REFUSALS as error:
            raise _refusal(task, error) from error
    inputs, outputs = (tuple(value.name for value in side) for side in (model.graph.input, model.graph.output))
    content: bytes = model.SerializeToString()
    example = _example(task, _TRACED_ROWS + 2 if any_batch else None)
    try:
        results = _run(content, example)
    except NetError as error:
        raise _refusal(task, error) from error
    return OnnxModel(
        content=content,
        inputs=inputs,
        outputs=outputs,
        any_batch=any_batch,
        stateless=tuple(n.name for n in task.nodes if isinstance(n.layer, Recurrent) and not n.layer.exposed),
        difference=_difference(task, example, results, outputs),
    )


def check_packages() -> None:
    """Raise NetError if a package that exporting needs is not installed."""
    for name in _PACKAGES:
        try:
            with quiet():
                importlib.import_module(name)
        except ImportError:
            raise NetError(
                f"ONNX needs the package {name}, which is not installed: python -m pip install 'siamese-proto[onnx]'"
            ) from None


def _prepared(graph: Graph, values: Mapping[str, Tensor]) -> _Task:
    graph = in_phase(graph, "TEST")  # evaluation, whatever mode the net of the graph is in
    outputs = outputs_of(graph)
    nodes = needed(graph, outputs)
    inputs = inputs_of(graph, nodes)
    for node in nodes:
        if any(blob.shape is None for blob in node.bottoms):
            raise graph.unknown_shapes(node)
    run = RunState()
    program = build_program(graph, Plan(inputs, nodes), outputs, layer_modules(nodes, run))
    tensors = {param.id: values[param.id].detach().cpu().contiguous() for param in graph.params}
    # A net changes its statistics when it runs; those of the caller must not change.
    tensors.update({param.id: tensors[param.id].clone() for param in graph.params if param.statistic})
    return _Task(graph, inputs, nodes, outputs, Program(program, tensors), run)


def _has_free_batch(task: _Task) -> bool:
    """Return whether the batch size is free: rows are independent, except in a loss or an accuracy."""
    batches = {blob.shape[:1] for blob in task.inputs if blob.shape is not None}
    return len(batches) == 1 and () not in batches and all(map(_treats_rows_independently, task.nodes))


def _treats_rows_independently(node: Node) -> bool:
    return isinstance(node.layer, Layer) and (
        node.layer.rows_independent() or node.layer.is_loss or node.type == "Accuracy"
    )


def _example(task: _Task, rows: int | None) -> list[Tensor]:
    """Return random inputs, with another batch size if `rows` is given; labels are 0, which is always valid."""
    generator = torch.Generator().manual_seed(1)
    labels = {node.bottoms[index].id for node in task.nodes for index in node.labels}
    kind = next((tensor.dtype for tensor in task.module.weights.buffers()), torch.get_default_dtype())
    example = []
    for blob in task.inputs:
        shape = blob.shape or ()
        shape = (rows, *shape[1:]) if rows is not None else shape
        values = torch.rand(shape, generator=generator, dtype=kind)
        example.append(torch.zeros_like(values) if blob.id in labels else values)
    return example


def _difference(task: _Task, example: Sequence[Tensor], results: Sequence[Numbers], names: Sequence[str]) -> float:
    """Return the largest difference between onnxruntime and torch; NetError if it is large."""
    task.run.carried.clear()  # tracing left states there
    with torch.no_grad():
        expected = [tensor.numpy() for tensor in task.module(*example)]
    largest = 0.0
    for name, ours, theirs in zip(names, expected, results, strict=True):
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            distances = np.abs(ours.astype(np.float64) - theirs)
        gaps = np.where((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)), 0.0, distances)
        finite = np.abs(ours[np.isfinite(ours)])
        gap = float(gaps.max(initial=0.0)) / max(1.0, float(finite.max(initial=0.0)))
        if not gap <= _TOLERANCE:
            raise GraphError(
                f"onnxruntime computes blob {quoted(name)} with a difference of up to {gap:.2g}; nothing was written"
            )
        largest = max(largest, gap)
    return largest


def _run(content: bytes, example: Sequence[Tensor]) -> list[Numbers]:
    """Run the model in onnxruntime."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as problems

    kinds = tuple(getattr(problems, name) for name in _REFUSALS_TO_RUN)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as exceptions
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        feeds = {value.name: tensor.numpy() for value, tensor in zip(session.get_inputs(), example, strict=True)}
        outputs: list[Numbers] = session.run(None, feeds)
    except kinds as error:
        text = re.sub(r"/\S+", "", " ".join(str(error).split()))
        raise GraphError(f"onnxruntime cannot run it: {text[-200:]}") from error
    return outputs


def _refusal(task: _Task, error: Exception) -> NetError:
    """Explain why the net cannot be exported: name the first layer that cannot be exported by itself."""
    tried: set[tuple[object, ...]] = set()
    for node in task.nodes:
        assert isinstance(node.layer, Layer)  # a net with problems is not exported
        kind = (node.type, node.layer.describe(), *(blob.shape for blob in node.bottoms))
        if kind in tried:
            continue
        tried.add(kind)
        why = _why_not(node, node.layer)
        if why:
            return GraphError(
                f"a layer of type {node.type} ({node.layer.describe() or 'as set'}) cannot be exported to ONNX: {why}",
                location=node.location,
                layer=node.name,
            )
    why = error.message if isinstance(error, NetError) else reason(error)
    return GraphError(f"the net cannot be exported to ONNX: {why}")


def _why_not(node: Node, layer: Layer) -> str:
    """Return why this layer cannot be exported or run by onnxruntime; empty if it can."""
    shapes = [blob.shape or () for blob in node.bottoms]
    module = _SingleLayer(LayerModule(layer, RunState()), len(shapes))
    bottoms = [torch.zeros(shape) if index in layer.labels else torch.rand(shape) for index, shape in enumerate(shapes)]
    example = [*bottoms, *(torch.rand(use.shape or ()) for use in node.params)]
    try:
        with quiet():
            program = converted(exported(module, example, any_rows=False))
        _run(program.model_proto.SerializeToString(), example)
    except NetError as error:
        return error.message
    except REFUSALS as error:
        return reason(error)
    return ""


class _SingleLayer(nn.Module):
    """One layer whose bottoms and parameters are all inputs."""

    def __init__(self, layer: LayerModule, bottoms: int) -> None:
        super().__init__()
        self.layer = layer
        self.bottoms = bottoms

    def forward(self, *blobs: Tensor) -> tuple[Tensor, ...]:
        """Compute the tops."""
        return tuple(self.layer(blobs[: self.bottoms], blobs[self.bottoms :]))
