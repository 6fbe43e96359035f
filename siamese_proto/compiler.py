"""Text to graph in one call: joins what was written (proto), what it means (graph) and what layers there are."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from siamese_proto.errors import GraphError, Location, NetError, quoted
from siamese_proto.graph.build import OnProblem, UnknownBottomError, UnknownLayerError, build, stop_at_once
from siamese_proto.graph.ir import Graph, LayerContext, Phase
from siamese_proto.graph.select import NetState
from siamese_proto.layers.base import Layer, find_layer, registered
from siamese_proto.layers.settings.claims import claim_settings
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedNet, Source
from siamese_proto.proto.reader import InvalidValueError, UnknownFieldError, parse_net, unknown_problems
from siamese_proto.proto.upgrade.net import upgrade_net


def build_graph(
    parsed: str | os.PathLike[str] | ParsedNet | schema.NetParameter,
    phase: Phase = "TRAIN",
    level: int = 0,
    stages: Iterable[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    allow_python_layers: bool = False,
    on_problem: OnProblem = stop_at_once,
) -> Graph:
    """The graph of a parsed net, of a path or text, or of a bare message, for one phase, level and set of stages.

    The stages that the file's own `state` names hold too, as in Caffe. `shapes` gives shapes of inputs by blob name,
    for nets whose database is not there: `{"pair_data": (64, 2, 28, 28)}`. Layers and fields that nobody knows are
    kept in `Graph.problems`. Raises NetError, with file, line and layer, for everything that Caffe refuses too.
    """
    if phase not in get_args(Phase):
        raise GraphError(f"phase is {phase!r}; it must be 'TRAIN' or 'TEST'")
    if isinstance(parsed, schema.NetParameter):
        parsed = _without_positions(parsed)
    elif not isinstance(parsed, ParsedNet):
        parsed = parse_net(parsed)
    state = NetState(phase, level, (*parsed.message.state.stage, *stages))
    given = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    for name, shape in given.items():
        if any(size < 0 for size in shape):
            raise GraphError(f"the shape {shape} given for {quoted(name)} has a size below 0")
    parsed, misread = claim_settings(parsed)
    known_types = {message.name for message in parsed.message.layer if message.type in registered()}
    without_type = {message.name for message in parsed.message.layer if not message.type}
    # Of a layer of an unknown type, the fields that nobody knows are its own: the type alone is the problem.
    explained = known_types | without_type | {None}
    read = [
        cause for cause in unknown_problems(parsed) if cause.layer in explained or isinstance(cause, InvalidValueError)
    ]
    unknown = [*misread, *read]

    unknown_of: defaultdict[str | None, list[NetError]] = defaultdict(list)  # by the name of the layer
    for cause in unknown:
        unknown_of[cause.layer].append(cause)
    explained_by_layer: set[NetError] = set()  # of the unknown fields those that their layer explains itself
    reported: list[NetError] = []

    def tell(problem: NetError) -> None:
        on_problem(problem)
        reported.append(problem)

    def report(problem: NetError) -> None:
        """A misspelt field explains what its layer lacks: it is named in place of that, unless the layer knows it.

        Where nothing is told but the first problem, it may explain what a layer behind lacks too.
        """
        if isinstance(problem, UnknownBottomError):
            tell(problem)
            return
        causes = [] if problem.layer is None else [c for c in unknown_of[problem.layer] if c not in explained_by_layer]
        unknown_fields = [cause for cause in causes if isinstance(cause, UnknownFieldError)]
        known = next((cause for cause in unknown_fields if cause.field == problem.field), None)
        if known is not None:
            explained_by_layer.add(known)
            problem.location = known.location
        if on_problem is stop_at_once and not causes:
            causes = [c for c in unknown if c.layer in known_types and _stands_before(c, problem)]
        tell(causes[0] if causes and known is None else problem)

    graph = build(parsed, state, _make_layer, given, allow_python_layers=allow_python_layers, on_problem=report)
    others = (cause for cause in unknown if cause not in explained_by_layer)
    return replace(graph, problems=tuple(dict.fromkeys([*reported, *graph.problems, *others])))


def _stands_before(cause: NetError, problem: NetError) -> bool:
    """Whether one misspelt field stands before what else is wrong in the same file."""
    if not isinstance(cause, UnknownFieldError) or cause.location is None or problem.location is None:
        return False
    return cause.location.file == problem.location.file and cause.location.line < problem.location.line


def load_graph(
    model: str | os.PathLike[str] | ParsedNet | schema.NetParameter | Graph,
    phase: Phase = "TRAIN",
    level: int = 0,
    stages: Iterable[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    allow_python_layers: bool = False,
) -> Graph:
    """The graph of whatever describes a net: a path or text, a parsed net, a message, or a graph (kept as it is)."""
    if isinstance(model, Graph):
        return model
    return build_graph(model, phase, level, stages, shapes, allow_python_layers=allow_python_layers)


def _make_layer(message: schema.LayerParameter, context: LayerContext) -> Layer:
    try:
        layer_class = find_layer(message.type)
    except GraphError as problem:
        raise UnknownLayerError(problem.message, field="type") from None
    return layer_class(message, context)


def _without_positions(message: schema.NetParameter) -> ParsedNet:
    upgraded = upgrade_net(message)
    here = Source(Location("<message>", 1))
    return ParsedNet(upgraded, tuple(here for _ in upgraded.layer), here)
