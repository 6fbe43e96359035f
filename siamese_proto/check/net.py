"""Check net files."""

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from google.protobuf.message import Message

from siamese_proto.check.caffe import caffe_differences
from siamese_proto.check.findings import as_finding, count_kinds, in_order, merge_phases, old_format
from siamese_proto.check.idle_fields import idle_fields
from siamese_proto.check.lint import lint
from siamese_proto.compiler import build_graph
from siamese_proto.errors import DataError, Location, NetError, quoted
from siamese_proto.files import control_hint
from siamese_proto.graph.build import UnknownBottomError
from siamese_proto.graph.ir import Finding, Graph, Node, Phase, Shape
from siamese_proto.graph.select import PHASES, NetState, names_phase, stages_asked_for
from siamese_proto.layers.base import DataLayer
from siamese_proto.layers.pair_labels import odd_sources
from siamese_proto.proto.load import PathOrText
from siamese_proto.proto.parsed import ParsedNet, ParsedSolver, Source
from siamese_proto.proto.reader import is_engine, parse_net

_MOST_STAGES = 8  # sets of stages that are checked, of those that a file names
# Fields that hold paths, in layers and in solver files.
_PATHS = {"source", "labels", "mean_file", "root_folder", "file_name"}
_SOLVER_PATHS = {"net", "train_net", "test_net", "snapshot_prefix", "weights"}


@dataclass
class InputShapes:
    """Shapes of input blobs by name, for all nets that are checked; `used` collects the names that some net has."""

    shapes: Mapping[str, Shape] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def of_net(self, parsed: ParsedNet) -> dict[str, Shape]:
        """Return the shapes of blobs that this net has."""
        tops = {top for layer in parsed.message.layer for top in layer.top} if self.shapes else set[str]()
        self.used |= tops & self.shapes.keys()
        return {name: shape for name, shape in self.shapes.items() if name in tops}


def check_net(
    path: PathOrText,
    level: int = 0,
    stages: Iterable[str] | None = None,
    shapes: InputShapes | None = None,
    *,
    notes: bool = False,
) -> list[Finding]:
    """Return every finding about a net file, in the order of its lines.

    The net is checked in the phases that it is meant for. A file does not say which these are. If blobs are missing
    because their layers are left out in a phase, the file is not meant for it, unless the other phase is no better or a
    layer names the phase.

    Args:
        path: The path or the text of the net.
        level: Level for the include rules of layers.
        stages: Stages for the include rules; by default none and each set of stages that the rules name.
        shapes: Shapes of input blobs whose data is missing.
        notes: Whether to include notes about what cannot be checked.
    """
    try:
        parsed = parse_net(path)
    except NetError as problem:
        return [as_finding(problem, "syntax", os.fspath(path))]
    shapes = shapes or InputShapes()
    requested = tuple(stages) if stages is not None else None
    in_phase: dict[Phase, list[_StateFindings]] = {}
    for phase in PHASES:
        all_stages = [requested] if requested is not None else [(), *stages_asked_for(parsed, phase)[:_MOST_STAGES]]
        in_phase[phase] = [_check_state(parsed, NetState(phase, level, each), shapes) for each in all_stages]
    reported: list[_StateFindings] = []
    for phase, states in in_phase.items():
        complete = [state for state in states if state.is_complete]
        other_is_complete = any(state.is_complete for other in PHASES if other != phase for state in in_phase[other])
        if not complete and (names_phase(parsed, phase) or not other_is_complete):
            complete = states[:1]
        reported.extend(complete)
    return _report(parsed, reported, notes=notes)


def check_states(
    parsed: ParsedNet, states: Iterable[NetState], shapes: InputShapes, *, notes: bool = False
) -> list[Finding]:
    """Return every finding about a net in the given states; see `check_net`."""
    return _report(parsed, [_check_state(parsed, state, shapes) for state in states], notes=notes)


class _StateFindings(NamedTuple):
    """The findings about a net in one state."""

    phase: Phase
    findings: list[Finding]
    idle: list[tuple[str, Finding]]  # fields without effect, each with its kind
    is_complete: bool  # no blob is missing because its layer is left out


def _report(parsed: ParsedNet, states: Sequence[_StateFindings], *, notes: bool) -> list[Finding]:
    findings = [
        *_old_format(parsed),
        *odd_paths(parsed),
        *count_kinds([*_engines_of_forks(parsed), *(idle for state in states for idle in state.idle)]),
        *merge_phases((state.phase, finding) for state in states for finding in state.findings),
    ]
    return in_order(finding for finding in findings if notes or finding.severity != "note")


