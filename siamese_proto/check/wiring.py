"""Who makes and who reads each blob of a graph, and which of its memory Caffe lets several blobs share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from siamese_proto.graph.gradient_flow import gradient_flow
from siamese_proto.graph.ir import Blob, Graph, Node
from siamese_proto.graph.select import PHASES

_RECURRENT = ("LSTM", "RNN")
_NEVER_NEGATIVE = ("Sigmoid", "Exp", "Softmax", "AbsVal", "BNLL")


class Wiring:
    """The makers and readers of the blobs of one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.gradients = gradient_flow(graph)
        self.maker: dict[str, Node] = {top.id: node for node in graph.nodes for top in node.tops}
        self.readers: defaultdict[str, list[Node]] = defaultdict(list)  # a layer that reads it twice stands here twice
        self.weighted: set[str] = set()  # ids of blobs with a loss_weight in the file
        for node in graph.nodes:
            for bottom in node.bottoms:
                self.readers[bottom.id].append(node)
            weights = zip(node.tops, node.message.loss_weight, strict=False)
            self.weighted |= {top.id for top, weight in weights if weight}

    def uses(self, blob: Blob) -> int:
        """How often Caffe counts a blob as used; it makes a Split for one that is used more than once."""
        return len(self.readers[blob.id]) + (blob.id in self.weighted)

    def in_place(self, node: Node) -> Iterator[tuple[int, Blob, Blob]]:
        """Index, bottom and top of each blob that a layer changes in place."""
        for index, (bottom, top) in enumerate(zip(node.bottoms, node.tops, strict=False)):
            if bottom.name == top.name:
                yield index, bottom, top

    def refused(self, node: Node) -> Iterator[tuple[int, Blob]]:
        """Index and bottom of each blob that a layer changes in place and that others use too, which stops Caffe."""
        for index, bottom, _ in self.in_place(node):
            if self.uses(bottom) > 1:
                yield index, bottom

    def is_refused(self, node: Node) -> bool:
        """Whether Caffe stops at the layer, because of a blob that it changes in place."""
        return any(self.refused(node))

    def changes(self, node: Node) -> bool:
        """Whether the layer computes other numbers than it reads: Dropout in TEST and ReLU of a Sigmoid do not."""
        if node.type == "ReLU" and node.bottoms:
            maker = self.maker.get(node.bottoms[0].id)
            return maker is None or maker.type not in _NEVER_NEGATIVE
        phase = PHASES[node.message.phase] if node.message.HasField("phase") else self.graph.phase
        return not (node.type == "Dropout" and phase == "TEST")

    def before_in_place(self, blob: Blob) -> Node | None:
        """The layer that made a blob, before layers changed it in place."""
        maker = self.maker.get(blob.id)
        while maker is not None:
            earlier = next((bottom for _, bottom, top in self.in_place(maker) if top.id == blob.id), None)
            if earlier is None:
                return maker
            blob, maker = earlier, self.maker.get(earlier.id)
        return None


def shares_numbers(node: Node) -> bool:
    """Whether the tops of a layer lie in the memory of its bottom in Caffe, which copies nothing."""
    if node.type in ("Slice", "Concat"):
        return len(node.bottoms) == len(node.tops) == 1
    return node.type in ("Split", "Flatten", "Reshape")


def lends_gradient(node: Node) -> bool:
    """Whether Caffe takes the gradient of the layer from its top's memory without a copy in the backward pass."""
    if node.type in ("Slice", "Concat"):
        return len(node.bottoms) == len(node.tops) == 1
    return node.type in ("Reshape", "Parameter", *_RECURRENT)


class Overwritten(NamedTuple):
    """Numbers that a layer needs and that another layer has changed by then."""

    by: Node
    of: Blob  # the blob as the layer that changes it names it
    needed_by: Node
    blob: Blob  # as the layer that needs it names it


class Memory:
    """What lies in Caffe's memory of each blob while the layers of a graph run."""

    def __init__(self, wiring: Wiring) -> None:
        self.read_later: list[Overwritten] = []  # in the forward pass
        self._wiring = wiring
        self._place: dict[str, str] = {}  # blob -> the blob whose memory it lies in
        self._numbers: dict[str, str] = {}  # blob -> the blob whose numbers it has
        self._content: dict[str, str] = {}  # memory -> the blob whose numbers are in it
        self._changed: dict[str, tuple[Node, Blob]] = {}  # numbers -> the layer that wrote over them
        for node in wiring.graph.nodes:
            for bottom in node.bottoms:
                self.read_later.extend(self.overwritten(bottom, node))
            self._run(node)

    def overwritten(self, blob: Blob, node: Node) -> Iterator[Overwritten]:
        """What is wrong with the numbers of a blob now; nothing where they are what the layer needs."""
        numbers = self._numbers.get(blob.id)
        if numbers is not None and self._content[self._place[blob.id]] != numbers:
            by, changed = self._changed[numbers]
            yield Overwritten(by, changed, node, blob)

    def _run(self, node: Node) -> None:
        shared = node.bottoms[0] if node.bottoms and shares_numbers(node) else None
        in_place = {top.id: bottom for _, bottom, top in self._wiring.in_place(node)}
        for top in node.tops:
            below = in_place.get(top.id, shared)
            if below is None or below.id not in self._place:
                self._place[top.id] = self._numbers[top.id] = self._content[top.id] = top.id
                continue
            place = self._place[top.id] = self._place[below.id]
            if top.id in in_place and self._wiring.changes(node):
                self._changed[self._content[place]] = (node, top)
                self._numbers[top.id] = self._content[place] = top.id
            else:
                self._numbers[top.id] = self._numbers[below.id]
