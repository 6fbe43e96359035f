"""From a graph to straight-line torch code: one call a layer, no interpretation when it runs (torch.fx)."""

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
from siamese_proto.optimize.passes import optimize
from siamese_proto.optimize.rewriting import Rewritten


class LayerModule(nn.Module):
    """A configured layer as a module without state: bottoms and parameters come in, tops go out."""

    def __init__(self, layer: Layer, run: RunState) -> None:
        super().__init__()
        self.layer = layer
        self.run = run

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> Sequence[Tensor]:
        """One tensor a top."""
        return self.layer.forward(bottoms, params, self.run)

    def extra_repr(self) -> str:
        """The layer's type, for printing."""
        return self.layer.type


@dataclass(frozen=True)
class Form:
    """A net in one of its modes, training or evaluation: its graph as written, and the graph that runs instead."""

    graph: Graph
    fused: Graph
    gone: frozenset[str]  # ids of nodes of `graph` that are part of others in `fused`
    modules: dict[str, LayerModule]
    fused_modules: dict[str, LayerModule]
    overwritten: frozenset[str]  # ids of blobs of `fused` that a layer changes where they lie

    @staticmethod
    def of(graph: Graph, run: RunState, *, fuse: bool) -> Form:
        """The form of a graph whose layers act in the mode already."""
        rewritten = optimize(graph) if fuse else Rewritten(graph)
        fused = rewritten.graph
        overwritten = (
            node.bottoms[0].id for node in fused.nodes if isinstance(node.layer, ElementWise) and node.layer.overwrites
        )
        modules = _modules(graph, run), _modules(fused, run)
        return Form(graph, fused, rewritten.replaced, *modules, frozenset(overwritten))

    def reaches_inside(self, todo: Plan) -> bool:
        """Whether a layer that became part of another is left out or its top given, or a blob that would be changed.

        Then each layer runs by itself, as written.
        """
        given = {blob.id for blob in todo.inputs}
        return (
            not self.gone <= {node.id for node in todo.nodes}
            or any(top.id in given for node in todo.nodes if node.id in self.gone for top in node.tops)
            or not self.overwritten.isdisjoint(given)
        )


def prepare(graph: Graph, *, writes_files: bool) -> None:
    """Tell the layers of a graph that they are to run; NetError, with its place, where one may not."""
    for node in graph.nodes:
        try:
            if isinstance(node.layer, Layer) and (writes_files or not node.layer.writes_files):
                node.layer.prepare()
        except NetError as problem:
            raise problem.at(location=node.location, layer=node.name) from None


def in_phase(graph: Graph, phase: Phase) -> Graph:
    """The graph with its layers acting in a phase. Which layers, sources and crops it has stays as it was built."""
    nodes = []
    for node in graph.nodes:
        layer = node.layer.in_phase(phase, node.message) if isinstance(node.layer, Layer) else node.layer
        nodes.append(node if layer is node.layer else replace(node, layer=layer))
    return replace(graph, nodes=tuple(nodes))


def _modules(graph: Graph, run: RunState) -> dict[str, LayerModule]:
    """The layers by their nodes' names; those of the graph as written and of what runs may be named alike."""
    return {
        module_name(node): LayerModule(node.layer, run)
        for node in graph.nodes
        if isinstance(node.layer, Layer)  # all are: an unknown layer is among the problems
    }


@dataclass(frozen=True)
class Plan:
    """What is computed from a choice of given blobs."""

    inputs: tuple[Blob, ...]
    nodes: tuple[Node, ...]
    left_out: tuple[Node, ...]  # because something they read is not there

    def has(self, blob: Blob) -> bool:
        """Whether the blob is given or computed."""
        return blob.id in self._there

    @functools.cached_property
    def _there(self) -> Set[str]:
        return {blob.id for blobs in (self.inputs, *(node.tops for node in self.nodes)) for blob in blobs}


def plan(graph: Graph, given: Collection[str]) -> Plan:
    """Which layers can run when the blobs named in `given` are handed in; these replace what would compute them."""
    inputs: list[Blob] = []
    nodes: list[Node] = []
    left_out: list[Node] = []
    there: set[str] = set()
    for node in graph.nodes:
        handed_in = [top for top in node.tops if top.name in given and top.version == 0]
        inputs.extend(handed_in)
        there.update(top.id for top in handed_in)
        if node.is_source or (node.tops and len(handed_in) == len(node.tops)):
            continue
        if all(bottom.id in there for bottom in node.bottoms):
            nodes.append(node)
            there.update(top.id for top in node.tops)
        else:
            left_out.append(node)
    return Plan(tuple(inputs), tuple(nodes), tuple(left_out))


def build_program(graph: Graph, todo: Plan, outputs: Sequence[Blob], modules: dict[str, LayerModule]) -> fx.GraphModule:
    """A pure function of the plan's inputs and then of `graph.params`; it returns the blobs asked for, as a tuple.

    Built node by node: symbolic tracing would lose the backward rules that are Caffe's own.
    """
    code = fx.Graph()
    values: dict[str, fx.Node] = {}
    for index, blob in enumerate(todo.inputs):
        # fx pastes this name into its code: it must not be one from a file, nor be like a parameter's, `x_0`.
        values[blob.id] = code.placeholder(f"blob{index}")
    params = {param.id: code.placeholder(param.id) for param in graph.params}
    for node in todo.nodes:
        bottoms = tuple(
            code.call_method("detach", (values[blob.id],)) if cut else values[blob.id]
            for blob, cut in zip(node.bottoms, node.cut, strict=True)
        )
        uses = tuple(_use(code, params[use.param.id], use) for use in node.params)
        tops = code.call_module(module_name(node), (bottoms, uses))
        for index, top in enumerate(node.tops):
            if top.id not in values:  # given instead
                values[top.id] = code.call_function(operator.getitem, (tops, index))
    code.output(tuple(values[blob.id] for blob in outputs))
    return fx.GraphModule(dict(modules), code, class_name="Program")


def bare(program: fx.GraphModule) -> Callable[..., tuple[Tensor, ...]]:
    """The program's code with the layers' own functions in it: the same, without what torch does at a call of a module.

    In a small net that is a third of the time. Hooks on the layers' modules are not called.
    """
    layers = {name: module.forward for name, module in program.named_children() if isinstance(module, LayerModule)}
    code: Callable[..., tuple[Tensor, ...]] = type(program).forward
    return functools.partial(code, SimpleNamespace(**layers))


def module_name(node: Node) -> str:
    """The attribute a node's module gets; the prefix keeps it apart from what every torch module has."""
    return f"layer_{node.id}"


def _use(code: fx.Graph, param: fx.Node, use: ParamUse) -> fx.Node:
    """The parameter as a layer sees it: in its own shape, and without gradient where its lr_mult is 0."""
    if not use.takes_gradient and not use.param.statistic:
        param = code.call_method("detach", (param,))
    if use.shape != use.param.shape and use.shape is not None:
        param = code.call_method("view", (param, use.shape))
    return param
