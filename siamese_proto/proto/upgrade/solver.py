"""Upgrade `solver_type: ADAM` of solver settings to `type: "Adam"` (upgrade_proto.cpp)."""

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
    """Upgrade solver settings to the current format, in place.

    Raises:
        ParseError: Both `solver_type` and `type` are given.
    """
    unknown = [entry for entry in source.unknown if entry[0] == "" and entry[1].name == "solver_type"]
    unknown = [entry for entry in unknown if not entry[1].fault]
    if not message.HasField("solver_type") and not unknown:
        return ParsedSolver(message, source, notes)
    location = unknown[0][1].location if unknown else source.find("solver_type")
    if message.HasField("type"):
        text = f"both 'solver_type' and 'type' (line {source.find('type').line}) are given; keep 'type'"
        raise ParseError(text, location=location)
    if unknown:
        message.type = str(unknown[0][1].value)  # a type of a fork: the solver checks it
    else:
        message.type = _TYPES[schema.SolverParameter.SolverType.Name(message.solver_type)]
    message.ClearField("solver_type")
    fields = {path: at for path, at in source.fields.items() if path != "solver_type"}
    rest = tuple(entry for entry in source.unknown if entry not in unknown)
    note = f'solver_type replaced by type: "{message.type}"'
    return ParsedSolver(message, Source(source.location, {**fields, "type": location}, rest), (*notes, note))
