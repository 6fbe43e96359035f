"""Runs whose losses or parameters are no longer finite: when it happened, and where in the net."""

import torch

from siamese_proto.data.bad_records import not_finite
from siamese_proto.errors import NetError, SolverError, quoted
from siamese_proto.net.net import Net
from siamese_proto.solver.state import TrainingState


def check_losses(state: TrainingState) -> None:
    """Raise SolverError if the loss of an iteration is not finite."""
    losses = state.loss_history
    iteration = losses.first_not_finite()
    if iteration is not None:
        loss = losses.floats()[iteration - losses.first]
        raise _diverged(f"the loss of iteration {iteration} is {loss:g}", state, iteration)


def check_parameters(state: TrainingState) -> None:
    """Raise SolverError if a parameter is not finite, as after an update that is too large."""
    name = _bad_parameter(state.net)
    if name:
        iteration = state.iteration - 1
        raise _diverged(f"after iteration {iteration} the {name} is not finite", state, iteration)


def _bad_parameter(net: Net) -> str:
    for param, tensor in zip(net.graph.params, net.tensors.values(), strict=True):
        if not torch.isfinite(tensor).all():
            return f"{param.role} of layer {quoted(param.owner_name)}"
    return ""


def _diverged(fault: str, state: TrainingState, iteration: int) -> SolverError:
    """The error that ends such a run; `iteration` is the first whose numbers are not finite.

    It suggests a lower learning rate only if the data and the first parameters are finite.
    """
    cause = _bad_data(state, iteration)
    if not cause and iteration == state.iteration == state.loss_history.first:  # no update was made
        name = _bad_parameter(state.net)
        cause = name and f"the {name} is not finite before the first update; give other weights, or another filler"
    if not cause:
        cause = f"{_first_bad_layer(state)}; a lower base_lr or clip_gradients may help"
    saved = f"; the last snapshot is {state.last_snapshot}" if state.last_snapshot is not None else ""
    return SolverError(f"{fault}; {cause}{saved}")


def _bad_data(state: TrainingState, iteration: int) -> str:
    """Describe data that are not finite, of this iteration or the one before.

    An infinite value can give a finite loss, after a TanH for example, but a gradient that is not finite.
    """
    losses, passes = state.loss_history, state.settings.rule.iter_size
    for candidate in range(max(iteration - 1, losses.first), iteration + 1):
        try:
            for batch in state.batches.delivered(losses.count_since(candidate) * passes, passes):
                for top, values in batch.tops.items():
                    bad = not_finite(values.cpu().numpy())
                    if bad is not None:
                        record = batch.record(bad.row)
                        return (
                            f"the first layer whose output is not finite is {quoted(batch.node.name)} "
                            f"({batch.node.location}): in the batch of iteration {candidate} its top {quoted(top)} has "
                            f"{bad}{record and f' ({record})'}; correct the data"
                        )
        except NetError:  # the source has changed
            return ""
    return ""


def _first_bad_layer(state: TrainingState) -> str:
    """Describe the first layer whose output for the last batch is not finite."""
    with torch.no_grad():
        blobs = state.net.blobs(**state.last_batch)
    for node in state.net.graph.nodes:
        for top in node.tops:
            value = blobs.get(state.net.graph.output_name(top))
            if value is not None and not torch.isfinite(value).all():
                return f"the first layer whose output is not finite is {quoted(node.name)} ({node.location})"
    return "every layer's output for its batch is finite now"
