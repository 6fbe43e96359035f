"""Runs that have left the finite numbers: when, and where in the net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from siamese_proto.errors import SolverError, quoted
from siamese_proto.net import Net

if TYPE_CHECKING:
    from siamese_proto.solver.loop import Solver


def check_parameters(solver: Solver) -> None:
    """Raise SolverError where a parameter is not finite, as after an update too large."""
    for param, tensor in zip(solver.net.graph.params, solver.net.tensors.values(), strict=True):
        if not torch.isfinite(tensor).all():
            name = f"{param.role} of layer {quoted(param.owner_name)}"
            raise problem(f"after iteration {solver.iteration - 1} the {name} is not finite", solver)


def problem(what: str, solver: Solver) -> SolverError:
    """The error that ends such a run."""
    where = first_layer(solver.net, solver.last_batch)
    kept = solver.last_snapshot
    saved = f"; the last snapshot is {kept}" if kept is not None else ""
    return SolverError(f"{what}; {where}; a lower base_lr or clip_gradients may help{saved}")


def first_layer(net: Net, batch: Mapping[str, Any]) -> str:
    """Which layer is the first whose output for this batch is not finite."""
    with torch.no_grad():
        blobs = net.blobs(**batch)
    for node in net.graph.nodes:
        for top in node.tops:
            value = blobs.get(net.graph.output_name(top))
            if value is not None and not torch.isfinite(value).all():
                return f"the first layer whose output is not finite is {quoted(node.name)} ({node.location})"
    return "every layer's output for its batch is finite by now"
