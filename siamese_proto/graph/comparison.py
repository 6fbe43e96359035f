"""How a trained net compares two images: its features, its metric and its label, and the blobs that take the images."""

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal, get_args

from siamese_proto.errors import GraphError, quoted
from siamese_proto.graph.features import predictions, twin_features
from siamese_proto.graph.ir import Blob, Graph, Node
from siamese_proto.graph.traversal import Ancestry
from siamese_proto.proto import schema

Metric = Literal["EUCLIDEAN", "SQUARED", "L1", "COSINE", "DOT", "LEARNED"]
METRICS: tuple[Metric, ...] = get_args(Metric)
# The kind of a learned score: a score before a softmax or a sigmoid, or a probability.
ScoreKind = Literal["SOFTMAX", "SIGMOID", "PROBABILITY"]

_OF_LAYER: dict[str, Metric] = {
    "EUCLIDEAN": "EUCLIDEAN",
    "SQUARED": "SQUARED",
    "L1": "L1",
    "EXP_L1": "L1",
    "COSINE_SIMILARITY": "COSINE",
    "COSINE_DISTANCE": "COSINE",
    "DOT": "DOT",
}
_OF_LOSS: dict[str, ScoreKind] = {
    "SoftmaxWithLoss": "SOFTMAX",
    "HingeLoss": "SOFTMAX",
    "SigmoidCrossEntropyLoss": "SIGMOID",
    "EuclideanLoss": "PROBABILITY",
    "MultinomialLogisticLoss": "PROBABILITY",
    "InfogainLoss": "PROBABILITY",
}
_BEFORE: dict[str, ScoreKind] = {"Softmax": "SOFTMAX", "Sigmoid": "SIGMOID"}
_WITHOUT_IMAGES = ("DummyData", "Parameter")  # layers without bottoms that return no images


@dataclass(frozen=True)
class Comparison:
    """The blobs that a net compares two images with.

    Attributes:
        features: One of a net with a single tower, two of a twin, three (anchor, positive, negative) of triplets.
        metric: How features are compared.
        score: The output of a learned metric for two features.
        score_kind: The kind of the score.
        label: For each pair, whether it is of the same class.
        one_is_same: Whether label 1 means "same"; else label 0 does.
        node: The layer that all this is derived from.
    """

    features: tuple[Blob, ...]
    metric: Metric = "EUCLIDEAN"
    score: Blob | None = None
    score_kind: ScoreKind = "PROBABILITY"
    label: Blob | None = None
    one_is_same: bool = True
    node: Node | None = None

    @property
    def triplets(self) -> bool:
        """Whether the net compares an anchor with a positive and a negative."""
        return len(self.features) == 3


def find_comparison(graph: Graph, features: Sequence[str] = (), label: str = "") -> Comparison:
    """Return what the net compares, according to its losses, its Distance layers or its towers, in this order.

    Args:
        graph: A net that is trained, tested or deployed.
        features: Names of the blobs to compare instead: one, or one for each of two towers.
        label: Name of the label to use instead.

    Raises:
        GraphError: the net does not determine it, or has no such blob.
    """
    if features:
        if len(features) > 2:
            raise GraphError(f"{len(features)} features are named; give one, or one for each of two towers")
        comparison = Comparison(tuple(graph.blob(name) for name in features))
    else:
        ancestry = Ancestry(graph.nodes)
        candidates = [*_compared(graph), *_by_distance(graph)]
        if len({candidate.features for candidate in candidates}) > 1:
            layers = "; ".join(f"{quoted(c.node.name if c.node else '')} {_names(c.features)}" for c in candidates[:4])
            raise GraphError(f"several layers compare features: {layers}; choose with --feature, once for each tower")
        comparison = candidates[0] if candidates else _by_towers(graph, ancestry)
    if label:
        return replace(comparison, label=graph.blob(label))
    if comparison.label is None and len(comparison.features) == 2:
        return replace(comparison, label=_label_of_features(graph, comparison.features))
    return comparison


