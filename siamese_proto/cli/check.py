"""siamese-proto check: report errors and likely mistakes in files."""

from collections.abc import Mapping
from pathlib import Path

import click

from siamese_proto.check.findings import as_finding
from siamese_proto.check.formats import as_github, as_json, as_sarif
from siamese_proto.check.net import InputShapes, check_net
from siamese_proto.check.solver import check_solver
from siamese_proto.cli.group import Command, section
from siamese_proto.cli.options import OUTPUT, NetOptions, net_argument, net_options, output_format
from siamese_proto.errors import Location, NetError, quoted
from siamese_proto.graph.ir import Finding
from siamese_proto.proto.excerpt import excerpt
from siamese_proto.proto.load import kind_of

_FORMATS = {"json": as_json, "github": as_github, "sarif": as_sarif}


@click.command(cls=Command)
@net_argument("files", metavar="FILES...", nargs=-1, required=True)
@net_options()
@section(
    OUTPUT,
    click.option("--strict", is_flag=True, help="Exit with status 1 for warnings too."),
    output_format(
        "text",
        *_FORMATS,
        text="Text with the source line, a list of JSON objects, GitHub workflow commands, or a SARIF 2.1.0 log.",
    ),
)
@click.pass_context
def check(ctx: click.Context, files: tuple[Path, ...], state: NetOptions, text_format: str, *, strict: bool) -> None:
    """Check nets and solver files: print `file:line: error|warning|note[code]: text` for each problem.

    Each problem is followed by its source line. A note says what could not be checked, and which shapes to pass to
    check it. In the formats text and json, notes go to stderr. The file `-` is the standard input.

    The exit status is 1 if there is an error, and 0 if there are only warnings and notes. A net that a solver names is
    checked for the phases, level and stages that the solver builds it for.
    """
    input_shapes = InputShapes(state.shapes)
    by_file = {file: findings(file, state.level, state.stages, input_shapes) for file in files}
    unused = sorted(state.shapes.keys() - input_shapes.used)
    if unused:
        raise click.BadParameter(f"no net has a blob named {quoted(unused[0])}", param_hint="--shape")
    if text_format in ("text", "json"):  # notes go to stderr, so that no output means no problems
        for finding in (finding for of_file in by_file.values() for finding in of_file if finding.severity == "note"):
            click.echo(str(finding), err=True)
        by_file = {
            file: [finding for finding in of_file if finding.severity != "note"] for file, of_file in by_file.items()
        }
    all_findings = [finding for of_file in by_file.values() for finding in of_file]
    text = _FORMATS[text_format](all_findings) if text_format in _FORMATS else _as_text(by_file)
    if text:
        click.echo(text)
    failing = ("error", "warning") if strict else ("error",)
    ctx.exit(1 if any(finding.severity in failing for finding in all_findings) else 0)


def _as_text(by_file: Mapping[Path, list[Finding]]) -> str:
    lines: list[str] = []
    for file, of_file in by_file.items():
        for finding in of_file:
            lines.extend(filter(None, (str(finding), excerpt(finding.location))))
        if not of_file:
            lines.append(f"{file}: no problems")
    return "\n".join(lines)


def findings(
    file: Path, level: int = 0, stages: tuple[str, ...] = (), shapes: InputShapes | None = None
) -> list[Finding]:
    """Return the findings about a file of any content."""
    try:
        if kind_of(file) == "solver":
            return check_solver(file, shapes, notes=True)
        return check_net(file, level, stages or None, shapes, notes=True)
    except NetError as problem:  # not a prototxt
        return [as_finding(problem, "syntax", str(file))]
    except Exception as problem:  # a bug of ours or of a library: the other files are checked anyway
        text = f"cannot be checked: {type(problem).__name__}: {' '.join(str(problem).split())}"
        return [Finding(Location(str(file), 1), "error", "internal", text)]
