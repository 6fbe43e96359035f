"""Training as in Caffe: settings, learning-rate policies, update rules, the training loop, snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from siamese_proto.solver.solver import Solver as Solver

__all__ = ["Solver"]


def __getattr__(name: str) -> object:
    """Import Solver on demand: settings can be read and checked without torch, which takes seconds to import."""
    if name == "Solver":
        from siamese_proto.solver.solver import Solver

        return Solver
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