def _check_state(parsed: ParsedNet, state: NetState, shapes: InputShapes) -> _StateFindings:
    problems: list[NetError] = []
    findings: list[Finding] = []
    idle: list[tuple[str, Finding]] = []
    try:
        inputs = shapes.of_net(parsed)
        graph = build_graph(parsed, state.phase, state.level, state.stages, inputs, on_problem=problems.append)
    except NetError as problem:
        problems.append(problem)
    else:
        problems = list(graph.problems)  # these and unknown fields
        sources = {source.location: source for source in parsed.layers}

        def find_field(node: Node, path: str) -> Location:
            return sources[node.location].find(path)

        # A layer with errors breaks invariants of the layers after it; only its errors are reported.
        findings.extend(each for each in lint(graph, find_field) if not problems or each.code != "invariant")
        findings.extend(warning.finding(find_field) for warning in caffe_differences(graph))
        findings.extend(_data_findings(graph))
        findings.extend(_not_checked(graph))
        idle.extend(_without_effect(graph, sources))
    findings.extend(as_finding(problem, "net", parsed.file) for problem in problems)
    is_complete = not any(isinstance(problem, UnknownBottomError) and problem.left_out for problem in problems)
    return _StateFindings(state.phase, findings, idle, is_complete)


def _data_findings(graph: Graph) -> Iterator[Finding]:
    """Labels of pairs that are not 0 and 1, and values that are not finite, if they can be found quickly."""
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
    """A note for each layer whose tops have unknown shapes because its source does not exist."""
    for node in graph.nodes if graph.notes else ():
        unknown = [top.name for top in node.tops if top.shape is None]
        prefix = f"layer {quoted(node.name)}: "
        reason = next((note.partition(prefix)[2] for note in graph.notes if prefix in note), "")
        if not unknown or not reason:
            continue
        # For most layers one shape is enough, because the other tops follow from it.
        needs_all = node.layer is None or node.layer.type in ("HDF5Data", "Python")
        options = " ".join(f"--shape {shlex.quote(name)}=N,C,H,W" for name in (unknown if needs_all else unknown[:1]))
        shapes = f"shape{'s' * (len(unknown) > 1)} of {', '.join(map(quoted, unknown))}"
        text = f"{prefix}layers that depend on the {shapes} were not checked: {reason}. To check them: {options}"
        yield Finding(node.location, "note", "not-checked", text)


def _old_format(parsed: ParsedNet) -> Iterator[Finding]:
    """A warning if the file needs an upgrade, at its first old layer."""
    if not parsed.upgrades:
        return
    old = [source.location for source in parsed.layers]
    if all(note.startswith("layer ") for note in parsed.upgrades):
        layers = zip(parsed.message.layer, parsed.layers, strict=True)
        old = [source.find("param[0]") for layer, source in layers if layer.type == "BatchNorm" and layer.param]
    if all(note.startswith("read as ") for note in parsed.upgrades):
        old = []
    yield old_format(parsed, old[0] if old else Location(parsed.file, 1))


def odd_paths(parsed: ParsedNet | ParsedSolver) -> Iterator[Finding]:
    """Yield a warning for each path with a control character, because a backslash in quotes starts an escape."""
    if isinstance(parsed, ParsedSolver):
        yield from _odd_paths(parsed.message, parsed.source, "", _SOLVER_PATHS)
        return
    for layer, source in zip(parsed.message.layer, parsed.layers, strict=True):
        yield from _odd_paths(layer, source, f"layer {quoted(layer.name)}: ", _PATHS)


def _odd_paths(message: Message, source: Source, where: str, names: set[str], prefix: str = "") -> Iterator[Finding]:
    for descriptor, value in message.ListFields():
        path = f"{prefix}{descriptor.name}"
        if isinstance(value, Message):
            if not prefix and descriptor.name.endswith("_param"):
                yield from _odd_paths(value, source, where, names, f"{path}.")
        elif descriptor.name in names:
            for index, text in [(None, value)] if isinstance(value, str) else enumerate(value):
                if hint := control_hint(text):
                    location = source.find(path if index is None else f"{path}[{index}]")
                    yield Finding(location, "warning", "odd-path", f"{where}{path} {quoted(text)}{hint}")


def _engines_of_forks(parsed: ParsedNet) -> Iterator[tuple[str, Finding]]:
    sources = ((f"layer {quoted(m.name)}: ", s) for m, s in zip(parsed.message.layer, parsed.layers, strict=True))
    for where, source in (("", parsed.source), *sources):
        for path, raw in source.unknown:
            if is_engine(raw):
                name = f"{path}.engine".lstrip(".")
                text = f"{where}{name} {raw.value} has no effect: torch chooses the implementation"
                yield f"engine {raw.value}", Finding(raw.location, "warning", "no-effect", text)


def _without_effect(graph: Graph, sources: Mapping[Location, Source]) -> Iterator[tuple[str, Finding]]:
    """Fields without effect, each with its kind."""
    for node in graph.nodes:
        for idle in idle_fields(node.layer, node.message) if node.layer is not None else ():
            text = f"layer {quoted(node.name)}: {idle.text}"
            location = sources[node.location].find(idle.path)
            if idle.refused:
                yield f"{location.line} {location.column} {text}", Finding(location, "error", "net", text)
            else:  # fields with the same text except for the message are of one kind
                kind = idle.text.replace(idle.path, idle.path.rpartition(".")[2])
                yield kind, Finding(location, "warning", "no-effect", text)
