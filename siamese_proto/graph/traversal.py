"""Walks over a graph: the producers of blobs, the nodes before blobs, and the order in which nodes can run."""

import heapq
from collections.abc import Collection, Iterable, Sequence

from siamese_proto.graph.ir import Blob, Graph, Node


class Ancestry:
    """The producer of each blob of a graph, and what it depends on.

    Attributes:
        producer: The node that computes each blob, by `Blob.id`.
        learned: Ids of the blobs that depend on a parameter.
    """

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.producer: dict[str, Node] = {}
        self.learned: set[str] = set()
        for node in nodes:
            self.producer.update((top.id, node) for top in node.tops)
            if node.params or any(blob.id in self.learned for blob in node.bottoms):
                self.learned.update(top.id for top in node.tops)

    def before(self, *blobs: Blob, inputs: Iterable[Blob] = ()) -> frozenset[str]:
        """Return the ids of the nodes that compute these blobs from `inputs`, or from the sources of the net."""
        visited = {blob.id for blob in inputs}
        ids: set[str] = set()
        pending = list(blobs)
        while pending:
            blob = pending.pop()
            if blob.id in visited or blob.id not in self.producer:
                continue
            visited.add(blob.id)
            node = self.producer[blob.id]
            if node.id not in ids:
                ids.add(node.id)
                pending.extend(node.bottoms)
        return frozenset(ids)


def nodes_before(graph: Graph, blobs: Iterable[Blob], inputs: Iterable[Blob] = ()) -> tuple[Node, ...]:
    """Return the nodes that compute these blobs from `inputs`, or from the sources of the net, in order."""
    ids = Ancestry(graph.nodes).before(*blobs, inputs=inputs)
    return tuple(node for node in graph.nodes if node.id in ids)


def topological_order(waits: Sequence[Collection[int]], priority: Sequence[int]) -> list[int] | None:
    """Return the order in which steps can run, those of lower priority numbers first; None if they form a circle.

    `waits` holds for each step the indices of the steps that it runs after.
    """
    waiting = [set(others) for others in waits]
    followers: list[list[int]] = [[] for _ in waiting]
    for index, others in enumerate(waiting):
        for other in others:
            followers[other].append(index)
    ready = [(priority[index], index) for index, others in enumerate(waiting) if not others]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        _, index = heapq.heappop(ready)
        order.append(index)
        for follower in followers[index]:
            waiting[follower].discard(index)
            if not waiting[follower]:
                heapq.heappush(ready, (priority[follower], follower))
    return order if len(order) == len(waiting) else None
