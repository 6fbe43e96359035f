"""From a graph to straight-line torch code (torch.fx): one call for each layer, nothing is interpreted at run time."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Sequence, Set
from dataclasses import dataclass, replace
from types import SimpleNamespace

from torch import Tensor, fx, nn

from siamese_proto.errors import NetError
from siamese_proto.graph.ir import Blob, Graph, Node, ParamUse, Phase
from siamese_proto.layers.base import Layer, RunState
from siamese_proto.layers.element_wise import ElementWise
from siamese_proto.passes.pipeline import optimize
from siamese_proto.passes.rewriting import Rewritten


class LayerModule(nn.Module):
    """A configured layer as a module without parameters: it takes bottoms and parameters, and returns tops."""

    def __init__(self, layer: Layer, run: RunState) -> None:
        super().__init__()
        self.layer = layer
        self.run = run

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return one tensor for each top."""
        return self.layer.forward(bottoms, params, self.run)

    def extra_repr(self) -> str:
        """Return the layer's type, for printing."""
        return self.layer.type


def layer_modules(nodes: Sequence[Node], run: RunState) -> dict[str, LayerModule]:
    """Return a module for each node, by `module_name`."""
    return {module_name(node): LayerModule(node.layer, run) for node in nodes if isinstance(node.layer, Layer)}


@dataclass(frozen=True)
class Form:
    """A net in one of its modes, training or evaluation.

    Attributes:
        graph: The graph as written.
        optimized: The graph that runs instead.
        replaced: Ids of nodes of `graph` that are part of others in `optimized`.
        modules: The layers of `graph`, by `module_name`.
        optimized_modules: Those of `optimized`.
        overwritten: Ids of blobs of `optimized` that a layer overwrites.
    """

    graph: Graph
    optimized: Graph
    replaced: frozenset[str]
    modules: dict[str, LayerModule]
    optimized_modules: dict[str, LayerModule]
    overwritten: frozenset[str]

    @staticmethod
    def of(graph: Graph, run: RunState, *, fuse: bool) -> Form:
        """Return the form of a graph whose layers are in the mode already."""
        rewritten = optimize(graph) if fuse else Rewritten(graph)
        nodes = rewritten.graph.nodes
        overwritten = (
            node.bottoms[0].id for node in nodes if isinstance(node.layer, ElementWise) and node.layer.overwrites
        )
        modules = layer_modules(graph.nodes, run), layer_modules(nodes, run)
        return Form(graph, rewritten.graph, rewritten.replaced, *modules, frozenset(overwritten))

    def must_run_as_written(self, plan: Plan) -> bool:
        """Return whether the plan skips or replaces a part of an optimized node, or hands in a blob it overwrites."""
        input_ids = {blob.id for blob in plan.inputs}
        return (
            not self.replaced <= {node.id for node in plan.nodes}
            or any(top.id in input_ids for node in plan.nodes if node.id in self.replaced for top in node.tops)
            or not self.overwritten.isdisjoint(input_ids)
        )


def prepare(graph: Graph, *, writes_files: bool) -> None:
    """Let the layers of a graph prepare to run. Raises NetError, with its place, for a layer that cannot."""
    for node in graph.nodes:
        try:
            if isinstance(node.layer, Layer) and (writes_files or not node.layer.writes_files):
                node.layer.prepare()
        except NetError as problem:
            raise problem.at(location=node.location, layer=node.name) from None


def in_phase(graph: Graph, phase: Phase) -> Graph:
    """Return the graph with its layers in a phase. It keeps its selection of layers, its sources and their crops."""
    nodes = []
    for node in graph.nodes:
        layer = node.layer.in_phase(phase, node.message) if isinstance(node.layer, Layer) else node.layer
        nodes.append(node if layer is node.layer else replace(node, layer=layer))
    return replace(graph, nodes=tuple(nodes))


@dataclass(frozen=True)
class Plan:
    """What is computed from a choice of inputs.

    Attributes:
        inputs: The blobs that the caller passes.
        nodes: The nodes that run, in order.
        skipped: Nodes that cannot run, because a bottom is missing.
    """

    inputs: tuple[Blob, ...]
    nodes: tuple[Node, ...]
    skipped: tuple[Node, ...] = ()

    @functools.cached_property
    def available(self) -> Set[str]:
        """Ids of the blobs that are passed or computed."""
        return {blob.id for blobs in (self.inputs, *(node.tops for node in self.nodes)) for blob in blobs}


def make_plan(graph: Graph, names: Collection[str]) -> Plan:
    """Return which nodes can run if the blobs of these names are passed; these are not computed."""
    inputs: list[Blob] = []
    nodes: list[Node] = []
    skipped: list[Node] = []
    available: set[str] = set()
    for node in graph.nodes:
        passed = [top for top in node.tops if top.name in names and top.version == 0]
        inputs.extend(passed)
        available.update(top.id for top in passed)
        if node.is_source or (node.tops and len(passed) == len(node.tops)):
            continue
        if all(bottom.id in available for bottom in node.bottoms):
            nodes.append(node)
            available.update(top.id for top in node.tops)
        else:
            skipped.append(node)
    return Plan(tuple(inputs), tuple(nodes), tuple(skipped))


def build_program(graph: Graph, plan: Plan, outputs: Sequence[Blob], modules: dict[str, LayerModule]) -> fx.GraphModule:
    """Return a pure function of the plan's inputs and then of `graph.params`, which returns the outputs as a tuple.

    It is built node by node: symbolic tracing would lose the backward rules that are Caffe's.
    """
    code = fx.Graph()
    values: dict[str, fx.Node] = {}
    for index, blob in enumerate(plan.inputs):
        # fx inserts this name into its code: it must not come from a file, nor look like a parameter's, `x_0`.
        values[blob.id] = code.placeholder(f"blob{index}")
    params = {param.id: code.placeholder(param.id) for param in graph.params}
    for node in plan.nodes:
        bottoms = tuple(
            code.call_method("detach", (values[blob.id],)) if cut else values[blob.id]
            for blob, cut in zip(node.bottoms, node.cut, strict=True)
        )
        uses = tuple(_use(code, params[use.param.id], use) for use in node.params)
        tops = code.call_module(module_name(node), (bottoms, uses))
        for index, top in enumerate(node.tops):
            if top.id not in values:  # else it is an input
                values[top.id] = code.call_function(operator.getitem, (tops, index))
    code.output(tuple(values[blob.id] for blob in outputs))
    return fx.GraphModule(dict(modules), code, class_name="Program")


def without_module_calls(program: fx.GraphModule) -> Callable[..., tuple[Tensor, ...]]:
    """Return the program's code with the `forward` of each layer's module in it, which skips hooks of modules.

    Calling modules takes a third of the time of a small net.
    """
    layers = {name: module.forward for name, module in program.named_children() if isinstance(module, LayerModule)}
    code: Callable[..., tuple[Tensor, ...]] = type(program).forward
    return functools.partial(code, SimpleNamespace(**layers))


def module_name(node: Node) -> str:
    """Return the attribute of a node's module; the prefix avoids the attributes of every torch module."""
    return f"layer_{node.id}"


def _use(code: fx.Graph, param: fx.Node, use: ParamUse) -> fx.Node:
    """Return the parameter as a layer reads it: in its shape, and detached if its lr_mult is 0."""
    if not use.takes_gradient and not use.param.statistic:
        param = code.call_method("detach", (param,))
    if use.shape != use.param.shape and use.shape is not None:
        param = code.call_method("view", (param, use.shape))
    return param