def _compared(graph: Graph) -> Iterator[Comparison]:
    """Yield what losses of pairs and of triplets compare."""
    for node in graph.nodes:
        if node.type == "ContrastiveLoss" and len(node.bottoms) == 3:
            first, second, label = node.bottoms
            similar = node.message.contrastive_loss_param.label == schema.ContrastiveLossParameter.SIMILAR
            yield Comparison((first, second), label=label, one_is_same=similar, node=node)
        elif node.type == "TripletLoss" and len(node.bottoms) == 3:
            euclidean = node.message.triplet_loss_param.distance == schema.TripletLossParameter.EUCLIDEAN
            yield Comparison(tuple(node.bottoms), "EUCLIDEAN" if euclidean else "SQUARED", node=node)


def _by_distance(graph: Graph) -> Iterator[Comparison]:
    for node in graph.nodes:
        if node.type == "Distance" and len(node.bottoms) == 2:
            metric = schema.DistanceParameter.Metric.Name(node.message.distance_param.metric)
            yield Comparison(tuple(node.bottoms), _OF_LAYER[metric], node=node)


def _names(blobs: Sequence[Blob]) -> str:
    return ", ".join(quoted(blob.name) for blob in blobs)


def _by_towers(graph: Graph, ancestry: Ancestry) -> Comparison:
    """Return the features of the towers and their learned score, or the only prediction of a net without towers."""
    towers = twin_features(graph)
    if not towers:
        blobs = [blob for blob, _ in predictions(graph, ancestry)]
        if len(blobs) != 1:
            names = f"computes {_names(blobs)}" if blobs else "computes nothing with parameters"
            raise GraphError(f"the net has no towers and {names}; name the blob that is its feature with --feature")
        return Comparison((blobs[0],))
    if any(len(blobs) != 1 for blobs in towers):
        raise GraphError(
            f"each tower has several outputs ({_names(towers[0])} of the first one); name the features with --feature, "
            "once for each tower"
        )
    features = tuple(blobs[0] for blobs in towers)
    if len(features) != 2:
        raise GraphError(
            f"the net has {len(features)} towers and no loss that compares them ({_names(features)}); name two with "
            "--feature"
        )
    for blob, loss in predictions(graph, ancestry):
        scored = _as_score(blob, loss, ancestry.producer[blob.id])
        before = ancestry.before(blob)
        if scored is not None and all(ancestry.producer[feature.id].id in before for feature in features):
            label = _label_of(loss) if loss is not None else None
            node = loss or ancestry.producer[blob.id]
            if scored == "PROBABILITY" and node.type in _BEFORE:  # its bottom is not rounded to 0 or 1
                blob, scored = node.bottoms[0], _BEFORE[node.type]
            return Comparison(features, "LEARNED", blob, scored, label, node=node)
    return Comparison(features)


def _as_score(blob: Blob, loss: Node | None, maker: Node) -> ScoreKind | None:
    """Return which kind of score for "same" a blob is; None if it is not one, or two, values for each pair."""
    if loss is not None:
        kind = _OF_LOSS.get(loss.type)
    else:
        kind = "PROBABILITY" if maker.type in ("Softmax", "Sigmoid") else None
    if kind is None or blob.shape is None:
        return kind
    return kind if math.prod(blob.shape[1:]) in ((2,) if kind == "SOFTMAX" else (1, 2)) else None


def _label_of(loss: Node) -> Blob | None:
    if loss.type == "EuclideanLoss":
        return loss.bottoms[1]  # Caffe does not distinguish its bottoms; by convention the second is the label
    return loss.bottoms[loss.labels[0]] if loss.labels else None


