"""What a training is going to take: parameters, time and disk space, estimated before it begins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from siamese_proto.export.summary import count_text, summarize
from siamese_proto.graph.ir import Graph
from siamese_proto.proto.reader import parse_solver

# Multiply-adds a second of two CPU cores, on average over the included networks. The times in prototxt/README.md
# give 0.7 to 3.6 times that.
_SPEED = 5e10
_PASSES = 3  # the backward pass takes about twice as long as the forward pass
_BYTES = 4  # a number in a weights file
_COPIES = 2  # of the parameters in a snapshot: one in the weights file, one in the solver state
_HISTORIES = {"Adam": 2, "AdaDelta": 2}  # further numbers for each parameter in the solver state; of other types 1


@dataclass(frozen=True)
class Plan:
    """The training that one solver file describes."""

    solver: str
    parameters: int
    iterations: int
    seconds: float  # on two CPU cores
    snapshots: int
    snapshot_bytes: int  # of one: the weights and the solver state

    def __str__(self) -> str:
        each = count_text(self.snapshot_bytes)
        return (
            f"{self.solver}: {count_text(self.parameters)} parameters; {self.iterations:,} iterations, about "
            f"{_time_text(self.seconds)} on two CPU cores; {self.snapshots} snapshots of {each}B"
        )


def plan(solver: str, text: str, graphs: Mapping[str, Graph]) -> Plan:
    """The plan of a solver file, given the TRAIN graphs by file name."""
    settings = parse_solver(text).message
    summary = summarize(graphs[settings.net])
    histories = _HISTORIES.get(settings.type, 1)
    return Plan(
        solver,
        summary.parameters,
        settings.max_iter,
        summary.multiply_adds * _PASSES * settings.max_iter / _SPEED,
        math.ceil(settings.max_iter / settings.snapshot),
        _BYTES * (_COPIES + histories) * summary.parameters,
    )


def _time_text(seconds: float) -> str:
    """`20 seconds`, `4 minutes`, `1.5 hours`."""
    if seconds < 90:
        return f"{max(10, round(seconds, -1)):.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
