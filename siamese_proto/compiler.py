"""Text to graph in one call: joins what was written (proto), what it means (graph) and what layers there are."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from siamese_proto.errors import GraphError, Location, NetError, quoted
from siamese_proto.graph.build import OnProblem, UnknownLayerError, build, stop_at_once
from siamese_proto.graph.effects import idle_fields
from siamese_proto.graph.ir import Finding, Graph, LayerContext, Phase
from siamese_proto.graph.lint import lint
from siamese_proto.graph.select import PHASES, NetState
from siamese_proto.layers.base import Layer, find_layer
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedNet, Source
from siamese_proto.proto.reader import parse_net, unknown_problems
from siamese_proto.proto.upgrade import upgrade_net


def build_graph(
    parsed: ParsedNet | schema.NetParameter,
    phase: Phase = "TRAIN",
    level: int = 0,
    stages: Iterable[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    allow_python_layers: bool = False,
    on_problem: OnProblem = stop_at_once,
) -> Graph:
    """The graph of a parsed net, or of a bare message, for one phase, level and set of stages.

    The stages that the file's own `state` names hold too, as in Caffe. `shapes` gives shapes of inputs by blob name,
    for nets whose database is not there: `{"pair_data": (64, 2, 28, 28)}`. Layers and fields that nobody knows are
    kept in `Graph.problems`. Raises NetError, with file, line and layer, for everything that Caffe refuses too.
    """
    if phase not in get_args(Phase):
        raise GraphError(f"phase is {phase!r}; it must be 'TRAIN' or 'TEST'")
    if isinstance(parsed, schema.NetParameter):
        parsed = _without_positions(parsed)
    state = NetState(phase, level, (*parsed.message.state.stage, *stages))
    given = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    unknown = unknown_problems(parsed)

    def report(problem: NetError) -> None:
        """A misspelt field explains what its layer lacks; so it is named in place of that."""
        causes = [cause for cause in unknown if cause.layer is not None and cause.layer == problem.layer]
        on_problem(causes[0] if causes else problem)

    graph = build(parsed, state, _make_layer, given, allow_python_layers=allow_python_layers, on_problem=report)
    return replace(graph, problems=(*graph.problems, *unknown))


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
    parsed = parse_net(model) if isinstance(model, str | os.PathLike) else model
    return build_graph(parsed, phase, level, stages, shapes, allow_python_layers=allow_python_layers)


def check_net(path: str | os.PathLike[str]) -> list[Finding]:
    """Every finding about a net file, in the order of its lines; both phases are looked at."""
    try:
        parsed = parse_net(path)
    except NetError as problem:
        return [_as_finding(problem, "syntax", os.fspath(path))]
    found: dict[str, Finding] = {}
    for phase in PHASES:
        problems: list[NetError] = []
        try:
            graph = build_graph(parsed, phase, on_problem=problems.append)
        except NetError as problem:
            problems.append(problem)
        else:
            problems.extend(graph.problems)
            # What stands behind a layer at fault breaks invariants; only the fault itself is worth telling.
            told = [finding for finding in lint(graph) if not problems or finding.code != "invariant"]
            told.extend(_without_effect(graph, parsed))
            found.update({str(finding): finding for finding in told})
        findings = [_as_finding(problem, "net", parsed.file) for problem in problems]
        found.update({str(finding): finding for finding in findings})
    return sorted(found.values(), key=lambda finding: (finding.location.line, finding.location.column))


def _without_effect(graph: Graph, parsed: ParsedNet) -> Iterator[Finding]:
    """Fields that were written and change nothing, each at its own line."""
    sources = {source.location: source for source in parsed.layers}
    for node in graph.nodes:
        for idle in idle_fields(node.layer, node.message) if node.layer is not None else ():
            text = f"layer {quoted(node.name)}: {idle.text}"
            location = sources[node.location].find(idle.path)
            if idle.refused:
                yield Finding(location, "error", "net", text)
            else:
                yield Finding(location, "warning", "no-effect", text)


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


def _as_finding(problem: NetError, code: str, file: str) -> Finding:
    location = problem.location or Location(file, 1)
    text = str(problem).removeprefix(f"{problem.location}: ")
    return Finding(location, "error", code, text)