def _label_of_features(graph: Graph, features: Sequence[Blob]) -> Blob | None:
    """Return the label of the only loss that depends on all features."""
    ancestry = Ancestry(graph.nodes)
    makers = {ancestry.producer[feature.id].id for feature in features}
    before: dict[str, Set[str]] = {}  # for each blob the makers that it depends on
    labels = set()
    for node in graph.nodes:
        passed = frozenset[str]().union(*(before.get(blob.id, ()) for blob in node.bottoms))
        before.update(dict.fromkeys((top.id for top in node.tops), passed | makers & {node.id}))
        if node.is_loss and makers <= passed:
            label = _label_of(node)
            labels |= {label} if label is not None and label.id not in ancestry.learned else set()
    return labels.pop() if len(labels) == 1 else None


# Inputs for images


def image_blobs(graph: Graph, features: Sequence[Blob], inputs: Sequence[str] = ()) -> tuple[tuple[Blob, ...], ...]:
    """Return for each feature the blobs that take an image to compute it: parts of a record, or whole ones.

    It is one blob, unless one tower processes the images of both sides joined in a batch: then it is all of them.

    Args:
        graph: The net.
        features: Blobs of the net.
        inputs: Names of the blobs to use instead, one for each feature.

    Raises:
        GraphError: the net does not determine them.
    """
    if inputs:
        if len(inputs) != len(features):
            raise GraphError(f"{len(inputs)} inputs are named for {len(features)} features; give one --input for each")
        return tuple((graph.blob(name),) for name in inputs)
    ancestry = Ancestry(graph.nodes)
    nodes = {node.id: node for node in graph.nodes}
    before = [
        {feature.id, *(blob.id for node_id in ancestry.before(feature) for blob in nodes[node_id].bottoms)}
        for feature in features
    ]
    images = []
    for index, feature in enumerate(features):
        others = set[str]().union(*(ids for place, ids in enumerate(before) if place != index))
        begins = _begins(graph, before[index] - others)
        if not begins or any(blob.id in ancestry.learned for blob in begins):
            begins = _joined(graph, before[index], ancestry)
            if len(begins) != len(features):
                raise _no_input(feature, begins)
            images.append(begins)
            continue
        if len(begins) > 1:
            begins = tuple(blob for blob in begins if blob.shape is not None and len(blob.shape) == 4)
        if len(begins) != 1:
            raise _no_input(feature, _begins(graph, before[index]))
        _check_untouched(begins[0], ancestry)
        images.append(begins)
    return tuple(images)


def _no_input(feature: Blob, begins: Sequence[Blob]) -> GraphError:
    names = _names(begins) or "no separate data"
    return GraphError(
        f"cannot determine the input that takes the image for {quoted(feature.name)}: it is computed from {names}; "
        "name it with --input, once for each feature"
    )


def _begins(graph: Graph, ids: set[str]) -> tuple[Blob, ...]:
    """Return the blobs among these that are not computed from the others."""
    return tuple(
        top
        for node in graph.nodes
        if node.type not in _WITHOUT_IMAGES and not any(bottom.id in ids for bottom in node.bottoms)
        for top in node.tops
        if top.id in ids
    )


def _joined(graph: Graph, ids: set[str], ancestry: Ancestry) -> tuple[Blob, ...]:
    """Return the bottoms of the first layer that joins images in one batch."""
    for node in graph.nodes:
        unlearned = not any(bottom.id in ancestry.learned for bottom in node.bottoms)
        if node.type == "Concat" and unlearned and any(top.id in ids for top in node.tops):
            return node.bottoms
    return ()


def data_node(blob: Blob, ancestry: Ancestry) -> Node:
    """Return the data or Input layer that an image is cut from."""
    node = ancestry.producer[blob.id]
    while node.bottoms:
        node = ancestry.producer[node.bottoms[0].id]
    return node


def _check_untouched(blob: Blob, ancestry: Ancestry) -> None:
    node = ancestry.producer[blob.id]
    while node.bottoms:
        if node.type not in ("Slice", "Split"):
            raise GraphError(
                f"layer {quoted(node.name)} processes both images of a record before they are separated, so one image "
                "cannot be passed alone; name the blob that takes it with --input",
                location=node.location,
            )
        node = ancestry.producer[node.bottoms[0].id]
