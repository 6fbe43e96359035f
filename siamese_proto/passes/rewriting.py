"""What all passes share: their result, and questions about a graph."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

from siamese_proto.graph.ir import Graph, Node


@dataclass(frozen=True)
class Rewritten:
    """The result of a pass.

    Attributes:
        graph: The rewritten graph. Its outputs and gradients are those of the original.
        replaced: Ids of nodes of the original graph that no longer run by themselves. What they compute can be neither
            given nor left out in the rewritten graph.
    """

    graph: Graph
    replaced: frozenset[str] = frozenset()

    def __str__(self) -> str:
        names = f"\nreplaced: {', '.join(sorted(self.replaced))}" if self.replaced else ""
        return f"{self.graph}{names}"


Pass: TypeAlias = Callable[[Graph], Rewritten]


def reader_counts(graph: Graph) -> Counter[str]:
    """Count the readers of each blob, by id; an output of the net is read once more."""
    counts = Counter(blob.id for node in graph.nodes for blob in node.bottoms)
    counts.update(blob.id for blob in graph.outputs)
    return counts


def is_read_once(node: Node, readers: Counter[str]) -> bool:
    """Return whether the first top has one reader and no top counts in the loss."""
    return readers[node.tops[0].id] == 1 and not any(node.loss_weights)


def is_ordinary() -> bool:
    """Return whether a custom backward rule suffices for this pass.

    It does not if the pass is compiled or exported, or under torch.func or forward-mode derivatives: these need torch's
    own operators.
    """
    import torch
    from torch.autograd import forward_ad

    is_transformed = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
    level: int = getattr(forward_ad, "_current_level", -1)
    return not torch.compiler.is_compiling() and level < 0 and not is_transformed()


def free_id(name: str, ids: Collection[str]) -> str:
    """Return the name, or a similar one that is not among the ids of a graph."""
    while name in ids:
        name = f"{name}_"
    return name
