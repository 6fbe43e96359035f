"""Every finding about a net file."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from siamese_proto.check.caffe import differences
from siamese_proto.check.findings import as_finding, count_kinds, in_order, merge_phases, old_dialect
from siamese_proto.check.idle_fields import Idle, idle_fields
from siamese_proto.check.lint import lint
from siamese_proto.check.paths import odd_paths
from siamese_proto.compiler import build_graph
from siamese_proto.errors import DataError, Location, NetError, quoted
from siamese_proto.graph.build import UnknownBottomError
from siamese_proto.graph.ir import Finding, Graph, Node, Phase, Shape
from siamese_proto.graph.select import PHASES, NetState, names_phase, stages_asked_for
from siamese_proto.layers.base import DataLayer
from siamese_proto.layers.pair_labels import odd_sources
from siamese_proto.proto.load import PathOrText
from siamese_proto.proto.parsed import ParsedNet, Source
from siamese_proto.proto.reader import is_engine, parse_net

# A file that asks for more sets of stages than these is looked at in the first of them.
_MOST_STAGES = 8


@dataclass
class Given:
    """Shapes of inputs by blob name, for whichever of the nets looked at have the blob.

    `used` collects the names that some net had.
    """

    shapes: Mapping[str, Shape] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def to(self, parsed: ParsedNet) -> dict[str, Shape]:
        """Return the shapes of blobs that layers of this file make."""
        tops = {top for layer in parsed.message.layer for top in layer.top} if self.shapes else set[str]()
        self.used |= tops & self.shapes.keys()
        return {name: shape for name, shape in self.shapes.items() if name in tops}


def check_net(
    path: PathOrText,
    level: int = 0,
    stages: Iterable[str] | None = None,
    given: Given | None = None,
    *,
    notes: bool = False,
) -> list[Finding]:
    """Return every finding about a net file, in the order of its lines.

    The net is looked at in the phases that it is meant for. Without `stages`, also in those that its own rules ask
    for, as far as it is whole there. With `notes`, also says what could not be checked.
    """
    try:
        parsed = parse_net(path)
    except NetError as problem:
        return [as_finding(problem, "syntax", os.fspath(path))]
    asked = tuple(stages) if stages is not None else None
    looks = list(_meant_states(parsed, level, asked, given or Given()))
    return _report(parsed, looks, notes=notes)


def check_states(parsed: ParsedNet, states: Iterable[NetState], given: Given, *, notes: bool = False) -> list[Finding]:
    """Return every finding about a net in the given states, all of which are meant."""
    looks = [_look_at(parsed, state, given) for state in states]
    return _report(parsed, looks, notes=notes)


class _Look(NamedTuple):
    """What there is to say about a net in one state."""

    phase: Phase
    findings: list[Finding]
    idle: list[tuple[str, Finding]]  # fields without effect, each with its kind
    is_whole: bool  # no blob is missing because the layer that makes it is left out


def _report(parsed: ParsedNet, looks: Sequence[_Look], *, notes: bool) -> list[Finding]:
    found = [
        *_of_old_dialects(parsed),
        *odd_paths(parsed),
        *count_kinds([*_engines_of_forks(parsed), *(idle for look in looks for idle in look.idle)]),
        *merge_phases((look.phase, finding) for look in looks for finding in look.findings),
    ]
    return in_order(finding for finding in found if notes or finding.severity != "note")


def _meant_states(parsed: ParsedNet, level: int, stages: tuple[str, ...] | None, given: Given) -> Iterator[_Look]:
    """Look at the states a net is meant for.

    A file does not say which states it is built for. Where blobs are missing because the layers that make them are
    left out, the state is not one of them, as long as there is another, and no layer exists for that phase alone.
    """
    seen: dict[Phase, list[_Look]] = {}
    for phase in PHASES:
        asked = [stages] if stages is not None else [(), *stages_asked_for(parsed, phase)[:_MOST_STAGES]]
        seen[phase] = [_look_at(parsed, NetState(phase, level, each), given) for each in asked]
    for phase, looks in seen.items():
        whole = [look for look in looks if look.is_whole]
        others_whole = any(look.is_whole for other in PHASES if other != phase for look in seen[other])
        if not whole and (names_phase(parsed, phase) or not others_whole):
            whole = looks[:1]
        yield from whole


def _look_at(parsed: ParsedNet, state: NetState, given: Given) -> _Look:
    problems: list[NetError] = []
    found: list[Finding] = []
    idle: list[tuple[str, Finding]] = []
    try:
        shapes = given.to(parsed)
        graph = build_graph(parsed, state.phase, state.level, state.stages, shapes, on_problem=problems.append)
    except NetError as problem:
        problems.append(problem)
    else:
        problems = list(graph.problems)  # those of above and what is unknown
        sources = {source.location: source for source in parsed.layers}

        def place(node: Node, path: str) -> Location:
            return sources[node.location].find(path)

        # What stands after a layer at fault breaks invariants; only the fault itself is worth reporting.
        found.extend(finding for finding in lint(graph, place) if not problems or finding.code != "invariant")
        found.extend(differences(graph, place))
        found.extend(_of_data(graph))
        found.extend(_not_checked(graph))
        idle.extend(_without_effect(graph, sources))
    found.extend(as_finding(problem, "net", parsed.file) for problem in problems)
    is_whole = not any(isinstance(problem, UnknownBottomError) and problem.left_out for problem in problems)
    return _Look(state.phase, found, idle, is_whole)


def _of_data(graph: Graph) -> Iterator[Finding]:
    """Labels of pairs that are not 0 and 1, and values that are not finite, as far as they are quick to see."""
    for node in graph.nodes:
        try:
            text = node.layer.bad_values() if isinstance(node.layer, DataLayer) else ""
        except DataError as problem:
            yield as_finding(problem.at(location=node.location, layer=node.name), "net", graph.file)
            continue
        if text:
            yield Finding(node.location, "warning", "not-finite", f"layer {quoted(node.name)}: {text}")
    try:
        for _, node, text, is_error in odd_sources(graph):
            severity: Literal["error", "warning"] = "error" if is_error else "warning"
            yield Finding(node.location, severity, "pair-labels", f"layer {quoted(node.name)}: {text}")
    except DataError as problem:
        yield as_finding(problem, "net", graph.file)


def _not_checked(graph: Graph) -> Iterator[Finding]:
    """A note for each layer whose tops have unknown shapes because its source does not exist, with what to give."""
    for node in graph.nodes if graph.notes else ():
        unknown = [top.name for top in node.tops if top.shape is None]
        prefix = f"layer {quoted(node.name)}: "
        reason = next((note.partition(prefix)[2] for note in graph.notes if prefix in note), "")
        if not unknown or not reason:
            continue
        # One shape is enough where the layer's other tops follow from it.
        apart = node.layer is None or node.layer.type in ("HDF5Data", "Python")
        options = " ".join(f"--shape {shlex.quote(name)}=N,C,H,W" for name in (unknown if apart else unknown[:1]))
        names = ", ".join(map(quoted, unknown))
        what = f"what depends on the shape{'s' * (len(unknown) > 1)} of {names}"
        text = f"{prefix}{what} was not checked: {reason}. To check it: {options}"
        yield Finding(node.location, "note", "not-checked", text)


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


def _engines_of_forks(parsed: ParsedNet) -> Iterator[tuple[str, Finding]]:
    sources = ((f"layer {quoted(m.name)}: ", s) for m, s in zip(parsed.message.layer, parsed.layers, strict=True))
    for where, source in (("", parsed.source), *sources):
        for path, raw in source.unknown:
            if is_engine(raw):
                name = f"{path}.engine".lstrip(".")
                text = f"{where}{name} {raw.value} has no effect: torch chooses how to compute"
                yield f"engine {raw.value}", Finding(raw.location, "warning", "no-effect", text)


def _without_effect(graph: Graph, sources: Mapping[Location, Source]) -> Iterator[tuple[str, Finding]]:
    """Fields that were written and change nothing, each at its own line, with its kind."""
    for node in graph.nodes:
        for idle in idle_fields(node.layer, node.message) if node.layer is not None else ():
            text = f"layer {quoted(node.name)}: {idle.text}"
            location = sources[node.location].find(idle.path)
            if idle.refused:
                yield f"{location.line} {location.column} {text}", Finding(location, "error", "net", text)
            else:
                yield _kind(idle), Finding(location, "warning", "no-effect", text)


def _kind(idle: Idle) -> str:
    """The text without the place of the field: `std` has no effect on a filler of type 'xavier'."""
    return idle.text.replace(idle.path, idle.path.rpartition(".")[2])
