"""Write findings in the formats of editors, GitHub and code scanners."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

from siamese_proto.graph.ir import Finding

_GITHUB_LEVELS = {"error": "error", "warning": "warning", "note": "notice"}
_SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def as_json(findings: Sequence[Finding]) -> str:
    """Return a list with one object for each finding."""
    objects = [
        {**asdict(finding.location), "severity": finding.severity, "code": finding.code, "text": finding.text}
        for finding in findings
    ]
    return json.dumps(objects, indent=2, ensure_ascii=False)


def as_github(findings: Sequence[Finding]) -> str:
    """Return one workflow command for each finding, which GitHub shows at the line of the file."""
    return "\n".join(
        f"::{_GITHUB_LEVELS[finding.severity]} file={_property(finding.location.file)},line={finding.location.line},"
        f"col={finding.location.column},title={_property(finding.code)}::{_message(finding.text)}"
        for finding in findings
    )


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def as_sarif(findings: Sequence[Finding]) -> str:
    """Return a log in SARIF 2.1.0, the format of code scanners."""
    codes = sorted({finding.code for finding in findings})
    driver = {
        "name": "siamese-proto",
        "version": metadata.version("siamese-proto"),
        "rules": [{"id": code, "name": code, "shortDescription": {"text": code.replace("-", " ")}} for code in codes],
    }
    results = [
        {
            "ruleId": finding.code,
            "ruleIndex": codes.index(finding.code),
            "level": finding.severity,
            "message": {"text": finding.text},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _uri(finding.location.file)},
                        "region": {"startLine": finding.location.line, "startColumn": finding.location.column},
                    }
                }
            ],
        }
        for finding in findings
    ]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _uri(file: str) -> str:
    path = Path(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
