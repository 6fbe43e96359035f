"""A graph as an ONNX model: inputs, outputs and parameters bear the names of the prototxt.

torch.export takes the straight-line program of the net, torch's exporter turns that into ONNX, and before it is handed
out onnxruntime runs it beside the program that it was made from.
"""

from __future__ import annotations

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
_MOST_BYTES = 2**31 - 2**24  # protobuf's limit, with room for what is no parameter
_REFUSALS_TO_RUN = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
_TRACED_ROWS = 3  # torch takes a batch of 1 for a constant
_TOLERANCE = 1e-3  # of the largest number: far more than rounding, far less than another computation


@dataclass(frozen=True)
class OnnxModel:
    """A model, and what one has to know of it.

    `any_batch`: the first dimension of all inputs may have any size; else their shapes are fixed. `begins_anew` names
    layers that in Caffe go on where the last batch ended, and in the model begin with zeros. `difference` is the
    largest between onnxruntime and torch, for numbers drawn at random, relative to the largest number of the output
    or to 1.
    """

    content: bytes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    any_batch: bool
    begins_anew: tuple[str, ...]
    difference: float


@dataclass(frozen=True)
class _Task:
    """A net prepared for export: what it is given, what runs, what it computes."""

    graph: Graph
    inputs: tuple[Blob, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Blob, ...]
    module: Program
    run: RunState  # what the module's layers remember


def make_onnx(graph: Graph, values: Mapping[str, Tensor]) -> OnnxModel:
    """The net with the parameters `values` (by `Param.id`) as an ONNX model.

    Inputs are what the net's data and Input layers deliver, outputs the blobs that `Net` returns; all are numbers of
    the parameters' type, labels too. Parameters are called as in weights files, `conv1/0`, and each is stored once. The
    batch can have any size where all layers but losses go row by row. Raises NetError for a net that cannot run, a
    layer that cannot be exported, and where a package that is needed is not installed.
    """
    check_packages()
    if graph.problems:
        raise graph.problems[0]
    if graph.phase != "TEST":
        raise GraphError("an ONNX model computes what a net computes after training: take its phase TEST")
    task = _prepared(graph, values)
    size = sum(tensor.numel() * tensor.element_size() for tensor in task.module.weights.buffers())
    if size > _MOST_BYTES:
        raise GraphError(f"the net has {size / 2**30:.1f} GiB of parameters; a file of ONNX holds less than 2 GiB")
    any_batch = _goes_by_rows(task)
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
        found = _run(content, example)
    except NetError as error:
        raise _refusal(task, error) from error
    return OnnxModel(
        content=content,
        inputs=inputs,
        outputs=outputs,
        any_batch=any_batch,
        begins_anew=tuple(n.name for n in task.nodes if isinstance(n.layer, Recurrent) and not n.layer.exposed),
        difference=_difference(task, example, found, outputs),
    )


def check_packages() -> None:
    """Raise NetError where a package that exporting needs is not installed."""
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
    held = {param.id: values[param.id].detach().cpu().contiguous() for param in graph.params}
    # Statistics change when a net runs, and those of the caller must not.
    held.update({param.id: held[param.id].clone() for param in graph.params if param.statistic})
    return _Task(graph, inputs, nodes, outputs, Program(program, held), run)


def _goes_by_rows(task: _Task) -> bool:
    """Whether the batch may have any size: rows never mix, but in a loss or a score at the end."""
    batches = {blob.shape[:1] for blob in task.inputs if blob.shape is not None}
    return len(batches) == 1 and () not in batches and all(map(_treats_rows_alike, task.nodes))


def _treats_rows_alike(node: Node) -> bool:
    return isinstance(node.layer, Layer) and (
        node.layer.rows_independent() or node.layer.is_loss or node.type == "Accuracy"
    )


