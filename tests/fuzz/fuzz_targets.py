"""What any bytes may do: give a result, or be refused in one line.

Each target takes bytes and raises nothing but what is a mistake of ours. Hypothesis calls them in the tests, atheris in
`fuzz_with_atheris.py`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from siamese_proto.cli.check import findings
from siamese_proto.compiler import build_graph
from siamese_proto.errors import NetError
from siamese_proto.export.deploy import deploy
from siamese_proto.export.drawing import draw
from siamese_proto.export.summary import summarize
from siamese_proto.proto.reader import parse_net, parse_solver
from siamese_proto.proto.writer import write_net, write_solver
from siamese_proto.weights import read_state, read_weights
from siamese_proto.weights.inspect import contents

Target = Callable[[bytes], bool]


def refused(target: Callable[[Path], None], content: bytes, name: str) -> bool:
    """Whether the bytes, as a file, are refused; the refusal must be one line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(content)
        try:
            target(path)
        except NetError as problem:
            if "\n" in str(problem) or not str(problem):
                raise AssertionError(f"not one line: {problem!r}") from problem
            return True
    return False


def net(content: bytes) -> bool:
    """A net is read, written, read again, built, drawn, summed up and deployed."""

    def use(path: Path) -> None:
        parsed = parse_net(path)
        again = parse_net(write_net(parsed) + "\n")
        if again.message.SerializeToString() != parsed.message.SerializeToString():
            raise AssertionError("the net written is not the net read")
        graph = build_graph(parsed, "TEST", on_problem=lambda problem: None)
        draw(graph)
        summarize(graph)
        deploy(parsed)

    return refused(use, content, "net.prototxt")


def solver(content: bytes) -> bool:
    """Solver settings are read and written."""
    return refused(lambda path: str(write_solver(parse_solver(path))) and None, content, "solver.prototxt")


def check(content: bytes) -> bool:
    """Whatever a file holds, check lists findings of one line each; it never refuses to."""

    def use(path: Path) -> None:
        for finding in findings(path):
            if "\n" in str(finding):
                raise AssertionError(f"not one line: {finding!r}")

    return refused(use, content, "any.prototxt")


def weights(suffix: str) -> Target:
    """A weights file of this suffix is read and listed."""

    def use(path: Path) -> None:
        read_weights(path)
        contents(path)

    return lambda content: refused(use, content, f"w{suffix}")


def state(suffix: str) -> Target:
    """A solver state is read."""
    return lambda content: refused(lambda path: read_state(path) and None, content, f"s.solverstate{suffix}")


TARGETS: dict[str, Target] = {
    "net": net,
    "solver": solver,
    "check": check,
    "caffemodel": weights(".caffemodel"),
    "h5": weights(".caffemodel.h5"),
    "safetensors": weights(".safetensors"),
    "pt": weights(".pt"),
    "state": state(""),
    "state.h5": state(".h5"),
}
