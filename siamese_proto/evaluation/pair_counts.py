"""How many pairs a net's own data layers have, and which of them are measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from siamese_proto.errors import DataError, GraphError, quoted
from siamese_proto.graph.comparison import Comparison
from siamese_proto.graph.features import Ancestry
from siamese_proto.graph.ir import Graph, Node
from siamese_proto.layers.base import Coverage, DataLayer

COUNT = 2000  # pairs, where there is no end of them


@dataclass(frozen=True)
class Extent:
    """How many pairs (or triplets) are measured, and in words which these are."""

    pairs: int
    told: str


def own_sources(graph: Graph, comparison: Comparison) -> list[Node]:
    """The data layers that features, scores and labels are computed from; those with made-up values if no others are.

    Raises GraphError where there is none.
    """
    ancestry = Ancestry(graph)
    wanted = [*comparison.features, *(blob for blob in (comparison.score, comparison.label) if blob is not None)]
    before = frozenset[str]().union(*(ancestry.nodes_before(blob) for blob in wanted))
    found = [node for node in graph.nodes if node.id in before and isinstance(node.layer, DataLayer)]
    if not found:
        raise GraphError("the net has no data layer in phase TEST; give pairs with --pairs, or images with --labelled")
    return [node for node in found if node.type != "DummyData"] or found


def extent_of(sources: Sequence[Node], in_batch: int, count: int | None = None) -> Extent:
    """All pairs of the sources, each once, or the first `count` of them; of sources without an end a sample.

    `in_batch`: pairs that a batch has. Where it has fewer pairs than rows, because both images of a pair are rows of
    it, only whole batches are measured. Raises DataError where the sources have different numbers of batches, so that
    their records would meet in other pairs each time round.
    """
    read = [(node, covered) for node in sources if (covered := _coverage(node)) is not None]
    if not read:
        count = count or COUNT
        return Extent(count, f"{count} sampled, as there is no end of them")
    node, covered = read[0]
    for other, also in read[1:]:
        if also.batches != covered.batches and count is None:
            raise DataError(
                f"layer {quoted(node.name)} has {covered.records} records in batches of {covered.batch_size} and layer "
                f"{quoted(other.name)} has {also.records} in batches of {also.batch_size}, so they do not belong "
                "together; make them equally long, or give the number of pairs with --count"
            )
    shape = node.tops[0].shape
    if shape is not None and shape[0] == in_batch:
        most = int(covered.batches * in_batch)
        left = 0
    else:
        most = int(covered.batches) * in_batch
        left = covered.records % covered.batch_size
    if not most:
        raise DataError(
            f"layer {quoted(node.name)} has {covered.records} records, but a batch takes {covered.batch_size}; write a "
            "smaller batch_size"
        )
    if count is not None and count < most:
        return Extent(count, f"the first {count} of {most}")
    return Extent(most, "each record once" + (f" but the last {left}, which fill no batch" if left else ""))


def _coverage(node: Node) -> Coverage | None:
    assert isinstance(node.layer, DataLayer)  # as chosen
    try:
        return node.layer.coverage()
    except DataError as problem:
        raise problem.at(location=node.location, layer=node.name) from None
