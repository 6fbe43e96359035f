"""Snapshots: PREFIX_iter_N.caffemodel with the weights and PREFIX_iter_N.solverstate with the state of the run.

Each file is written atomically, the weights first, so that a solver state never names weights that do not exist.
"""

import logging
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from siamese_proto.errors import NetError, SolverError, quoted
from siamese_proto.files import abandoned, control_hint, partials_of, remove
from siamese_proto.graph.ir import Graph
from siamese_proto.layers.base import Layer
from siamese_proto.net.net import Net
from siamese_proto.proto import schema
from siamese_proto.solver.log import Event, log
from siamese_proto.solver.parallel import ProcessGroup
from siamese_proto.solver.rules import UpdateRule
from siamese_proto.solver.run_lock import restarts, run_lock, would_restart
from siamese_proto.solver.settings import Settings
from siamese_proto.solver.state import TrainingState
from siamese_proto.weights import StoredState, find_weights, read_state, read_weights, write_state

PathLike = str | os.PathLike[str]


def snapshot_paths(settings: Settings, iteration: int | Literal["best", "best_new"]) -> tuple[Path, Path]:
    """Return the files of one snapshot: weights and solver state."""
    suffix = ".h5" if settings.snapshot_format == "HDF5" else ""
    stem = f"{settings.snapshot_prefix}_{f'iter_{iteration}' if isinstance(iteration, int) else iteration}"
    return Path(f"{stem}.caffemodel{suffix}"), Path(f"{stem}.solverstate{suffix}")


def check_folder(prefix: str) -> None:
    """Raise SolverError, before training, if snapshots cannot be written."""
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
def reserved_prefix(settings: Settings, group: ProcessGroup, *, always: bool = False) -> Iterator[str]:
    """Lock the snapshot_prefix while this run trains, if it will write snapshots; yields the id of the run.

    First removes unfinished files of killed runs.

    Raises:
        NetError: Another run writes snapshots with the prefix.
    """
    writes = settings.snapshot or settings.snapshot_after_train or always or would_restart() or restarts()
    if not (group.is_first and writes):
        yield ""
        return
    with run_lock(settings) as run:
        _remove_unfinished(settings.snapshot_prefix)
        yield run


def _remove_unfinished(prefix: str) -> None:
    folder, stem = os.path.split(prefix)
    names = rf"{re.escape(stem)}_(iter_\d+|best_new)\.(caffemodel|solverstate)(\.h5)?"
    kinds = ("caffemodel", "solverstate", "caffemodel.h5", "solverstate.h5")
    best = [path for kind in kinds if os.path.exists(path := f"{prefix}_best_new.{kind}")]
    for paths in (abandoned(folder, partials_of(names)), best):
        for path in paths:
            log(Event.SNAPSHOT, f"Removing {path}, which a killed run left unfinished")
            with suppress(OSError):
                remove(path)


def log_failure(error: Exception) -> None:
    """Log that a snapshot could not be written, which does not end a run: the next one may succeed."""
    log(Event.SNAPSHOT, f"SNAPSHOT FAILED, training continues without it: {error}", level=logging.ERROR)


def write_snapshot(run: TrainingState) -> Path:
    """Write the snapshot of this iteration and count it as existing; returns the path of the solver state."""
    iterations = [*(iteration for iteration in run.snapshot_iterations if iteration != run.iteration), run.iteration]
    paths = snapshot_paths(run.settings, run.iteration)
    write_files(run, *paths, iterations)
    run.snapshot_iterations = iterations
    return paths[1]


