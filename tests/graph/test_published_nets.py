"""Well-known nets, written from their papers: blob shapes and parameter counts are those published for Caffe."""

from __future__ import annotations

import pytest
from published_nets import NETS

from siamese_proto import build_graph, parse_net
from siamese_proto.graph.ir import Graph, Shape


def numbers(graph: Graph) -> int:
    """Return the number of learned values, without statistics."""
    return sum(size(param.shape) for param in graph.params if not param.statistic)


def size(shape: Shape | None) -> int:
    assert shape is not None
    count = 1
    for extent in shape:
        count *= extent
    return count


@pytest.mark.parametrize("name", NETS)
def test_a_published_net_has_its_published_shapes_and_size(name: str) -> None:
    write, learned, shapes = NETS[name]
    graph = build_graph(parse_net(write().text))
    blobs = graph.blobs()
    assert {blob: blobs[blob].shape for blob in shapes} == shapes
    assert numbers(graph) == learned
    assert not graph.problems
