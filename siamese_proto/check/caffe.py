"""What real Caffe does otherwise with a net: it computes something else, or refuses it.

Each rule is a function of the graph. docs/decisions/0005 lists them; the reasons are in Caffe's source, in the file
that each rule names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from siamese_proto.check.place import Place, warning
from siamese_proto.check.wiring import Memory, Wiring, lends_gradient
from siamese_proto.errors import quoted
from siamese_proto.graph.ir import Blob, Finding, Graph, Node

Difference = tuple[Node, str, str]  # the layer, the path of the field in it, and what differs
DIFFERS = "caffe-differs"
REFUSES = "caffe-refuses"

# Layers that compute their gradient from their own top, and those that compute it from a bottom.
_NEEDS_TOP = ("Sigmoid", "TanH", "ELU", "Swish", "Exp", "Softmax", "LRN", "MVN")
_NEEDS_BOTTOM = ("Convolution", "Deconvolution", "InnerProduct", "Scale", "PReLU", "ReLU", "AbsVal", "BNLL", "Clip")
_LOSES_ITS_BOTTOM = ("Log", "LRN", "MVN")  # in place; the others keep a copy, or need no more than its sign
_READS_WHILE_WRITING = ("Eltwise", "Pooling", "InnerProduct")
# Layers that stop when they are asked for the gradient of this bottom (None: of any).
_NO_BACKWARD = {"Accuracy": None, "ArgMax": None, "Threshold": None, "Embed": 0, "BatchReindex": 1, "InfogainLoss": 2}


def differences(graph: Graph, place: Place) -> Iterator[Finding]:
    """Yield a warning for everything in which real Caffe differs on this net, or why it refuses it."""
    wiring = Wiring(graph)
    for code, rules in ((REFUSES, _REFUSED), (DIFFERS, _DIFFERENT)):
        for rule in rules:
            for node, path, text in rule(wiring):
                yield warning(node, place(node, path), code, text)


def _read_before_in_place(wiring: Wiring) -> Iterator[Difference]:
    """insert_splits.cpp renames the bottom of the layer that works in place, but not its top."""
    for node in wiring.graph.nodes:
        for index, bottom in wiring.refused(node):
            other = next((reader for reader in wiring.readers[bottom.id] if reader.id != node.id), None)
            also = f"layer {quoted(other.name)} reads it too" if other is not None else "it has a loss_weight"
            yield (
                node,
                f"top[{index}]",
                f"changes {quoted(bottom.name)} in place, but {also}; Caffe stops (produced by multiple sources): "
                "give the top a name of its own",
            )


def _softmax_with_two_tops(wiring: Wiring) -> Iterator[Difference]:
    """softmax_loss_layer.cpp hands its loss_weight entries to a Softmax inside, which has one top."""
    for node in wiring.graph.nodes:
        if node.type == "SoftmaxWithLoss" and len(node.message.top) == 2 and node.message.loss_weight:
            text = "has two tops with a loss_weight each; Caffe stops: the Softmax inside has one top. Leave one out"
            yield node, "loss_weight[1]", text


def _loss_without_weights(wiring: Wiring) -> Iterator[Difference]:
    """loss_layer.cpp adds one loss_weight where none is given; layer.hpp wants one for each top."""
    for node in wiring.graph.nodes:
        is_loss = node.layer is not None and node.layer.is_loss
        if is_loss and len(node.message.top) > 1 and not node.message.loss_weight:
            yield (
                node,
                "top[1]",
                "has several tops and no loss_weight; Caffe stops: it wants a loss_weight for each top",
            )


def _backward_refused(wiring: Wiring) -> Iterator[Difference]:
    """net.cpp: with force_backward, every layer has to give gradients; accuracy_layer.hpp and others stop."""
    if not wiring.graph.force_backward or wiring.graph.phase != "TRAIN":
        return
    for node in wiring.graph.nodes:
        bottom = _NO_BACKWARD.get(node.type)
        if node.type in _NO_BACKWARD and (bottom is None or bottom < len(node.bottoms)):
            text = f"stops Caffe's backward pass: force_backward asks {node.type} for a gradient that it does not have"
            yield node, "", text


def _recurrent_sharers(wiring: Wiring) -> Iterator[Difference]:
    """recurrent_layer.cpp: in TRAIN, only the copy of the first time step is replaced by the shared parameter."""
    for node in wiring.graph.nodes if wiring.graph.phase == "TRAIN" else ():
        steps = node.bottoms[0].shape[0] if node.bottoms and node.bottoms[0].shape else None
        sharer = next((use for use in node.params if not use.is_owner), None)
        if node.type in ("LSTM", "RNN") and sharer is not None and steps != 1:
            text = (
                f"shares parameters with layer {quoted(sharer.param.owner_name)}; in TRAIN, Caffe uses the shared ones "
                "at the first time step only, and values of its own after that"
            )
            yield node, "param[0]", text


def _lost_gradient(wiring: Wiring) -> Iterator[Difference]:
    """flatten_layer.cpp gives its bottom other memory for the gradient; reshape_layer.cpp had lent it its own."""
    for node in wiring.graph.nodes if wiring.graph.phase == "TRAIN" else ():
        if node.type != "Flatten" or node.id not in wiring.gradients.nodes or wiring.uses(node.bottoms[0]) > 1:
            continue
        maker = wiring.before_in_place(node.bottoms[0])
        if maker is not None and lends_gradient(maker) and maker.id in wiring.gradients.nodes:
            text = (
                f"flattens the top of layer {quoted(maker.name)} ({maker.type}); Caffe loses the gradient between the "
                "two, so nothing before them learns from this path"
            )
            yield node, "", text


def _read_after_change(wiring: Wiring) -> Iterator[Difference]:
    """Split, Flatten, Reshape and others copy nothing: what changes one of these blobs in place changes all."""
    for found in Memory(wiring).read_later:
        text = (
            f"changes {quoted(found.of.name)} in place; in Caffe {quoted(found.blob.name)} lies in the same memory, so "
            f"layer {quoted(found.needed_by.name)} reads the changed numbers"
        )
        yield found.by, "top[0]", text


def _gradient_from_changed(wiring: Wiring) -> Iterator[Difference]:
    """Layers that compute their gradient from numbers which a layer after them has changed in place by then."""
    if wiring.graph.phase != "TRAIN":
        return
    memory = Memory(wiring)
    forward = {(found.by.id, found.needed_by.id) for found in memory.read_later}
    for node in wiring.graph.nodes:
        needed = [*(node.tops if _needs_tops(node) else ()), *(node.bottoms if _needs_bottoms(node) else ())]
        for blob in needed if node.id in wiring.gradients.nodes else ():
            for found in memory.overwritten(blob, node):
                # Layers that lose their own bottom have a rule of their own; what Caffe refuses has no gradient.
                own = found.by.id == node.id or blob.id in {bottom.id for _, bottom, _ in wiring.in_place(node)}
                known = own or (found.by.id, node.id) in forward or wiring.is_refused(found.by)
                if not known and not _only_masked(wiring, node, blob, found.by):
                    text = (
                        f"changes {quoted(found.of.name)} in place; in Caffe, layer {quoted(node.name)} ({node.type}) "
                        f"computes its gradient from the changed numbers"
                    )
                    yield found.by, "top[0]", text


def _only_masked(wiring: Wiring, node: Node, top: Blob, by: Node) -> bool:
    """Whether a ReLU changes only numbers whose gradient it has made zero. MVN needs those numbers for others too."""
    is_mask = by.type == "ReLU" and not by.message.relu_param.negative_slope and node.type != "MVN"
    reads_all = top in node.tops and by.bottoms[0].id == top.id and wiring.uses(top) == 1
    return is_mask and reads_all and not any(list(wiring.in_place(next_)) for next_ in wiring.readers[by.tops[0].id])


def _needs_tops(node: Node) -> bool:
    """Whether the gradient is computed from the top."""
    if node.type == "Eltwise":
        eltwise = node.message.eltwise_param
        return eltwise.operation == eltwise.PROD and not eltwise.stable_prod_grad
    return node.type in _NEEDS_TOP or (node.type == "Power" and node.message.power_param.power not in (1, 2))


def _needs_bottoms(node: Node) -> bool:
    """Whether the gradient is computed from a bottom; of layers with parameters only where these learn."""
    if node.type in _NEEDS_BOTTOM:
        return not node.params or any(use.takes_gradient for use in node.params)
    return _loses_its_bottom(node)


def _loses_its_bottom(node: Node) -> bool:
    """Whether it needs its bottom for the gradient and keeps no copy where it works in place."""
    return node.type in _LOSES_ITS_BOTTOM or (node.type == "Power" and node.message.power_param.power != 1)


def _in_place_without_bottom(wiring: Wiring) -> Iterator[Difference]:
    """Layers that need what they have written over: power_layer.cpp, eltwise_layer.cpp and others."""
    for node in wiring.graph.nodes:
        for index, bottom, _ in wiring.in_place(node):
            name = quoted(bottom.name)
            if node.type in _READS_WHILE_WRITING:
                yield node, f"top[{index}]", f"works in place; Caffe writes over {name} while it still has to read it"
            elif node.id in wiring.gradients.nodes and wiring.graph.phase == "TRAIN" and _loses_its_bottom(node):
                text = f"works in place; Caffe computes the gradient from {name}, which it has written over by then"
                yield node, f"top[{index}]", text


def _dropped_loss_weights(wiring: Wiring) -> Iterator[Difference]:
    """insert_splits.cpp clears all loss_weight entries of a layer when it moves one of them to a Split."""
    for node in wiring.graph.nodes:
        weighted = [(index, top) for index, top in enumerate(node.tops) if top.id in wiring.weighted]
        moved = [quoted(top.name) for _, top in weighted if wiring.readers[top.id]]
        for index, top in weighted if moved else ():
            if not wiring.readers[top.id]:
                text = (
                    f"has several tops with a loss_weight, of which other layers read {moved[0]}; Caffe then drops the "
                    f"loss_weight of {quoted(top.name)}"
                )
                yield node, f"loss_weight[{index}]", text


def _repeated_names(wiring: Wiring) -> Iterator[Difference]:
    """net.cpp: CopyTrainedLayersFrom finds the first layer of a name for every entry of a weights file."""
    by_name: defaultdict[str, list[Node]] = defaultdict(list)
    for node in wiring.graph.nodes:
        if node.params:
            by_name[node.name].append(node)
    for first, *others in by_name.values():
        owned = {use.param.id for use in first.params}
        for node in others:
            if not owned.issuperset(use.param.id for use in node.params):
                text = (
                    f"has the name of the layer in line {first.location.line} and parameters of its own; Caffe loads "
                    "every entry of this name in a weights file into the first of them, here each gets its own entry"
                )
                yield node, "name", text


Rule = Callable[[Wiring], Iterator[Difference]]
_REFUSED: tuple[Rule, ...] = (_read_before_in_place, _softmax_with_two_tops, _loss_without_weights, _backward_refused)
_DIFFERENT: tuple[Rule, ...] = (
    _recurrent_sharers,
    _lost_gradient,
    _read_after_change,
    _gradient_from_changed,
    _in_place_without_bottom,
    _dropped_loss_weights,
    _repeated_names,
)