def write_files(
    run: TrainingState, weights: Path, state: Path, iterations: Sequence[int], learned_net: Path | None = None
) -> None:
    """Write weights and solver state of a run.

    Args:
        run: The run.
        weights: The weights file to write.
        state: The solver state to write.
        iterations: The snapshots of the run that exist, for the solver state.
        learned_net: The name of the weights file in the solver state, if it differs.
    """
    settings = run.settings
    kind = "HDF5" if settings.snapshot_format == "HDF5" else "binary proto"
    with run_lock(settings) as run_id:
        log(Event.SNAPSHOT, f"Snapshotting to {kind} file {weights}")
        run.net.save_weights(weights, diffs=settings.snapshot_diff)
        log(Event.STATE_SNAPSHOT, f"Snapshotting solver state to {kind} file {state}")
        resume = schema.ResumeState(
            random_seed=run.net.run_state.seed,
            data=[schema.DataPosition(layer=layer, batches=n) for layer, n in run.batches.positions().items()],
            recent_loss=run.loss_history.recent(settings.average_loss),
            type=settings.rule.type,
            kept=iterations,
            best=[schema.BestScore(output=output, value=value) for output, value in run.best_scores.items()],
            carried=recurrent_states([run.net, *run.test_nets]),
            run=run_id,
        )
        history = tuple(tensor.cpu().numpy() for tensor in run.rule.export_history())
        named = os.fspath(learned_net or weights)
        write_state(state, StoredState(run.iteration, named, run.current_step, history, resume))


def recurrent_states(nets: Sequence[Net]) -> list[schema.CarriedState]:
    """Return the states that recurrent layers use in their next pass; each tensor with its shape, as float32."""
    return [
        schema.CarriedState(
            net=index,
            layer=node.id,
            state=[
                schema.BlobProto(shape=schema.BlobShape(dim=tensor.shape), data=tensor.detach().flatten().tolist())
                for tensor in net.run_state.carried[node.layer.key]
            ],
        )
        for index, net in enumerate(nets)
        for node in net.graph.nodes
        if isinstance(node.layer, Layer) and node.layer.key in net.run_state.carried
    ]


def restore_recurrent_states(nets: Sequence[Net], states: Iterable[schema.CarriedState]) -> None:
    """Set the states that `recurrent_states` returned; layers without one start from zero."""
    for net in nets:
        net.run_state.carried.clear()
    for state in states:
        for net in nets[state.net : state.net + 1]:
            for node in net.graph.nodes:
                if node.id == state.layer and isinstance(node.layer, Layer):
                    blobs = (torch.tensor(list(blob.data)).reshape(tuple(blob.shape.dim)) for blob in state.state)
                    net.run_state.carried[node.layer.key] = tuple(blob.to(net.device) for blob in blobs)


def restore_parameters(run: TrainingState, path: PathLike) -> StoredState:
    """Copy the weights and histories of a snapshot into a run; returns the rest of its solver state.

    Raises:
        NetError: The files are damaged, or belong to another net or update rule.
    """
    file = os.fspath(path)
    log(Event.RESUMING, f"Resuming from {file}")
    stored = read_state(path)
    log(Event.HISTORY_RESTORED, f"SGDSolver: restoring history from {file}")
    weights = find_weights(path, stored.learned_net)
    rule_type, stored_type = run.settings.rule.type, stored.resume.type if stored.resume is not None else ""
    if stored_type and stored_type != rule_type:
        raise SolverError(
            f"{file}: was written by the update rule {stored_type}, but the solver has type: {quoted(rule_type)}; to "
            f"continue with its weights alone, give them to --weights: {weights}"
        )
    history = [torch.tensor(array) for array in stored.history]
    try:
        merged = merge_copies(run.net.graph, history, run.rule)
        if len(merged) != len(history):
            text = f"{file}: has a history for every use of a shared parameter, as older versions of Caffe wrote them"
            note = f"; for {rule_type} this is an estimate (it is exact for SGD and Nesterov)"
            exact = note if run.rule.squares else ""
            log(Event.HISTORY_RESTORED, f"{text}; the histories of each parameter are added up{exact}")
        run.rule.check_history(merged)
        if not stored_type:
            run.rule.check_signs(merged)
    except SolverError as error:
        raise SolverError(f"{file}: {error.message}") from None
    report = run.net.load_weights(weights)
    if report.missing:
        layers = ", ".join(map(quoted, report.missing))
        raise SolverError(f"{file}: its weights, {weights}, have nothing for {layers}; it was written for another net")
    run.rule.import_history(merged, stored.iteration)
    return stored


