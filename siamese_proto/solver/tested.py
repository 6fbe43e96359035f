"""Which records a test of so many batches counts: some not at all, or some more often than others."""

from __future__ import annotations

import math

from siamese_proto.graph.ir import Graph
from siamese_proto.layers.base import Coverage, DataLayer


def first_coverage(graph: Graph) -> Coverage | None:
    """The records of the first data layer that has an end; several are read in step. Raises DataError."""
    layers = [node.layer for node in graph.nodes if isinstance(node.layer, DataLayer)]
    return next((found for layer in layers if (found := layer.coverage()) is not None), None)


def missed(size: Coverage, batches: int, option: str = "test_iter:") -> str:
    """What is said where batches are fewer than the records: Caffe scores those that come first, and goes on there."""
    tested = batches * size.batch_size
    if tested >= size.records:
        return ""
    return (
        f"{option.rstrip(':')} {batches} with batches of {size.batch_size} tests {tested} of the {size.records} "
        f"records of '{size.source}'; {option} {math.ceil(size.batches)} tests all"
    )


def uneven(size: Coverage, batches: int, option: str) -> str:
    """What is said where some records count more often than others; empty where each counts equally often."""
    tested = batches * size.batch_size
    if tested < size.records:
        return missed(size, batches, option)
    if tested % size.records == 0:
        return ""
    return (
        f"{option} {batches} with batches of {size.batch_size} tests {tested} records, but '{size.source}' has "
        f"{size.records}, so some count more often than others; {option} {size.batches.numerator} counts all equally"
    )
