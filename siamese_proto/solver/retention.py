"""Which snapshots stay: the last ones, and the best by an output of a test net."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from siamese_proto.errors import NetError, SolverError, did_you_mean, quoted
from siamese_proto.files import put_in_place
from siamese_proto.solver import snapshots
from siamese_proto.solver.log import Event, log, number
from siamese_proto.solver.solver import Solver


def keep_last(solver: Solver, count: int) -> None:
    """From now on let only the last `count` snapshots stay of those that the run has made, before a resume too.

    Files of other runs, whatever their names, and the best are left alone.
    """
    if count < 1:
        raise SolverError(f"the number of snapshots to keep is {count}; it must be positive")

    def forget(solver: Solver) -> None:
        for iteration in solver.kept[:-count]:
            weights, state = snapshots.names(solver.settings, iteration)
            for path in (state, weights):  # so that no state is there without its weights
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    log(Event.SNAPSHOT, f"{path} could not be removed: {error.strerror}", level=logging.WARNING)
        del solver.kept[:-count]

    solver.snapshot_callbacks.append(forget)


def keep_best(solver: Solver, wanted: str) -> None:
    """From now on write PREFIX_best.caffemodel and .solverstate whenever a test comes out better than all before.

    `wanted` is an output of a test net, with the direction that is better: `accuracy:max`, `distance:min`; outputs with
    a loss weight are better when lower, and need none. Raises SolverError where there is no such output.
    """
    output, _, direction = wanted.partition(":")
    index = _find_output(solver, output)
    if direction not in ("", "min", "max"):
        raise SolverError(f"{quoted(wanted)} asks to keep the best by {quoted(direction)}; it is one of min, max")
    if not direction and not _is_loss(solver, index, output):
        raise SolverError(
            f"whether a lower or a higher {quoted(output)} is better is not said; give {output}:max or {output}:min"
        )
    snapshots.check_folder(solver.settings.snapshot_prefix)
    sign = -1 if direction == "max" else 1
    key = f"{output}:{direction or 'min'}"

    def compare(solver: Solver, scores: Sequence[Mapping[str, Tensor]]) -> None:
        value = scores[index][output].item()
        before = solver.best.get(key)
        if math.isnan(value) or (before is not None and sign * value >= sign * before):
            return
        solver.best[key] = value
        log(Event.SNAPSHOT, f"Best {output} so far: {number(value)} at iteration {solver.iteration}")
        try:
            _write_best(solver)
        except (OSError, NetError) as error:
            log(Event.SNAPSHOT, f"SNAPSHOT FAILED, training goes on without it: {error}", level=logging.ERROR)
            if before is None:
                del solver.best[key]
            else:
                solver.best[key] = before

    solver.test_callbacks.append(compare)


def _write_best(solver: Solver) -> None:
    """Replace the best pair. Its old state goes first: it must never name the weights of another iteration."""
    new, best = (snapshots.names(solver.settings, which) for which in ("best_new", "best"))
    snapshots.write(solver, *new, best[0], kept=solver.kept)
    best[1].unlink(missing_ok=True)
    for source, target in zip(new, best, strict=True):
        put_in_place(source, target)


def _find_output(solver: Solver, output: str) -> int:
    """The first test net with such an output, of one number."""
    if not solver.test_nets:
        raise SolverError(f"{quoted(output)} cannot be the output to keep the best by: the solver has no test net")
    known = {blob.name: blob for net in reversed(solver.test_nets) for blob in net.graph.outputs}
    if output not in known:
        hint = did_you_mean(output, known) or f"; there are {', '.join(map(quoted, known))}"
        raise SolverError(f"no test net has an output {quoted(output)} to keep the best by{hint}")
    shape = known[output].shape
    if shape is not None and math.prod(shape) != 1:
        raise SolverError(f"output {quoted(output)} to keep the best by has shape {shape}; it must be one number")
    return next(i for i, net in enumerate(solver.test_nets) if output in {blob.name for blob in net.graph.outputs})


def _is_loss(solver: Solver, index: int, output: str) -> bool:
    return any(
        top.name == output and weight != 0
        for node in solver.test_nets[index].graph.nodes
        for top, weight in zip(node.tops, node.loss_weights, strict=True)
    )
