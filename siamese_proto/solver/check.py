"""Everything that is wrong with a solver file and the nets it names."""

from __future__ import annotations

import os

from siamese_proto.compiler import check_net
from siamese_proto.errors import Location, NetError
from siamese_proto.graph.ir import Finding
from siamese_proto.proto.reader import parse_solver
from siamese_proto.solver.settings import find_problems, read_settings


def check_solver(path: str | os.PathLike[str]) -> list[Finding]:
    """The findings about a solver file in the order of its lines, then those about each net file that it names."""
    file = os.fspath(path)
    problems: list[NetError] = []
    net_files: list[str] = []
    try:
        parsed = parse_solver(path)
        problems.extend(find_problems(parsed))
        settings = read_settings(parsed)
        sources = [settings.net, *(test.source for test in settings.test_nets)]
        net_files = [source.parsed.file for source in sources if source.parsed.file != file]
    except NetError as problem:
        problems.append(problem)
    by_text = {str(problem): problem for problem in problems}
    found = [_finding(problem, file) for problem in by_text.values()]
    found.sort(key=lambda finding: (finding.location.line, finding.location.column))
    for net_file in dict.fromkeys(net_files):
        found.extend(check_net(net_file))
    return found


def _finding(problem: NetError, file: str) -> Finding:
    location = problem.location or Location(file, 1)
    return Finding(location, "error", "solver", str(problem).removeprefix(f"{problem.location}: "))
