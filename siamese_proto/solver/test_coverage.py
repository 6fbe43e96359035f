"""Which records a test with a given number of batches counts: not all of them, or some more often than others."""

import math

from siamese_proto.graph.ir import Graph
from siamese_proto.layers.base import Coverage, DataLayer


def first_coverage(graph: Graph) -> Coverage | None:
    """Return the records of the first data layer that has an end, or None. Raises DataError."""
    layers = [node.layer for node in graph.nodes if isinstance(node.layer, DataLayer)]
    return next((coverage for layer in layers if (coverage := layer.coverage()) is not None), None)


def untested_records(coverage: Coverage, batches: int) -> str:
    """Describe the records that a test leaves out because it has too few batches, as in Caffe; empty if none."""
    tested = batches * coverage.batch_size
    if tested >= coverage.records:
        return ""
    return (
        f"test_iter {batches} with batches of {coverage.batch_size} tests {tested} of the {coverage.records} records "
        f"of '{coverage.source}'; test_iter: {math.ceil(coverage.batches)} tests all"
    )


def uneven_records(graph: Graph, batches: int) -> str:
    """Describe the records of the first data layer that a test counts more often than others; empty if none.

    A test with fewer batches than there are records is a choice, and not described. Raises DataError.
    """
    for node in graph.nodes:
        if not isinstance(node.layer, DataLayer):
            continue
        rows = node.tops[0].shape
        coverage = node.layer.coverage(batches * rows[0] if rows else None)
        if coverage is not None:
            tested = batches * coverage.batch_size
            if tested < coverage.records or tested % coverage.records == 0:
                return ""
            return (
                f"--iterations {batches} with batches of {coverage.batch_size} tests {tested} records, but "
                f"'{coverage.source}' has {coverage.records}, so some count more often than others; --iterations "
                f"{coverage.batches.numerator} counts all equally"
            )
    return ""
