"""Findings: made from problems and warnings, and merged if they say the same."""

import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

from siamese_proto.errors import Location, NetError, quoted
from siamese_proto.graph.build import UnknownLayerError
from siamese_proto.graph.ir import Finding, Node, Phase
from siamese_proto.graph.select import PHASES
from siamese_proto.proto.parsed import ParsedNet, ParsedSolver
from siamese_proto.proto.reader import InvalidValueError, UnknownFieldError

FindField: TypeAlias = Callable[[Node, str], Location]
"""Returns the location of a field of a layer, by its path (`param[1].name`)."""


class LayerWarning(NamedTuple):
    """A warning about a field of a layer, by its path, or about the layer itself (path "")."""

    node: Node
    path: str
    code: str
    text: str

    def finding(self, find_field: FindField) -> Finding:
        """Return the warning as a finding."""
        text = f"layer {quoted(self.node.name)}: {self.text}"
        return Finding(find_field(self.node, self.path), "warning", self.code, text)


def as_finding(problem: NetError, code: str, file: str) -> Finding:
    """Return a problem as an error with this code, or with the code of its class.

    A problem without a location is reported at the first line of `file`.
    """
    location = problem.location or Location(file, 1)
    text = str(problem).removeprefix(f"{problem.location}: ").removeprefix(f"{file}: ")
    codes = {UnknownLayerError: "unknown-layer", UnknownFieldError: "unknown-field", InvalidValueError: "syntax"}
    code = next((name for kind, name in codes.items() if isinstance(problem, kind)), code)
    return Finding(location, "error", code, text)


def old_format(parsed: ParsedNet | ParsedSolver, location: Location) -> Finding:
    """Return a warning that lists the first changes of an upgrade, with the command that upgrades the file."""
    notes = parsed.upgrades
    shown = notes if len(notes) <= 3 else (*notes[:2], f"and {len(notes) - 2} more changes")
    source = Path(parsed.file)
    target = source.with_name(f"{source.stem}_new{source.suffix or '.prototxt'}")
    command = f"siamese-proto upgrade {shlex.quote(parsed.file)} {shlex.quote(str(target))}"
    return Finding(location, "warning", "old-dialect", f"{'; '.join(shown)}. To upgrade the file: {command}")


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Return each finding once, in the order of the text."""
    unique = {str(finding): finding for finding in findings}
    return sorted(unique.values(), key=lambda finding: (finding.location.line, finding.location.column))


_VARIES = re.compile(r"\b(?:TRAIN|TEST)\b|\d+")
_PHASE = re.compile(r"\bphase (?:TRAIN|TEST)\b")


def merge_phases(findings: Iterable[tuple[Phase, Finding]]) -> list[Finding]:
    """Merge findings that differ only in the phase into one that names both."""
    groups: dict[tuple[Location, str, str, str], dict[Phase, dict[str, Finding]]] = {}
    for phase, finding in findings:
        key = (finding.location, finding.severity, finding.code, _VARIES.sub("#", finding.text))
        groups.setdefault(key, {}).setdefault(phase, {})[finding.text] = finding
    merged: list[Finding] = []
    for by_phase in groups.values():
        texts = {text: finding for by_text in by_phase.values() for text, finding in by_text.items()}
        if len(texts) == 2 and all(len(by_text) == 1 for by_text in by_phase.values()):
            first = next(iter(texts.values()))
            both = f"phases {' and '.join(PHASES)}"
            text, count = _PHASE.subn(both, first.text)
            merged.append(replace(first, text=text if count else f"{first.text} ({both}; the numbers are for TRAIN)"))
        else:
            merged.extend(texts.values())
    return merged


def count_kinds(findings: Iterable[tuple[str, Finding]]) -> list[Finding]:
    """Return the first finding of each kind, with the number of other places in the file."""
    groups: dict[str, dict[Location, Finding]] = {}
    for kind, finding in findings:
        groups.setdefault(kind, {}).setdefault(finding.location, finding)
    return [_counted(in_order(group.values())) for group in groups.values()]


def _counted(findings: Sequence[Finding]) -> Finding:
    first, *others = findings
    if not others:
        return first
    return replace(first, text=f"{first.text} (and in {len(others)} more place{'s' * (len(others) > 1)} of this file)")
