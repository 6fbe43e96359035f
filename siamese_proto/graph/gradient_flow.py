"""Where gradients flow: forward over what needs one, then back over what stands under a loss (net.cpp: Init)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from siamese_proto.graph.ir import Param

if TYPE_CHECKING:
    from siamese_proto.graph.build import DraftNode


@dataclass(frozen=True)
class Flow:
    """Which nodes compute gradients, to which of their bottoms, and which blobs have one."""

    nodes: frozenset[str]  # ids
    blobs: frozenset[str]  # ids
    bottoms: Mapping[str, tuple[bool, ...]]  # node id -> one flag a bottom


def flow_of_gradients(nodes: Sequence[DraftNode], params: Mapping[str, Param], *, force_backward: bool) -> Flow:
    """Caffe's two sweeps; with `force_backward` every bottom that is not a label gets a gradient."""
    if force_backward:
        return _everywhere(nodes)
    needing: set[str] = set()  # blobs that depend on something that learns
    bottoms: dict[str, list[bool]] = {}
    backward: set[str] = set()
    for node in nodes:
        flags = [blob.id in needing for blob in node.bottoms]
        for index, forced in enumerate(node.selected.message.propagate_down[: len(flags)]):
            flags[index] = forced
        bottoms[node.id] = flags
        if any(flags) or any(use.lr_mult != 0 and not params[use.draft.id].statistic for use in node.uses):
            backward.add(node.id)
            needing.update(top.id for top in node.tops)
    _sweep_back(nodes, bottoms, backward)
    wanted = {blob.id for node in nodes for blob, flag in zip(node.bottoms, bottoms[node.id], strict=True) if flag}
    return Flow(frozenset(backward), frozenset(wanted), {node_id: tuple(flags) for node_id, flags in bottoms.items()})


def _sweep_back(nodes: Sequence[DraftNode], bottoms: dict[str, list[bool]], backward: set[str]) -> None:
    """Drop what no loss depends on, and what lies behind blobs whose every reader wants no gradient for them."""
    under_loss: set[str] = set()
    read: set[str] = set()
    wanted: set[str] = set()
    for node in reversed(nodes):
        weighted = [weight != 0 for weight in node.loss_weights]
        contributes = any(weighted) or any(top.id in under_loss for top in node.tops)
        # A blob with a loss weight counts as one more reader that wants a gradient.
        dead_end = all(
            top.id in read and top.id not in wanted and not has_weight
            for top, has_weight in zip(node.tops, weighted, strict=True)
        )
        if dead_end or not contributes:
            backward.discard(node.id)
            bottoms[node.id] = [False] * len(node.bottoms)
        for blob, flag in zip(node.bottoms, bottoms[node.id], strict=True):
            read.add(blob.id)
            if contributes:
                under_loss.add(blob.id)
            if flag:
                wanted.add(blob.id)


def _everywhere(nodes: Sequence[DraftNode]) -> Flow:
    bottoms = {
        node.id: tuple(node.layer is None or index not in node.layer.labels for index in range(len(node.bottoms)))
        for node in nodes
    }
    wanted = {blob.id for node in nodes for blob, flag in zip(node.bottoms, bottoms[node.id], strict=True) if flag}
    return Flow(frozenset(node.id for node in nodes), frozenset(wanted), bottoms)
