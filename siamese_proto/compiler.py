"""Text to graph in one call: joins what was written (proto), what it means (graph) and what layers there are."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

from siamese_proto.errors import GraphError, Location, NetError, quoted
from siamese_proto.graph.build import OnProblem, UnknownBottomError, UnknownLayerError, build, stop_at_once
from siamese_proto.graph.effects import idle_fields
from siamese_proto.graph.ir import Finding, Graph, LayerContext, Phase
from siamese_proto.graph.lint import lint
from siamese_proto.graph.select import PHASES, NetState, names_phase, stages_asked_for
from siamese_proto.layers.base import Layer, find_layer, registered
from siamese_proto.layers.claims import claim_settings
from siamese_proto.proto import schema
from siamese_proto.proto.load import PathOrText
from siamese_proto.proto.parsed import ParsedNet, Source
from siamese_proto.proto.reader import MisfitError, UnknownFieldError, is_engine, parse_net, unknown_problems
from siamese_proto.proto.upgrade import upgrade_net

# A file that asks for more sets of stages than these is looked at in the first of them.
_MOST_STAGES = 8


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
    unknown = [*misread, *unknown_problems(parsed)]
    known_types = {message.name for message in parsed.message.layer if message.type in registered()}

    def report(problem: NetError) -> None:
        """A misspelt field explains what its layer lacks: it is named in place of that, unless the layer knows it.

        Where nothing is told but the first problem, it may explain what a layer behind lacks too.
        """
        if isinstance(problem, UnknownBottomError):
            on_problem(problem)
            return
        causes = [cause for cause in unknown if cause.layer is not None and cause.layer == problem.layer]
        unknown_fields = [cause for cause in causes if isinstance(cause, UnknownFieldError)]
        known = next((cause for cause in unknown_fields if cause.field == problem.field), None)
        if known is not None:
            unknown.remove(known)
            problem.location = known.location
        if on_problem is stop_at_once and not causes:
            causes = [cause for cause in unknown if cause.layer in known_types and _stands_before(cause, problem)]
        on_problem(causes[0] if causes and known is None else problem)

    graph = build(parsed, state, _make_layer, given, allow_python_layers=allow_python_layers, on_problem=report)
    return replace(graph, problems=(*graph.problems, *unknown))


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


def check_net(path: PathOrText, level: int = 0, stages: Iterable[str] | None = None) -> list[Finding]:
    """Every finding about a net file, in the order of its lines, in the phases that it is meant for.

    Without `stages` in all those too that its own rules ask for, as far as it is whole there.
    """
    try:
        parsed = parse_net(path)
    except NetError as problem:
        return [as_finding(problem, "syntax", os.fspath(path))]
    found = [
        *_of_old_dialects(parsed),
        *_engines_of_forks(parsed),
        *_of_all_states(parsed, level, tuple(stages) if stages is not None else None),
    ]
    once = {str(finding): finding for finding in found}
    return sorted(once.values(), key=lambda finding: (finding.location.line, finding.location.column))


def _engines_of_forks(parsed: ParsedNet) -> Iterator[Finding]:
    sources = ((f"layer {quoted(m.name)}: ", s) for m, s in zip(parsed.message.layer, parsed.layers, strict=True))
    for where, source in (("", parsed.source), *sources):
        for path, raw in source.unknown:
            if is_engine(raw):
                field = f"{path}.engine".lstrip(".")
                text = f"{where}{field} {raw.value} has no effect: torch chooses how to compute"
                yield Finding(raw.location, "warning", "no-effect", text)


def _of_all_states(parsed: ParsedNet, level: int, stages: tuple[str, ...] | None) -> Iterator[Finding]:
    """The findings of the states a net is meant for.

    A file says nothing of the states it is built for: where blobs are lacking because the layers that make them are
    left out, the state is not one of them, as long as there is another, and no layer is there for that phase alone.
    """
    seen: dict[Phase, list[_State]] = {}
    for phase in PHASES:
        asked = [stages] if stages is not None else [(), *stages_asked_for(parsed, phase)[:_MOST_STAGES]]
        seen[phase] = [_look_at(parsed, phase, level, each) for each in asked]
    for phase, states in seen.items():
        whole = [state for state in states if state.is_whole]
        others_whole = any(state.is_whole for other in PHASES if other != phase for state in seen[other])
        if not whole and (names_phase(parsed, phase) or not others_whole):
            whole = states[:1]
        for state in whole:
            yield from state.findings


class _State(NamedTuple):
    findings: list[Finding]
    is_whole: bool  # no blob is lacking because the layer that makes it is left out


def _look_at(parsed: ParsedNet, phase: Phase, level: int, stages: tuple[str, ...]) -> _State:
    problems: list[NetError] = []
    found: list[Finding] = []
    try:
        graph = build_graph(parsed, phase, level, stages, on_problem=problems.append)
    except NetError as problem:
        problems.append(problem)
    else:
        problems.extend(graph.problems)
        sources = {source.location: source for source in parsed.layers}
        for finding in lint(graph, lambda node, field: sources[node.location].find(field)):
            # What stands behind a layer at fault breaks invariants; only the fault itself is worth telling.
            if not problems or finding.code != "invariant":
                found.append(finding)
        found.extend(_without_effect(graph, sources))
    found.extend(as_finding(problem, "net", parsed.file) for problem in problems)
    return _State(found, not any(isinstance(problem, UnknownBottomError) and problem.left_out for problem in problems))


def _of_old_dialects(parsed: ParsedNet) -> Iterator[Finding]:
    """That a file has to be brought to today's dialect before it is used, and how to do it for good."""
    if not parsed.upgrades:
        return
    old = [source.location for source in parsed.layers]
    if all(note.startswith("layer ") for note in parsed.upgrades):
        batch_norms = zip(parsed.message.layer, parsed.layers, strict=True)
        old = [source.find("param[0]") for layer, source in batch_norms if layer.type == "BatchNorm" and layer.param]
    if all(note.startswith("read as ") for note in parsed.upgrades):
        old = []
    location = old[0] if old else Location(parsed.file, 1)
    yield Finding(location, "warning", "old-dialect", old_dialect(parsed.upgrades, parsed.file))


def old_dialect(notes: Sequence[str], file: str) -> str:
    """What was changed to bring a file to today's dialect, and the command that does it for good."""
    more = f", and {len(notes) - 2} changes more" if len(notes) > 3 else ""
    told = notes[:2] if more else notes
    source = Path(file)
    target = source.with_name(f"{source.stem}_new{source.suffix or '.prototxt'}")
    return f"{'; '.join(told)}{more}. For good: siamese-proto upgrade {shlex.quote(file)} {shlex.quote(str(target))}"


def _without_effect(graph: Graph, sources: Mapping[Location, Source]) -> Iterator[Finding]:
    """Fields that were written and change nothing, each at its own line."""
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


def as_finding(problem: NetError, code: str, file: str) -> Finding:
    """A problem as an error of this kind, or of the kind that it is itself; `file` is where it has no place."""
    location = problem.location or Location(file, 1)
    text = str(problem).removeprefix(f"{problem.location}: ").removeprefix(f"{file}: ")
    kinds = ((UnknownLayerError, "unknown-layer"), (UnknownFieldError, "unknown-field"), (MisfitError, "syntax"))
    code = next((name for kind, name in kinds if isinstance(problem, kind)), code)
    return Finding(location, "error", code, text)
