"""Which records a test of so many batches counts: some not at all, or some more often than others."""

from __future__ import annotations

import math

from siamese_proto.graph.ir import Graph
from siamese_proto.layers.base import Coverage, DataLayer


def first_coverage(graph: Graph) -> Coverage | None:
    """The records of the first data layer that has an end; several are read in step. Raises DataError."""
    layers = [node.layer for node in graph.nodes if isinstance(node.layer, DataLayer)]
    return next((found for layer in layers if (found := layer.coverage()) is not None), None)


def missed(size: Coverage, batches: int) -> str:
    """What is said where batches are fewer than the records: Caffe scores those that come first, and goes on there."""
    tested = batches * size.batch_size
    if tested >= size.records:
        return ""
    return (
        f"test_iter {batches} with batches of {size.batch_size} tests {tested} of the {size.records} records of "
        f"'{size.source}'; test_iter: {math.ceil(size.batches)} tests all"
    )


def counted_unevenly(graph: Graph, batches: int) -> str:
    """What is said where a test counts some records of the first data layer more often than others, else empty.

    That of fewer batches than there are records is a choice. Raises DataError.
    """
    for node in graph.nodes:
        if not isinstance(node.layer, DataLayer):
            continue
        rows = node.tops[0].shape
        size = node.layer.coverage(batches * rows[0] if rows else None)
        if size is None:
            continue
        tested = batches * size.batch_size
        if tested < size.records or tested % size.records == 0:
            return ""
        return (
            f"--iterations {batches} with batches of {size.batch_size} tests {tested} records, but '{size.source}' has "
            f"{size.records}, so some count more often than others; --iterations {size.batches.numerator} counts all "
            "equally"
        )
    return ""
