"""An estimate of what a training takes: parameters, time and disk space."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from siamese_proto.export.summary import count_text, summarize
from siamese_proto.graph.ir import Graph
from siamese_proto.proto.reader import parse_solver

# Multiply-adds per second of two CPU cores, on average over the included networks. The times in prototxt/README.md
# are those of 0.7 to 3.6 times this speed.
_SPEED = 5e10
_PASSES = 3  # the backward pass takes about twice as long as the forward pass
_BYTES = 4  # of a number in a weights file
_COPIES = 2  # of the parameters in a snapshot: one in the weights file, one in the solver state
_HISTORIES = {"Adam": 2, "AdaDelta": 2}  # more numbers for each parameter in the solver state; of other types 1


@dataclass(frozen=True)
class Plan:
    """The training of a solver file."""

    solver: str
    parameters: int
    iterations: int
    seconds: float  # on two CPU cores
    snapshots: int
    snapshot_bytes: int  # of the weights and the solver state of one snapshot

    def __str__(self) -> str:
        seconds = self.seconds
        if seconds < 90:
            time = f"{max(10, round(seconds, -1)):.0f} seconds"
        else:
            time = f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
        return (
            f"{self.solver}: {count_text(self.parameters)} parameters; {self.iterations:,} iterations, about {time} on "
            f"two CPU cores; {self.snapshots} snapshots of {count_text(self.snapshot_bytes)}B"
        )


def plan_training(solver: str, text: str, graphs: Mapping[str, Graph]) -> Plan:
    """Estimate the training of a solver file, with the TRAIN graphs by file name."""
    settings = parse_solver(text).message
    summary = summarize(graphs[settings.net])
    return Plan(
        solver,
        summary.parameters,
        settings.max_iter,
        summary.multiply_adds * _PASSES * settings.max_iter / _SPEED,
        math.ceil(settings.max_iter / settings.snapshot),
        _BYTES * (_COPIES + _HISTORIES.get(settings.type, 1)) * summary.parameters,
    )
