"""Snapshots: PREFIX_iter_N.caffemodel with the weights and PREFIX_iter_N.solverstate with where the run stands.

Both are put in place whole; the weights first, so that a solver state never names weights that are not there.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from siamese_proto.errors import NetError, SolverError, quoted
from siamese_proto.files import abandoned, control_hint, partials_of, remove
from siamese_proto.graph.ir import Graph
from siamese_proto.proto import schema
from siamese_proto.solver.log import Event, log
from siamese_proto.solver.recurrent_state import export_carried
from siamese_proto.solver.rules import UpdateRule
from siamese_proto.solver.run_lock import restarts, running, would_restart
from siamese_proto.solver.settings import Settings
from siamese_proto.weights import StoredState, find_weights, read_state, write_state

if TYPE_CHECKING:
    from siamese_proto.solver.parallel import Team
    from siamese_proto.solver.solver import Solver

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Resumed:
    """Where a run stood; Caffe's own files tell no more than the first two."""

    iteration: int
    current_step: int
    seed: int | None = None
    positions: Mapping[str, int] = field(default_factory=dict)  # batches delivered, by data layer
    recent_losses: Sequence[float] = ()
    kept: Sequence[int] = ()
    best: Mapping[str, float] = field(default_factory=dict)
    carried: Sequence[schema.CarriedState] = ()
    is_ours: bool = False  # only such a state tells where the data layers stood


def names(settings: Settings, iteration: int | Literal["best", "best_new"]) -> tuple[Path, Path]:
    """The files of one snapshot: weights and solver state."""
    suffix = ".h5" if settings.snapshot_format == "HDF5" else ""
    stem = f"{settings.snapshot_prefix}_{f'iter_{iteration}' if isinstance(iteration, int) else iteration}"
    return Path(f"{stem}.caffemodel{suffix}"), Path(f"{stem}.solverstate{suffix}")


def check_folder(prefix: str) -> None:
    """Find out before training whether snapshots can be written; raises SolverError where they cannot."""
    folder = os.path.dirname(prefix) or "."
    hint = f"create the folder, or give another snapshot_prefix than {quoted(prefix)}"
    if not os.path.isdir(folder):
        raise SolverError(f"the folder for snapshots, {quoted(folder)}, does not exist{control_hint(folder)}; {hint}")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        text = f"the folder for snapshots, {quoted(folder)}, cannot be written to ({error.strerror}); {hint}"
        raise SolverError(text) from error


@contextmanager
def writing(settings: Settings, team: Team, *, always: bool = False) -> Iterator[str]:
    """Keep other runs from the snapshot_prefix while this one trains, if it will write snapshots; the id of the run.

    What killed runs left unfinished is removed first. Raises NetError where another run writes such snapshots.
    """
    is_due = settings.snapshot or settings.snapshot_after_train or always or would_restart() or restarts()
    if not (team.is_first and is_due):
        yield ""
        return
    with running(settings) as run:
        clean(settings.snapshot_prefix)
        yield run


def clean(prefix: str) -> None:
    """Remove what killed runs of this prefix left of snapshots they were writing."""
    folder, stem = os.path.split(prefix)
    names = rf"{re.escape(stem)}_(iter_\d+|best_new)\.(caffemodel|solverstate)(\.h5)?"
    for left in abandoned(folder, partials_of(names)):
        _remove_left(left)
    for kind in ("caffemodel", "solverstate", "caffemodel.h5", "solverstate.h5"):
        if os.path.exists(f"{prefix}_best_new.{kind}"):
            _remove_left(f"{prefix}_best_new.{kind}")


def _remove_left(path: str) -> None:
    log(Event.SNAPSHOT, f"Removing {path}, which a killed run left unfinished")
    with suppress(OSError):
        remove(path)


def take(solver: Solver) -> Path:
    """Write the snapshot of this iteration and count it among those that are there; the path of the solver state."""
    weights, state = names(solver.settings, solver.iteration)
    kept = [*(iteration for iteration in solver.kept if iteration != solver.iteration), solver.iteration]
    write(solver, weights, state, kept=kept)
    solver.kept = kept
    return state


def write(solver: Solver, weights: Path, state: Path, learned_net: Path | None = None, *, kept: Sequence[int]) -> None:
    """Write weights and solver state of a run as it stands; `learned_net` is the name that the state gives them."""
    with running(solver.settings) as run:
        _write(solver, weights, state, learned_net, kept, run)


def _write(solver: Solver, weights: Path, state: Path, learned_net: Path | None, kept: Sequence[int], run: str) -> None:
    settings = solver.settings
    kind = "HDF5" if settings.snapshot_format == "HDF5" else "binary proto"
    log(Event.SNAPSHOT, f"Snapshotting to {kind} file {weights}")
    solver.net.save_weights(weights, diffs=settings.snapshot_diff)
    log(Event.STATE_SNAPSHOT, f"Snapshotting solver state to {kind} file {state}")
    positions = solver.batches.positions()
    resume = schema.ResumeState(
        random_seed=solver.net.run.seed,
        data=[schema.DataPosition(layer=layer, batches=batches) for layer, batches in positions.items()],
        recent_loss=solver.recent_losses(),
        type=settings.rule.type,
        kept=kept,
        best=[schema.BestScore(output=output, value=value) for output, value in solver.best.items()],
        carried=export_carried([solver.net, *solver.test_nets]),
        run=run,
    )
    history = tuple(tensor.cpu().numpy() for tensor in solver.rule.export_history())
    named = os.fspath(learned_net or weights)
    write_state(state, StoredState(solver.iteration, named, solver.current_step, history, resume))


