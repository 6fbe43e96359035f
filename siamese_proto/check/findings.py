"""Problems as findings, and findings that say the same thing as one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from siamese_proto.errors import Location, NetError
from siamese_proto.graph.build import UnknownLayerError
from siamese_proto.graph.ir import Finding, Phase
from siamese_proto.graph.select import PHASES
from siamese_proto.proto.reader import InvalidValueError, UnknownFieldError


def as_finding(problem: NetError, code: str, file: str) -> Finding:
    """Return a problem as an error with this code, or with the code of its own kind.

    `file` is the place of a problem that has none.
    """
    location = problem.location or Location(file, 1)
    text = str(problem).removeprefix(f"{problem.location}: ").removeprefix(f"{file}: ")
    kinds = ((UnknownLayerError, "unknown-layer"), (UnknownFieldError, "unknown-field"), (InvalidValueError, "syntax"))
    code = next((name for kind, name in kinds if isinstance(problem, kind)), code)
    return Finding(location, "error", code, text)


def old_dialect(notes: Sequence[str], file: str) -> str:
    """What was changed to bring a file to today's dialect, and the command that does it for good."""
    more = f", and {len(notes) - 2} changes more" if len(notes) > 3 else ""
    told = notes[:2] if more else notes
    source = Path(file)
    target = source.with_name(f"{source.stem}_new{source.suffix or '.prototxt'}")
    return f"{'; '.join(told)}{more}. For good: siamese-proto upgrade {shlex.quote(file)} {shlex.quote(str(target))}"


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Each finding once, in the order of the text."""
    once = {str(finding): finding for finding in findings}
    return sorted(once.values(), key=lambda finding: (finding.location.line, finding.location.column))


_VARIES = re.compile(r"\b(?:TRAIN|TEST)\b|\d+")
_PHASE = re.compile(r"\bphase (?:TRAIN|TEST)\b")


def merge_phases(found: Iterable[tuple[Phase, Finding]]) -> list[Finding]:
    """Findings of both phases, where those that differ only in the phase are one finding that names both."""
    groups: dict[tuple[Location, str, str, str], dict[Phase, dict[str, Finding]]] = {}
    for phase, finding in found:
        key = (finding.location, finding.severity, finding.code, _VARIES.sub("#", finding.text))
        groups.setdefault(key, {}).setdefault(phase, {})[finding.text] = finding
    merged: list[Finding] = []
    for by_phase in groups.values():
        texts = {text: finding for findings in by_phase.values() for text, finding in findings.items()}
        one_each = all(len(findings) == 1 for findings in by_phase.values())
        merged.extend([_in_both(next(iter(texts.values())))] if len(texts) == 2 and one_each else texts.values())
    return merged


def _in_both(finding: Finding) -> Finding:
    """The finding of one phase as that of both; the numbers in its text are those of its own phase."""
    both = " and ".join(PHASES)
    text, count = _PHASE.subn(f"phases {both}", finding.text)
    return replace(finding, text=text if count else f"{finding.text} (phases {both}; the numbers are those of TRAIN)")


def count_kinds(found: Iterable[tuple[str, Finding]]) -> list[Finding]:
    """One finding for each kind: the first in the text, with the number of places where there is another."""
    groups: dict[str, dict[Location, Finding]] = {}
    for kind, finding in found:
        groups.setdefault(kind, {}).setdefault(finding.location, finding)
    return [_counted(in_order(group.values())) for group in groups.values()]


def _counted(findings: Sequence[Finding]) -> Finding:
    first, *others = findings
    if not others:
        return first
    return replace(first, text=f"{first.text} (and in {len(others)} more place{'s' * (len(others) > 1)} of this file)")
