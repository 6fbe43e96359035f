"""From a file to a graph in one call: reading (proto), building (graph), and the registered layers."""

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
    """Build the graph of a net for one phase, level and set of stages.

    Args:
        parsed: A path, a text, a parsed net, or a message.
        phase: "TRAIN" or "TEST".
        level: The level that rules of layers are matched with.
        stages: The stages that rules of layers are matched with, in addition to those of the file's `state`.
        shapes: Shapes of inputs by blob name, for nets whose database is missing: `{"pair_data": (64, 2, 28, 28)}`.
        allow_python_layers: Whether Python layers may import their code.
        on_problem: Called with every problem; by default the first one is raised.

    Returns:
        The graph. Its `problems` list unknown layer types and fields too, which are not passed to `on_problem`.

    Raises:
        NetError: with file, line and layer, for every net that Caffe refuses.
    """
    if phase not in get_args(Phase):
        raise GraphError(f"phase is {phase!r}; it must be 'TRAIN' or 'TEST'")
    if isinstance(parsed, schema.NetParameter):
        upgraded = upgrade_net(parsed)
        source = Source(Location("<message>", 1))
        parsed = ParsedNet(upgraded, tuple(source for _ in upgraded.layer), source)
    elif not isinstance(parsed, ParsedNet):
        parsed = parse_net(parsed)
    state = NetState(phase, level, (*parsed.message.state.stage, *stages))
    sizes = {name: tuple(shape) for name, shape in (shapes or {}).items()}
    for name, shape in sizes.items():
        if any(size < 0 for size in shape):
            raise GraphError(f"the shape {shape} given for {quoted(name)} has a negative size")
    parsed, misread = claim_settings(parsed)
    known_types = {message.name for message in parsed.message.layer if message.type in registered()}
    without_type = {message.name for message in parsed.message.layer if not message.type}
    # The unknown fields of a layer of an unknown type belong to that type: only the type is reported.
    reporting = known_types | without_type | {None}
    unknown = [
        *misread,
        *(
            cause
            for cause in unknown_problems(parsed)
            if cause.layer in reporting or isinstance(cause, InvalidValueError)
        ),
    ]

    unknown_of: defaultdict[str | None, list[NetError]] = defaultdict(list)  # by layer name
    for cause in unknown:
        unknown_of[cause.layer].append(cause)
    explained_by_layer: set[NetError] = set()  # the unknown fields that the layer reports itself
    reported: list[NetError] = []

    def pass_on(problem: NetError) -> None:
        on_problem(problem)
        reported.append(problem)

    def report(problem: NetError) -> None:
        """Report a misspelt field instead of the problem that it causes in its layer, unless the layer names it.

        If only the first problem is reported, a misspelt field may cause problems of later layers too.
        """
        if isinstance(problem, UnknownBottomError):
            pass_on(problem)
            return
        causes = [] if problem.layer is None else [c for c in unknown_of[problem.layer] if c not in explained_by_layer]
        unknown_fields = [cause for cause in causes if isinstance(cause, UnknownFieldError)]
        own = next((cause for cause in unknown_fields if cause.field == problem.field), None)
        if own is not None:
            explained_by_layer.add(own)
            problem.location = own.location
        if on_problem is stop_at_once and not causes:
            causes = [c for c in unknown if c.layer in known_types and _is_before(c, problem)]
        pass_on(causes[0] if causes and own is None else problem)

    graph = build(parsed, state, _make_layer, sizes, allow_python_layers=allow_python_layers, on_problem=report)
    others = (cause for cause in unknown if cause not in explained_by_layer)
    return replace(graph, problems=tuple(dict.fromkeys([*reported, *graph.problems, *others])))


def _is_before(cause: NetError, problem: NetError) -> bool:
    """Return whether the cause is a misspelt field before the problem in the same file."""
    if not isinstance(cause, UnknownFieldError) or cause.location is None or problem.location is None:
        return False
    return cause.location.file == problem.location.file and cause.location.line < problem.location.line


def _make_layer(message: schema.LayerParameter, context: LayerContext) -> Layer:
    try:
        layer_class = find_layer(message.type)
    except GraphError as problem:
        raise UnknownLayerError(problem.message, field="type") from None
    return layer_class(message, context)