def merge_copies(graph: Graph, history: list[Tensor], rule: UpdateRule) -> list[Tensor]:
    """Return one history per parameter, also from older solver states with one for every use of a shared parameter.

    Older versions of Caffe moved each copy of a parameter by its own history, then gave every copy the sum of the
    steps. So the history of the parameter is the sum over its copies: for rules that are linear in the gradient (SGD,
    Nesterov) it is the one that a single copy would have. Squares of gradients do not add up, so for other rules it is
    an estimate.

    A twin has twice as many uses as parameters, and Adam has twice as many histories as SGD. A state of Adam is
    recognized by its second half, which has no negative numbers.
    """
    uses = [use for node in graph.nodes for use in node.params]
    if len(uses) == len(graph.params) or len(history) != len(rule.histories) * len(uses):
        return history
    owner = {use.param.id: index for index, use in enumerate(uses) if use.is_owner}
    repeated = all(torch.equal(history[index], history[owner[use.param.id]]) for index, use in enumerate(uses))
    second = history[len(graph.params) :]
    are_squares = all(bool((tensor >= 0).all()) for tensor in second) and any(bool(tensor.any()) for tensor in second)
    if are_squares and not rule.squares and len(second) == len(graph.params) and not repeated:
        return history
    merged: list[Tensor] = []
    for start in range(0, len(history), len(uses)):
        copies: dict[str, list[Tensor]] = {param.id: [] for param in graph.params}  # the owner's comes first
        for use, copy in zip(uses, history[start : start + len(uses)], strict=True):
            copies[use.param.id].append(copy)
        for first, *others in copies.values():
            for other in others:
                if other.numel() != first.numel():
                    shapes = f"{tuple(first.shape)} and {tuple(other.shape)}"
                    text = f"the histories of one shared parameter have the shapes {shapes}; their sizes must agree"
                    raise SolverError(text)
            merged.append(torch.stack([first, *(other.reshape(first.shape) for other in others)]).sum(0))
    return merged


def tests_before(iteration: int, settings: Settings) -> int:
    """Return the number of tests before `iteration` begins: test nets continue reading from test to test."""
    if settings.test_interval == 0:
        return 0
    return (iteration + settings.test_interval - 1) // settings.test_interval - int(
        iteration > 0 and not settings.test_initialization
    )


def newest_complete(prefix: str, *, run: str | None = None) -> Path | None:
    """Return the solver state of the newest complete snapshot, weights included, or None.

    The reason why a snapshot is not complete is logged.

    Args:
        prefix: The snapshot_prefix.
        run: The id of a run; only its snapshots count.
    """
    folder, stem = os.path.split(prefix)
    pattern = re.compile(rf"{re.escape(stem)}_iter_(\d+)\.solverstate(\.h5)?")
    matches: list[re.Match[str]] = []
    with suppress(OSError):
        matches = [match for name in os.listdir(folder or ".") if (match := pattern.fullmatch(name))]
    for match in sorted(matches, key=lambda match: (int(match[1]), match[0]), reverse=True):
        path = Path(folder) / match[0]
        try:
            state = read_state(path)
            if run is not None and (state.resume is None or state.resume.run != run):
                continue
            read_weights(find_weights(path, state.learned_net))
        except NetError as error:
            text = f"Snapshot {path} is not complete, so the one before it is tried: {error}"
            log(Event.RESUMING, text, level=logging.WARNING)
        else:
            return path
    if run is None:
        log(Event.RESUMING, f"No complete snapshot of {prefix} exists; starting from iteration 0")
    return None


def newest_of_run(prefix: str, run: str) -> Path | None:
    """Return the newest complete snapshot that this run wrote before torchrun restarted it, or None."""
    return newest_complete(prefix, run=run) if restarts() else None
