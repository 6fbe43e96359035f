"""Check solver files and the nets that they name."""

import os
from collections.abc import Iterator, Sequence

from siamese_proto.check.findings import as_finding, in_order, old_format
from siamese_proto.check.net import InputShapes, check_states, odd_paths
from siamese_proto.compiler import build_graph
from siamese_proto.errors import NetError, quoted
from siamese_proto.graph.ir import Finding
from siamese_proto.graph.select import NetState, select_layers
from siamese_proto.proto.parsed import ParsedSolver
from siamese_proto.proto.reader import parse_solver
from siamese_proto.solver.settings import NetSource, Settings, find_problems, read_settings
from siamese_proto.solver.test_coverage import first_coverage, untested_records

_NO_MAX_ITER = "max_iter is missing: `train` needs it, only `Solver.step` does not"


def check_solver(
    path: str | os.PathLike[str], shapes: InputShapes | None = None, *, notes: bool = False
) -> list[Finding]:
    """Return the findings about a solver file in the order of its lines, then those about each net that it names.

    Each net is checked only in the phases, levels and stages that the solver builds it for; see `check_net` for
    `shapes` and `notes`.
    """
    file = os.fspath(path)
    problems: list[NetError] = []
    findings: list[Finding] = []
    sources: list[NetSource] = []
    try:
        parsed = parse_solver(path)
        if parsed.upgrades:
            findings.append(old_format(parsed, parsed.source.find("type")))
        findings.extend(odd_paths(parsed))
        problems.extend(find_problems(parsed))
        if not parsed.message.HasField("max_iter"):
            findings.append(Finding(parsed.source.location, "warning", "solver", _NO_MAX_ITER))
        settings = read_settings(parsed)
        sources = [settings.net, *(test.source for test in settings.test_nets)]
        findings.extend(_incomplete_tests(parsed, settings))
        findings.extend(_impossible_snapshots(parsed, settings))
    except NetError as problem:
        problems.append(problem)
    unique = {str(problem): problem for problem in problems}
    findings.extend(as_finding(problem, "solver", file) for problem in unique.values())
    return [*in_order(findings), *_of_nets(sources, shapes or InputShapes(), notes=notes)]


def _of_nets(sources: Sequence[NetSource], shapes: InputShapes, *, notes: bool) -> Iterator[Finding]:
    """Return the findings about each net, in all states that the solver builds it for."""
    nets: dict[str, list[NetSource]] = {}
    for source in sources:
        nets.setdefault(source.description.partition(" file: ")[2] or source.description, []).append(source)
    for uses in nets.values():
        states = dict.fromkeys(NetState(use.phase, use.level, use.stages) for use in uses)
        yield from check_states(uses[0].parsed, states, shapes, notes=notes)


def _incomplete_tests(parsed: ParsedSolver, settings: Settings) -> Iterator[Finding]:
    """Tests with fewer batches than records: Caffe scores the first records, and continues there in the next test."""
    for index, test in enumerate(settings.test_nets):
        source = test.source
        try:
            size = first_coverage(build_graph(source.parsed, source.phase, source.level, source.stages))
        except NetError:
            continue  # reported by the check of the net
        text = untested_records(size, test.iterations) if size is not None else ""
        if text:
            yield Finding(parsed.source.find(f"test_iter[{index}]"), "warning", "test-iter", text)


def _impossible_snapshots(parsed: ParsedSolver, settings: Settings) -> Iterator[Finding]:
    """Layers that Caffe cannot write as HDF5 groups: with equal names, or with `/` in a name (net.cpp: ToHDF5)."""
    if settings.snapshot_format != "HDF5" or not (settings.snapshot or settings.snapshot_after_train):
        return
    net = settings.net
    state = NetState(net.phase, net.level, (*net.parsed.message.state.stage, *net.stages))
    lines: dict[str, int] = {}
    for layer in select_layers(net.parsed, state):
        name, line = layer.message.name, layer.source.location.line
        text = ""
        if name in lines:
            text = f"layers in lines {lines[name]} and {line} of {net.parsed.file} are named {quoted(name)}"
        elif "/" in name and name.rpartition("/")[0] not in lines:
            text = f"layer {quoted(name)} (line {line} of {net.parsed.file}) has a / in its name"
        if text:
            text = f"snapshot_format HDF5: {text}; Caffe stops at the first snapshot; rename them or use BINARYPROTO"
            yield Finding(parsed.source.find("snapshot_format"), "warning", "caffe-refuses", text)
            return
        lines[name] = line
