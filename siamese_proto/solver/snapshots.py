"""Snapshots: PREFIX_iter_N.caffemodel with the weights and PREFIX_iter_N.solverstate with where the run stands.

Both are put in place whole; the weights first, so that a solver state never names weights that are not there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from siamese_proto.errors import NetError, SolverError, quoted
from siamese_proto.graph.ir import Graph
from siamese_proto.proto import schema
from siamese_proto.solver.log import log
from siamese_proto.solver.settings import Settings
from siamese_proto.weights import StoredState, find_weights, read_state, write_state

if TYPE_CHECKING:
    from siamese_proto.solver.loop import Solver

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Resumed:
    """Where a run stood; Caffe's own files tell no more than the first two."""

    iteration: int
    current_step: int
    seed: int | None
    positions: Mapping[str, int]  # batches delivered, by data layer
    recent_losses: Sequence[float]


def names(settings: Settings, iteration: int) -> tuple[Path, Path]:
    """The files of one snapshot: weights and solver state."""
    suffix = ".h5" if settings.snapshot_format == "HDF5" else ""
    stem = f"{settings.snapshot_prefix}_iter_{iteration}"
    return Path(f"{stem}.caffemodel{suffix}"), Path(f"{stem}.solverstate{suffix}")


def check_folder(prefix: str) -> None:
    """Find out before training whether snapshots can be written; raises SolverError where they cannot."""
    folder = os.path.dirname(prefix) or "."
    hint = f"create the folder, or give another snapshot_prefix than {quoted(prefix)}"
    if not os.path.isdir(folder):
        raise SolverError(f"the folder for snapshots, {quoted(folder)}, does not exist; {hint}")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        text = f"the folder for snapshots, {quoted(folder)}, cannot be written to ({error.strerror}); {hint}"
        raise SolverError(text) from error


def write(solver: Solver, recent_losses: Sequence[float]) -> Path:
    """Write weights and solver state of a run as it stands; the path of the solver state."""
    settings = solver.settings
    weights, state = names(settings, solver.iteration)
    kind = "HDF5" if settings.snapshot_format == "HDF5" else "binary proto"
    log("solver.cpp:464", f"Snapshotting to {kind} file {weights}")
    solver.net.save_weights(weights)
    log("sgd_solver.cpp:284", f"Snapshotting solver state to {kind} file {state}")
    positions = solver.batches.positions()
    resume = schema.ResumeState(
        random_seed=solver.net.run.seed,
        data=[schema.DataPosition(layer=layer, batches=batches) for layer, batches in positions.items()],
        recent_loss=recent_losses,
    )
    history = tuple(tensor.cpu().numpy() for tensor in solver.rule.export_history())
    write_state(state, StoredState(solver.iteration, os.fspath(weights), solver.current_step, history, resume))
    return state


def read(solver: Solver, path: PathLike) -> Resumed:
    """Give weights and histories of a snapshot to the run; where the run stood is returned."""
    stored = read_state(path)
    log("sgd_solver.cpp:341", f"SGDSolver: restoring history from {os.fspath(path)}")
    weights = find_weights(path, stored.learned_net)
    history = [torch.tensor(array) for array in stored.history]
    try:
        solver.rule.import_history(
            owners_history(solver.net.graph, history, len(solver.rule.histories)), stored.iteration
        )
    except NetError as error:
        raise SolverError(f"{os.fspath(path)}: {error.message}") from None
    solver.net.load_weights(weights)
    resume = stored.resume
    if resume is None:
        return Resumed(stored.iteration, stored.current_step, None, {}, ())
    positions = {position.layer: position.batches for position in resume.data}
    return Resumed(stored.iteration, stored.current_step, resume.random_seed, positions, tuple(resume.recent_loss))


def owners_history(graph: Graph, history: list[Tensor], runs: int) -> list[Tensor]:
    """The histories of owners alone: Caffe's older solver states have one for every use of a shared parameter."""
    uses = [use for node in graph.nodes for use in node.params]
    if len(uses) == len(graph.params) or len(history) != runs * len(uses):
        return history
    place = {use.param.id: index for index, use in enumerate(uses) if use.is_owner}
    owned = [place[param.id] for param in graph.params]
    return [history[run * len(uses) + index] for run in range(runs) for index in owned]


def tests_before(iteration: int, settings: Settings) -> int:
    """How many tests a run has made before `iteration` begins: test nets read on from test to test."""
    if settings.test_interval == 0:
        return 0
    return (iteration + settings.test_interval - 1) // settings.test_interval - int(
        iteration > 0 and not settings.test_initialization
    )
