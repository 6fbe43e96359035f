"""Which snapshots are kept: the last ones, and the best by an output of a test net."""

import logging
import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from siamese_proto.errors import NetError, SolverError, did_you_mean, quoted
from siamese_proto.files import put_in_place
from siamese_proto.solver.log import Event, log, number
from siamese_proto.solver.snapshots import check_folder, log_failure, snapshot_paths, write_files
from siamese_proto.solver.solver import Solver


def keep_last(solver: Solver, count: int) -> None:
    """From now on keep only the last `count` snapshots of this run, including those before it was resumed.

    Files of other runs, and the best snapshot, are not removed.
    """
    if count < 1:
        raise SolverError(f"the number of snapshots to keep is {count}; it must be positive")

    def remove_old(solver: Solver) -> None:
        for iteration in solver.snapshot_iterations[:-count]:
            weights, state = snapshot_paths(solver.settings, iteration)
            for path in (state, weights):  # in this order, so that no state exists without its weights
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    log(Event.SNAPSHOT, f"{path} could not be removed: {error.strerror}", level=logging.WARNING)
        del solver.snapshot_iterations[:-count]

    solver.snapshot_callbacks.append(remove_old)


def keep_best(solver: Solver, criterion: str) -> None:
    """From now on write PREFIX_best.caffemodel and .solverstate whenever a test is better than all before.

    Args:
        solver: The solver.
        criterion: An output of a test net and its better direction: `accuracy:max`, `distance:min`. Outputs with a
            loss weight are better when lower, and need no direction.

    Raises:
        SolverError: There is no such output, or its direction is missing.
    """
    output, _, direction = criterion.partition(":")
    index = _find_output(solver, output)
    if direction not in ("", "min", "max"):
        raise SolverError(f"{quoted(criterion)}: unknown direction {quoted(direction)}; it is one of min, max")
    losses = {top.name for top, _ in solver.test_nets[index].graph.weighted_tops()}
    if not direction and output not in losses:
        raise SolverError(f"specify {output}:max or {output}:min: output {quoted(output)} is not a loss")
    check_folder(solver.settings.snapshot_prefix)
    sign = -1 if direction == "max" else 1
    key = f"{output}:{direction or 'min'}"

    def compare(solver: Solver, scores: Sequence[Mapping[str, Tensor]]) -> None:
        value = scores[index][output].item()
        before = dict(solver.best_scores)
        if math.isnan(value) or (key in before and sign * value >= sign * before[key]):
            return
        solver.best_scores[key] = value
        log(Event.SNAPSHOT, f"Best {output} so far: {number(value)} at iteration {solver.iteration}")
        try:
            _write_best(solver)
        except (OSError, NetError) as error:
            log_failure(error)
            solver.best_scores = before

    solver.test_callbacks.append(compare)


def _write_best(solver: Solver) -> None:
    """Replace the best pair. Its old state is removed first: it must never name the weights of another iteration."""
    new, best = (snapshot_paths(solver.settings, which) for which in ("best_new", "best"))
    write_files(solver, *new, solver.snapshot_iterations, learned_net=best[0])
    best[1].unlink(missing_ok=True)
    for source, target in zip(new, best, strict=True):
        put_in_place(source, target)


def _find_output(solver: Solver, output: str) -> int:
    """The index of the first test net with an output of this name, which must be one number."""
    if not solver.test_nets:
        raise SolverError(f"the best {quoted(output)} cannot be kept: the solver has no test net")
    blobs = {blob.name: blob for net in reversed(solver.test_nets) for blob in net.graph.outputs}
    if output not in blobs:
        hint = did_you_mean(output, blobs) or f"; there are {', '.join(map(quoted, blobs))}"
        raise SolverError(f"no test net has an output {quoted(output)} to keep the best by{hint}")
    shape = blobs[output].shape
    if shape is not None and math.prod(shape) != 1:
        raise SolverError(f"output {quoted(output)} to keep the best by has shape {shape}; it must be one number")
    return next(i for i, net in enumerate(solver.test_nets) if output in {blob.name for blob in net.graph.outputs})
