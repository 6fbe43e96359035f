"""siamese-proto check: what is wrong with files."""

from __future__ import annotations

from pathlib import Path

import click

from siamese_proto.compiler import check_net
from siamese_proto.errors import Location, NetError
from siamese_proto.graph.ir import Finding
from siamese_proto.proto.kind import kind_of
from siamese_proto.solver.check import check_solver


@click.command()
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.pass_context
def check(ctx: click.Context, files: tuple[Path, ...]) -> None:
    """Report every problem of nets and solver files, one a line; exit status 1 if one of them is an error."""
    failed = False
    for file in files:
        found = _findings(file)
        for finding in found:
            click.echo(str(finding))
        if not found:
            click.echo(f"{file}: no problems")
        failed |= any(finding.severity == "error" for finding in found)
    ctx.exit(1 if failed else 0)


def _findings(file: Path) -> list[Finding]:
    try:
        return check_solver(file) if kind_of(file) == "solver" else check_net(file)
    except NetError as problem:  # no prototxt at all, so neither of the two
        location = problem.location or Location(str(file), 1)
        text = str(problem).removeprefix(f"{problem.location}: ").removeprefix(f"{file}: ")
        return [Finding(location, "error", "syntax", text)]