def _example(task: _Task, rows: int | None) -> list[Tensor]:
    """Numbers for the inputs, with another size of the batch if wanted; labels are 0, which every label may be."""
    generator = torch.Generator().manual_seed(1)
    labels = {node.bottoms[index].id for node in task.nodes for index in node.labels}
    kind = next((tensor.dtype for tensor in task.module.weights.buffers()), torch.get_default_dtype())
    example = []
    for blob in task.inputs:
        shape = blob.shape or ()
        shape = (rows, *shape[1:]) if rows is not None else shape
        drawn = torch.rand(shape, generator=generator, dtype=kind)
        example.append(torch.zeros_like(drawn) if blob.id in labels else drawn)
    return example


def _difference(task: _Task, example: Sequence[Tensor], found: Sequence[Numbers], names: Sequence[str]) -> float:
    """The largest difference of what onnxruntime found from what torch computes; NetError for a large one."""
    task.run.carried.clear()  # tracing has left something there
    with torch.no_grad():
        expected = [tensor.numpy() for tensor in task.module(*example)]
    largest = 0.0
    for name, ours, theirs in zip(names, expected, found, strict=True):
        with np.errstate(invalid="ignore"):  # infinity less infinity
            distances = np.abs(ours.astype(np.float64) - theirs)
        gaps = np.where((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)), 0.0, distances)
        finite = np.abs(ours[np.isfinite(ours)])
        gap = float(gaps.max(initial=0.0)) / max(1.0, float(finite.max(initial=0.0)))
        if not gap <= _TOLERANCE:
            raise GraphError(
                f"onnxruntime computes blob {quoted(name)} otherwise than the net does, by up to {gap:.2g}; "
                "the model was not written"
            )
        largest = max(largest, gap)
    return largest


def _run(content: bytes, example: Sequence[Tensor]) -> list[Numbers]:
    """What onnxruntime computes with the model."""
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as problems

    kinds = tuple(getattr(problems, name) for name in _REFUSALS_TO_RUN)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong comes as an exception
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        given = {value.name: tensor.numpy() for value, tensor in zip(session.get_inputs(), example, strict=True)}
        found: list[Numbers] = session.run(None, given)
    except kinds as error:
        text = re.sub(r"/\S+", "", " ".join(str(error).split()))
        raise GraphError(f"onnxruntime cannot run it: {text[-200:]}") from error
    return found


def _refusal(task: _Task, error: Exception) -> NetError:
    """Why the net cannot be exported: the first layer that cannot be exported by itself."""
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
                f"a layer of type {node.type} ({node.layer.describe() or 'as it is set'}) cannot be exported to ONNX: "
                f"{why}",
                location=node.location,
                layer=node.name,
            )
    why = error.message if isinstance(error, NetError) else reason(error)
    return GraphError(f"the net cannot be exported to ONNX: {why}")


def _why_not(node: Node, layer: Layer) -> str:
    """Why this layer cannot be exported, or run by onnxruntime; empty where it can be."""
    shapes = [blob.shape or () for blob in node.bottoms]
    alone = _Alone(LayerModule(layer, RunState()), len(shapes))
    bottoms = [torch.zeros(shape) if index in layer.labels else torch.rand(shape) for index, shape in enumerate(shapes)]
    example = [*bottoms, *(torch.rand(use.shape or ()) for use in node.params)]
    try:
        with quiet():
            program = converted(exported(alone, example, any_rows=False))
        _run(program.model_proto.SerializeToString(), example)
    except NetError as error:
        return error.message
    except REFUSALS as error:
        return reason(error)
    return ""


class _Alone(nn.Module):
    """One layer, its bottoms and parameters all as inputs."""

    def __init__(self, layer: LayerModule, bottoms: int) -> None:
        super().__init__()
        self.layer = layer
        self.bottoms = bottoms

    def forward(self, *blobs: Tensor) -> tuple[Tensor, ...]:
        """The layer's tops."""
        return tuple(self.layer(blobs[: self.bottoms], blobs[self.bottoms :]))
