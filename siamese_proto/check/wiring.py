"""The producers and readers of the blobs of a graph, and which blobs share memory in Caffe."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from siamese_proto.graph.gradient_flow import gradient_flow
from siamese_proto.graph.ir import Blob, Graph, Node
from siamese_proto.graph.select import PHASES

_RECURRENT = ("LSTM", "RNN")
_NEVER_NEGATIVE = ("Sigmoid", "Exp", "Softmax", "AbsVal", "BNLL")


def has_gap(node: Node) -> bool:
    """Return whether a layer with errors lacks a bottom or top in the graph: a bottom is unknown, or a top is taken."""
    if node.layer is not None:
        return False
    read = node.message.bottom
    return len(node.bottoms) < len(read) or any(top.version and top.name not in read for top in node.tops)


class Wiring:
    """The producers and readers of the blobs of one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.gradients = gradient_flow(graph)
        self.producer: dict[str, Node] = {top.id: node for node in graph.nodes for top in node.tops}
        self.readers: defaultdict[str, list[Node]] = defaultdict(list)  # twice if a layer reads a blob twice
        self.weighted: set[str] = set()  # ids of blobs with a loss_weight in the file
        for node in graph.nodes:
            for bottom in node.bottoms:
                self.readers[bottom.id].append(node)
            weights = zip(node.tops, node.message.loss_weight, strict=False)
            self.weighted |= {top.id for top, weight in weights if weight}

    def uses(self, blob: Blob) -> int:
        """Return how often Caffe counts a blob as used. It inserts a Split for more than one use."""
        return len(self.readers[blob.id]) + (blob.id in self.weighted)

    def in_place(self, node: Node) -> Iterator[tuple[int, Blob, Blob]]:
        """Yield index, bottom and top of each blob that a layer changes in place."""
        for index, (bottom, top) in enumerate(zip(node.bottoms, node.tops, strict=False)):
            if bottom.name == top.name:
                yield index, bottom, top

    def refused(self, node: Node) -> Iterator[tuple[int, Blob]]:
        """Yield index and bottom of each blob that a layer changes in place and others use too, which stops Caffe."""
        for index, bottom, _ in self.in_place(node):
            if self.uses(bottom) > 1:
                yield index, bottom

    def is_refused(self, node: Node) -> bool:
        """Return whether Caffe stops at the layer, because of a blob that it changes in place."""
        return any(self.refused(node))

    def changes(self, node: Node) -> bool:
        """Return whether the layer changes the values it reads. Dropout in TEST and ReLU of a Sigmoid do not."""
        if node.type == "ReLU" and node.bottoms:
            producer = self.producer.get(node.bottoms[0].id)
            return producer is None or producer.type not in _NEVER_NEGATIVE
        phase = PHASES[node.message.phase] if node.message.HasField("phase") else self.graph.phase
        return not (node.type == "Dropout" and phase == "TEST")

    def before_in_place(self, blob: Blob) -> Node | None:
        """Return the layer that computes a blob, before layers change it in place."""
        producer = self.producer.get(blob.id)
        while producer is not None:
            earlier = next((bottom for _, bottom, top in self.in_place(producer) if top.id == blob.id), None)
            if earlier is None:
                return producer
            blob, producer = earlier, self.producer.get(earlier.id)
        return None


def shares_memory(node: Node) -> bool:
    """Return whether the tops of a layer use the memory of its bottom in Caffe, without a copy."""
    return node.type in ("Split", "Flatten", "Reshape") or _passes_on(node)


def shares_gradient(node: Node) -> bool:
    """Return whether Caffe's backward pass uses the gradient memory of the layer's top, without a copy."""
    return node.type in ("Reshape", "Parameter", *_RECURRENT) or _passes_on(node)


def _passes_on(node: Node) -> bool:
    """Return whether a Slice or Concat has one bottom and one top."""
    return node.type in ("Slice", "Concat") and len(node.bottoms) == len(node.tops) == 1


class Overwritten(NamedTuple):
    """Values that a layer needs after another layer has changed them."""

    by: Node
    of: Blob  # the blob as the layer that changes it names it
    needed_by: Node
    blob: Blob  # the blob as the layer that needs it names it


class Memory:
    """The contents of the memory of each blob in Caffe while the layers of a graph run."""

    def __init__(self, wiring: Wiring) -> None:
        self.read_later: list[Overwritten] = []  # in the forward pass
        self._wiring = wiring
        self._memory: dict[str, str] = {}  # blob -> the blob whose memory it uses
        self._values: dict[str, str] = {}  # blob -> the blob whose values it has
        self._content: dict[str, str] = {}  # memory -> the blob whose values it holds
        self._changed: dict[str, tuple[Node, Blob]] = {}  # values -> the layer that overwrites them
        for node in wiring.graph.nodes:
            for bottom in node.bottoms:
                self.read_later.extend(self.overwritten(bottom, node))
            self._run(node)

    def overwritten(self, blob: Blob, node: Node) -> Iterator[Overwritten]:
        """Yield what has overwritten the values of a blob that the layer needs now, if anything."""
        values = self._values.get(blob.id)
        if values is not None and self._content[self._memory[blob.id]] != values:
            by, changed = self._changed[values]
            yield Overwritten(by, changed, node, blob)

    def _run(self, node: Node) -> None:
        shared = node.bottoms[0] if node.bottoms and shares_memory(node) else None
        in_place = {top.id: bottom for _, bottom, top in self._wiring.in_place(node)}
        for top in node.tops:
            below = in_place.get(top.id, shared)
            if below is None or below.id not in self._memory:
                self._memory[top.id] = self._values[top.id] = self._content[top.id] = top.id
                continue
            memory = self._memory[top.id] = self._memory[below.id]
            if top.id in in_place and self._wiring.changes(node):
                self._changed[self._content[memory]] = (node, top)
                self._values[top.id] = self._content[memory] = top.id
            else:
                self._values[top.id] = self._values[below.id]
