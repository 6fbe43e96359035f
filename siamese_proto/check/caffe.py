"""Warn where Caffe computes something else for a net, or refuses it.

Each rule is a function of the graph. Its docstring names the file of Caffe's source with the reason. See
docs/decisions/0005.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator

from siamese_proto.check.findings import LayerWarning
from siamese_proto.check.wiring import Memory, Wiring, shares_gradient
from siamese_proto.errors import quoted
from siamese_proto.graph.ir import Blob, Graph, Node

# Layers that compute their gradient from their own top, and those that compute it from a bottom.
_NEEDS_TOP = ("Sigmoid", "TanH", "ELU", "Swish", "Exp", "Softmax", "LRN", "MVN")
_NEEDS_BOTTOM = ("Convolution", "Deconvolution", "InnerProduct", "Scale", "PReLU", "ReLU", "AbsVal", "BNLL", "Clip")
_LOSES_ITS_BOTTOM = ("Log", "LRN", "MVN")  # in place; others keep a copy or need only its sign
_READS_WHILE_WRITING = ("Eltwise", "Pooling", "InnerProduct")
# Layers that stop Caffe if the gradient of this bottom is needed (None: of any).
_NO_BACKWARD = {"Accuracy": None, "ArgMax": None, "Threshold": None, "Embed": 0, "BatchReindex": 1, "InfogainLoss": 2}

Difference = tuple[Node, str, str]  # a layer, the path of a field in it, and the text
Rule = Callable[[Wiring], Iterator[Difference]]
_RULES: list[tuple[str, Rule]] = []  # each with the code of its findings


def caffe_differences(graph: Graph) -> Iterator[LayerWarning]:
    """Yield a warning for everything that Caffe refuses in a net or does differently."""
    wiring = Wiring(graph)
    for code, rule in _RULES:
        for node, path, text in rule(wiring):
            yield LayerWarning(node, path, code, text)


def _rule(code: str) -> Callable[[Rule], Rule]:
    """Register a rule with the code of its findings."""

    def register(rule: Rule) -> Rule:
        _RULES.append((code, rule))
        return rule

    return register


@_rule("caffe-refuses")
def read_before_in_place(wiring: Wiring) -> Iterator[Difference]:
    """insert_splits.cpp renames the bottom of the layer that works in place, but not its top."""
    for node in wiring.graph.nodes:
        for index, bottom in wiring.refused(node):
            other = next((reader for reader in wiring.readers[bottom.id] if reader.id != node.id), None)
            also = f"layer {quoted(other.name)} reads it too" if other is not None else "it has a loss_weight"
            text = f"changes {quoted(bottom.name)} in place, but {also}; Caffe stops (produced by multiple sources)"
            yield node, f"top[{index}]", f"{text}: rename the top"


@_rule("caffe-refuses")
def softmax_with_two_tops(wiring: Wiring) -> Iterator[Difference]:
    """softmax_loss_layer.cpp passes its loss_weight entries to an inner Softmax, which has one top."""
    for node in wiring.graph.nodes:
        if node.type == "SoftmaxWithLoss" and len(node.message.top) == 2 and node.message.loss_weight:
            text = "has two tops with a loss_weight each; Caffe stops: the inner Softmax has one top. Remove one"
            yield node, "loss_weight[1]", text


@_rule("caffe-refuses")
def loss_without_weights(wiring: Wiring) -> Iterator[Difference]:
    """loss_layer.cpp adds one loss_weight if there is none; layer.hpp requires one for each top."""
    for node in wiring.graph.nodes:
        if node.is_loss and len(node.message.top) > 1 and not node.message.loss_weight:
            yield node, "top[1]", "has several tops and no loss_weight; Caffe stops: write a loss_weight for each top"


@_rule("caffe-refuses")
def backward_refused(wiring: Wiring) -> Iterator[Difference]:
    """net.cpp: with force_backward, every layer needs a backward pass; accuracy_layer.hpp and others stop."""
    if not wiring.graph.force_backward or wiring.graph.phase != "TRAIN":
        return
    for node in wiring.graph.nodes:
        bottom = _NO_BACKWARD.get(node.type)
        if node.type in _NO_BACKWARD and (bottom is None or bottom < len(node.bottoms)):
            text = f"stops Caffe's backward pass: force_backward needs a gradient of {node.type}, which has none"
            yield node, "", text


@_rule("caffe-differs")
def recurrent_sharers(wiring: Wiring) -> Iterator[Difference]:
    """recurrent_layer.cpp: in TRAIN, only the copy of the first time step is replaced by the shared parameter."""
    for node in wiring.graph.nodes if wiring.graph.phase == "TRAIN" else ():
        steps = node.bottoms[0].shape[0] if node.bottoms and node.bottoms[0].shape else None
        sharer = next((use for use in node.params if not use.is_owner), None)
        if node.type in ("LSTM", "RNN") and sharer is not None and steps != 1:
            text = (
                f"shares parameters with layer {quoted(sharer.param.owner_name)}; in TRAIN, Caffe uses the shared ones "
                "at the first time step only, and separate values after that"
            )
            yield node, "param[0]", text


@_rule("caffe-differs")
def lost_gradient(wiring: Wiring) -> Iterator[Difference]:
    """flatten_layer.cpp gives its bottom other memory for the gradient than reshape_layer.cpp shares with it."""
    for node in wiring.graph.nodes if wiring.graph.phase == "TRAIN" else ():
        if node.type != "Flatten" or node.id not in wiring.gradients.nodes or wiring.uses(node.bottoms[0]) > 1:
            continue
        producer = wiring.before_in_place(node.bottoms[0])
        if producer is not None and shares_gradient(producer) and producer.id in wiring.gradients.nodes:
            text = (
                f"flattens the top of layer {quoted(producer.name)} ({producer.type}); Caffe loses the gradient "
                "between the two, so nothing before them learns from this path"
            )
            yield node, "", text


@_rule("caffe-differs")
def read_after_change(wiring: Wiring) -> Iterator[Difference]:
    """Split, Flatten, Reshape and others do not copy: a change of one of these blobs in place changes all."""
    for change in Memory(wiring).read_later:
        text = (
            f"changes {quoted(change.of.name)} in place; in Caffe, {quoted(change.blob.name)} uses the same memory, so "
            f"layer {quoted(change.needed_by.name)} reads the changed values"
        )
        yield change.by, "top[0]", text


@_rule("caffe-differs")
def gradient_from_changed(wiring: Wiring) -> Iterator[Difference]:
    """Layers that compute their gradient from values that a layer after them changes in place."""
    if wiring.graph.phase != "TRAIN":
        return
    memory = Memory(wiring)
    forward = {(change.by.id, change.needed_by.id) for change in memory.read_later}
    for node in wiring.graph.nodes:
        needed = [*(node.tops if _needs_tops(node) else ()), *(node.bottoms if _needs_bottoms(node) else ())]
        for blob in needed if node.id in wiring.gradients.nodes else ():
            for change in memory.overwritten(blob, node):
                by = change.by
                # Another rule is about layers that overwrite their own bottom; what Caffe refuses has no gradient.
                is_own = by.id == node.id or blob.id in {bottom.id for _, bottom, _ in wiring.in_place(node)}
                is_reported = is_own or (by.id, node.id) in forward or wiring.is_refused(by)
                if not is_reported and not _only_masked(wiring, node, blob, by):
                    text = (
                        f"changes {quoted(change.of.name)} in place; in Caffe, layer {quoted(node.name)} ({node.type}) "
                        f"computes its gradient from the changed values"
                    )
                    yield by, "top[0]", text


def _only_masked(wiring: Wiring, node: Node, top: Blob, by: Node) -> bool:
    """Return whether a ReLU changes only values whose gradient is zero. MVN needs them for other gradients too."""
    is_mask = by.type == "ReLU" and not by.message.relu_param.negative_slope and node.type != "MVN"
    reads_all = top in node.tops and by.bottoms[0].id == top.id and wiring.uses(top) == 1
    return is_mask and reads_all and not any(list(wiring.in_place(next_)) for next_ in wiring.readers[by.tops[0].id])


def _needs_tops(node: Node) -> bool:
    """Return whether the gradient is computed from the top."""
    if node.type == "Eltwise":
        eltwise = node.message.eltwise_param
        return eltwise.operation == eltwise.PROD and not eltwise.stable_prod_grad
    return node.type in _NEEDS_TOP or (node.type == "Power" and node.message.power_param.power not in (1, 2))


def _needs_bottoms(node: Node) -> bool:
    """Return whether the gradient is computed from a bottom: with parameters, only if these learn."""
    if node.type in _NEEDS_BOTTOM:
        return not node.params or any(use.takes_gradient for use in node.params)
    return _loses_its_bottom(node)


def _loses_its_bottom(node: Node) -> bool:
    """Return whether the layer needs its bottom for the gradient and keeps no copy when it works in place."""
    return node.type in _LOSES_ITS_BOTTOM or (node.type == "Power" and node.message.power_param.power != 1)


@_rule("caffe-differs")
def in_place_without_bottom(wiring: Wiring) -> Iterator[Difference]:
    """Layers that need what they overwrite: power_layer.cpp, eltwise_layer.cpp and others."""
    for node in wiring.graph.nodes:
        for index, bottom, _ in wiring.in_place(node):
            name = quoted(bottom.name)
            if node.type in _READS_WHILE_WRITING:
                yield node, f"top[{index}]", f"works in place; Caffe overwrites {name} before it has read all of it"
            elif node.id in wiring.gradients.nodes and wiring.graph.phase == "TRAIN" and _loses_its_bottom(node):
                text = f"works in place; Caffe computes the gradient from {name}, which is overwritten by then"
                yield node, f"top[{index}]", text


@_rule("caffe-differs")
def dropped_loss_weights(wiring: Wiring) -> Iterator[Difference]:
    """insert_splits.cpp clears all loss_weight entries of a layer when it moves one of them to a Split."""
    for node in wiring.graph.nodes:
        weighted = [(index, top) for index, top in enumerate(node.tops) if top.id in wiring.weighted]
        moved = [quoted(top.name) for _, top in weighted if wiring.readers[top.id]]
        for index, top in weighted if moved else ():
            if not wiring.readers[top.id]:
                text = (
                    f"has several tops with a loss_weight, and other layers read {moved[0]}; Caffe then ignores the "
                    f"loss_weight of {quoted(top.name)}"
                )
                yield node, f"loss_weight[{index}]", text


@_rule("caffe-differs")
def repeated_names(wiring: Wiring) -> Iterator[Difference]:
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
                    f"has the same name as the layer in line {first.location.line}, but other parameters; Caffe loads "
                    "every entry of this name in a weights file into the first of these layers (here: each its own)"
                )
                yield node, "name", text
