"""Training as Caffe trains: settings, learning-rate policies, update rules, the loop, snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from siamese_proto.solver.settings import Settings as Settings
    from siamese_proto.solver.settings import read_settings as read_settings
    from siamese_proto.solver.solver import Solver as Solver

__all__ = ["Settings", "Solver", "read_settings"]


def __getattr__(name: str) -> object:
    """Import on demand: settings can be read, and checked, without the seconds that torch takes to load."""
    if name == "Solver":
        from siamese_proto.solver.solver import Solver

        return Solver
    if name in ("Settings", "read_settings"):
        from siamese_proto.solver import settings

        return getattr(settings, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