def read(solver: Solver, path: PathLike) -> Resumed:
    """Give weights and histories of a snapshot to the run; where the run stood is returned."""
    file = os.fspath(path)
    log(Event.RESUMING, f"Resuming from {file}")
    stored = read_state(path)
    log(Event.HISTORY_RESTORED, f"SGDSolver: restoring history from {file}")
    weights = find_weights(path, stored.learned_net)
    mine, theirs = solver.settings.rule.type, stored.resume.type if stored.resume is not None else ""
    if theirs and theirs != mine:
        raise SolverError(
            f"{file}: was written by the update rule {theirs}, but the solver says type: {quoted(mine)}; to go on with "
            f"its weights alone, give them to --weights: {weights}"
        )
    rule = solver.rule
    history = [torch.tensor(array) for array in stored.history]
    try:
        owned = owners_history(solver.net.graph, history, rule)
    except SolverError as error:
        raise SolverError(f"{file}: {error.message}") from None
    if len(owned) != len(history):
        text = f"{file}: has a history for every use of a shared parameter, as older versions of Caffe wrote them"
        exact = f"; for {mine} this is an estimate (it is exact for SGD and Nesterov)" if rule.squares else ""
        log(Event.HISTORY_RESTORED, f"{text}; the histories of each parameter are added up{exact}")
    try:
        rule.check_history(owned)
        if not theirs:
            rule.check_signs(owned)
    except NetError as error:
        raise SolverError(f"{file}: {error.message}") from None
    report = solver.net.load_weights(weights)
    if report.missing:
        layers = ", ".join(map(quoted, report.missing))
        raise SolverError(f"{file}: its weights, {weights}, have nothing for {layers}; it was written for another net")
    rule.import_history(owned, stored.iteration)
    return _resumed(stored, same_run=Path(path).resolve() == names(solver.settings, stored.iteration)[1].resolve())


def _resumed(stored: StoredState, *, same_run: bool) -> Resumed:
    resume = stored.resume
    if resume is None:
        return Resumed(stored.iteration, stored.current_step)
    return Resumed(
        stored.iteration,
        stored.current_step,
        resume.random_seed,
        {position.layer: position.batches for position in resume.data},
        tuple(resume.recent_loss),
        tuple(resume.kept) if same_run else (),  # else those are another prefix's files
        {score.output: score.value for score in resume.best},
        tuple(resume.carried),
        is_ours=True,
    )


def owners_history(graph: Graph, history: list[Tensor], rule: UpdateRule) -> list[Tensor]:
    """One history per parameter, where Caffe's older solver states have one for every use of a shared parameter.

    Those versions moved each copy of a parameter by its own history, then gave every copy the sum of the steps. So the
    history of the parameter is the sum over its copies: for rules that are linear in the gradient (SGD, Nesterov) it
    is the one that a single copy would have. Squares of gradients do not add up, so for other rules it is an estimate.

    A twin has twice as many uses as parameters, and Adam twice as many histories as SGD: where SGD could take the one
    for the other, what no momentum looks like tells.
    """
    uses = [use for node in graph.nodes for use in node.params]
    runs = len(rule.histories)
    if len(uses) == len(graph.params) or len(history) != runs * len(uses):
        return history
    place = {use.param.id: index for index, use in enumerate(uses) if use.is_owner}
    repeated = all(torch.equal(history[index], history[place[use.param.id]]) for index, use in enumerate(uses))
    second = history[len(graph.params) :]
    if not rule.squares and len(second) == len(graph.params) and not repeated and _are_squares(second):
        return history
    sums: list[Tensor] = []
    for run in range(runs):
        copies: dict[str, list[Tensor]] = {param.id: [] for param in graph.params}  # of each param its owner's first
        for use, copy in zip(uses, history[run * len(uses) : (run + 1) * len(uses)], strict=True):
            copies[use.param.id].append(copy)
        sums += map(_sum, copies.values())
    return sums


def _sum(copies: Sequence[Tensor]) -> Tensor:
    first = copies[0]
    for copy in copies:
        if copy.numel() != first.numel():
            shapes = f"{tuple(first.shape)} and {tuple(copy.shape)}"
            raise SolverError(f"the histories of one shared parameter have the shapes {shapes}; their sizes must agree")
    return torch.stack([copy.reshape(first.shape) for copy in copies]).sum(0)


def _are_squares(history: Sequence[Tensor]) -> bool:
    return all(bool((tensor >= 0).all()) for tensor in history) and any(bool(tensor.any()) for tensor in history)


def tests_before(iteration: int, settings: Settings) -> int:
    """How many tests a run has made before `iteration` begins: test nets read on from test to test."""
    if settings.test_interval == 0:
        return 0
    return (iteration + settings.test_interval - 1) // settings.test_interval - int(
        iteration > 0 and not settings.test_initialization
    )
