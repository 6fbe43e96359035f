"""Walks over graphs and the order in which steps can run."""

from __future__ import annotations

import pytest
from nets import net

from siamese_proto import build_graph, parse_net
from siamese_proto.graph.traversal import nodes_before, topological_order

TEXT = """
    in Input > x y ; ; 2x3 2x3
    a ReLU x
    b ReLU y
    s Eltwise a b
    t Power a
"""


@pytest.mark.parametrize(
    ("blobs", "inputs", "expected"),
    [("s", "", "in a b s"), ("t", "", "in a t"), ("s", "a", "in b s"), ("s", "x y", "a b s"), ("s", "s", "")],
)
def test_nodes_before_blobs_end_at_the_inputs(blobs: str, inputs: str, expected: str) -> None:
    graph = build_graph(parse_net(net(TEXT)))
    ends, begins = ([graph.blobs()[name] for name in names.split()] for names in (blobs, inputs))
    assert [node.name for node in nodes_before(graph, ends, begins)] == expected.split()


@pytest.mark.parametrize(
    ("waits", "priority", "expected"),
    [
        ([[], [], []], [2, 1, 0], [2, 1, 0]),
        ([[2], [], [1]], [0, 1, 2], [1, 2, 0]),
        ([[1], [], [0, 1]], [5, 5, 0], [1, 0, 2]),
        ([[1], [0]], [0, 1], None),
        ([[], [2], [1]], [0, 1, 2], None),
        ([], [], []),
    ],
)
def test_steps_run_after_those_they_wait_for(waits: list[list[int]], priority: list[int], expected: object) -> None:
    assert topological_order(waits, priority) == expected
