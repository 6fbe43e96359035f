"""siamese-proto check: what is wrong with files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from siamese_proto.check.findings import as_finding
from siamese_proto.check.net import check_net
from siamese_proto.check.solver import check_solver
from siamese_proto.cli.options import stages_and_level
from siamese_proto.errors import NetError
from siamese_proto.graph.ir import Finding
from siamese_proto.proto.kind import kind_of


@click.command()
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@stages_and_level
@click.option(
    "--format",
    "text_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="One line a finding, or one list of objects.",
)
@click.pass_context
def check(ctx: click.Context, files: tuple[Path, ...], level: int, stages: tuple[str, ...], text_format: str) -> None:
    """Report every problem of nets and solver files, one a line: `file:line: error|warning[code]: text`.

    Exit status 1 if one of them is an error, 0 if there are only warnings. A solver's own level and stages hold for
    the nets that it names.
    """
    by_file = {file: findings(file, level, stages) for file in files}
    found = [finding for of_file in by_file.values() for finding in of_file]
    if text_format == "json":
        click.echo(json.dumps([_as_object(finding) for finding in found], indent=2, ensure_ascii=False))
    else:
        for file, of_file in by_file.items():
            click.echo("\n".join(map(str, of_file)) or f"{file}: no problems")
    ctx.exit(1 if any(finding.severity == "error" for finding in found) else 0)


def _as_object(finding: Finding) -> dict[str, str | int]:
    place = finding.location
    return {
        "file": place.file,
        "line": place.line,
        "column": place.column,
        "severity": finding.severity,
        "code": finding.code,
        "text": finding.text,
    }


def findings(file: Path, level: int = 0, stages: tuple[str, ...] = ()) -> list[Finding]:
    """What there is to say of a file, whatever it holds."""
    try:
        return check_solver(file) if kind_of(file) == "solver" else check_net(file, level, stages or None)
    except NetError as problem:  # no prototxt at all, so neither of the two
        return [as_finding(problem, "syntax", str(file))]
