"""Runs that have left the finite numbers: when, and where in the net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from siamese_proto.data.not_finite import not_finite
from siamese_proto.errors import NetError, SolverError, quoted
from siamese_proto.net.net import Net
from siamese_proto.solver.batches import Delivered

if TYPE_CHECKING:
    from siamese_proto.solver.solver import Solver


def check_parameters(solver: Solver) -> None:
    """Raise SolverError where a parameter is not finite, as after an update too large."""
    name = _bad_parameter(solver.net)
    if name:
        after = solver.iteration - 1
        raise problem(f"after iteration {after} the {name} is not finite", solver, after)


def _bad_parameter(net: Net) -> str:
    for param, tensor in zip(net.graph.params, net.tensors.values(), strict=True):
        if not torch.isfinite(tensor).all():
            return f"{param.role} of layer {quoted(param.owner_name)}"
    return ""


def problem(what: str, solver: Solver, iteration: int) -> SolverError:
    """The error that ends such a run: data that are not finite are named, and only else is the learning rate to blame.

    `iteration` is the first whose numbers are not finite.
    """
    kept = solver.last_snapshot
    saved = f"; the last snapshot is {kept}" if kept is not None else ""
    cause = _bad_data(solver, iteration) or _bad_beginning(solver, iteration)
    if cause:
        return SolverError(f"{what}; {cause}{saved}")
    where = first_layer(solver.net, solver.last_batch)
    return SolverError(f"{what}; {where}; a lower base_lr or clip_gradients may help{saved}")


def _bad_beginning(solver: Solver, iteration: int) -> str:
    """Whether a parameter was not finite before the first update."""
    name = _bad_parameter(solver.net) if iteration == solver.iteration == solver.first_iteration else ""
    return name and f"the {name} is not finite before the first update; give other weights, or another filler"


def _bad_data(solver: Solver, iteration: int) -> str:
    """Which data are not finite: of this iteration, or of the one before.

    An infinite value may give a finite loss, behind a TanH say, and yet a gradient that is not finite.
    """
    passes = solver.settings.rule.iter_size
    for looked_at in range(max(iteration - 1, solver.first_iteration), iteration + 1):
        try:
            for batch in solver.batches.delivered(solver.passes_since(looked_at), passes):
                text = _bad_batch(batch, looked_at)
                if text:
                    return text
        except NetError:  # the source is no longer what it was
            return ""
    return ""


def _bad_batch(batch: Delivered, iteration: int) -> str:
    for top, values in batch.tops.items():
        found = not_finite(values.cpu().numpy())
        if found is not None:
            record = batch.record(found.row)
            return (
                f"the first layer whose output is not finite is {quoted(batch.node.name)} ({batch.node.location}): in "
                f"the batch of iteration {iteration} its top {quoted(top)} has {found}{record and f' ({record})'}; "
                "correct the data"
            )
    return ""


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
