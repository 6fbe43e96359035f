"""Solver settings with `solver_type: ADAM` to today's `type: "Adam"` (upgrade_proto.cpp)."""

from __future__ import annotations

from siamese_proto.errors import ParseError
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedSolver, Source

_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}


def upgrade_read_solver(
    message: schema.SolverParameter, source: Source, *, notes: tuple[str, ...] = ()
) -> ParsedSolver:
    """Bring solver settings to today's dialect; the message is changed. ParseError where both types are given."""
    unknown = [
        (path, raw) for path, raw in source.unknown if path == "" and raw.name == "solver_type" and not raw.fault
    ]
    if not message.HasField("solver_type") and not unknown:
        return ParsedSolver(message, source, notes)
    place = unknown[0][1].location if unknown else source.find("solver_type")
    if message.HasField("type"):
        raise ParseError(
            f"'solver_type' beside 'type' (line {source.find('type').line}): they say the same; keep 'type'",
            location=place,
        )
    if unknown:
        message.type = str(unknown[0][1].value)  # of a fork: the solver says which types there are
    else:
        message.type = _TYPES[schema.SolverParameter.SolverType.Name(message.solver_type)]
    message.ClearField("solver_type")
    fields = {path: at for path, at in source.fields.items() if path != "solver_type"}
    rest = tuple(entry for entry in source.unknown if entry not in unknown)
    note = f'solver_type replaced by type: "{message.type}"'
    return ParsedSolver(message, Source(source.location, {**fields, "type": place}, rest), (*notes, note))
