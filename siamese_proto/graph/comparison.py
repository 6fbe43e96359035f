"""How a trained net tells whether two images are of one class: which blobs it compares, how, and against what label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal, get_args

from siamese_proto.errors import GraphError, did_you_mean, quoted
from siamese_proto.graph.features import predictions, twin_features
from siamese_proto.graph.ir import Blob, Graph, Node
from siamese_proto.graph.traversal import Ancestry
from siamese_proto.proto import schema

Metric = Literal["EUCLIDEAN", "SQUARED", "L1", "COSINE", "DOT", "LEARNED"]
METRICS: tuple[Metric, ...] = get_args(Metric)
# What a learned score is: scores before a softmax or a sigmoid, or the probability itself.
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
_MADE_UP = ("DummyData", "Parameter")  # sources that deliver no images


@dataclass(frozen=True)
class Comparison:
    """The blobs that tell two images apart.

    `features`: one of a net with a single tower, two of a twin, three (anchor, positive, negative) where triplets are
    compared. `score` is what a learned metric puts out of two features. `label` tells of each pair whether it is alike:
    by 1, or by 0 where `one_is_same` is False.
    """

    features: tuple[Blob, ...]
    metric: Metric = "EUCLIDEAN"
    score: Blob | None = None
    score_kind: ScoreKind = "PROBABILITY"
    label: Blob | None = None
    one_is_same: bool = True
    told_by: Node | None = None  # the layer that all this is read from

    @property
    def triplets(self) -> bool:
        """Whether the net compares an anchor with a positive and a negative."""
        return len(self.features) == 3


def find_comparison(graph: Graph, features: Sequence[str] = (), label: str = "") -> Comparison:
    """What the net compares, judged by its losses, its Distance layers and its towers, in this order.

    `features` and `label` name the blobs to take instead. Raises GraphError where it cannot be told.
    """
    if features:
        found = _named(graph, features)
    else:
        ancestry = Ancestry(graph.nodes)
        candidates = [*_compared(graph), *_by_distance(graph)]
        if len({comparison.features for comparison in candidates}) > 1:
            raise _ambiguous(candidates)
        found = candidates[0] if candidates else _by_towers(graph, ancestry)
    if label:
        found = replace(found, label=_blob(graph, label))
    elif found.label is None and len(found.features) > 1 and not found.triplets:
        found = replace(found, label=_label_behind(graph, found))
    return found


def _blob(graph: Graph, name: str) -> Blob:
    blobs = graph.blobs()
    if name not in blobs:
        raise GraphError(f"the net has no blob {quoted(name)}{did_you_mean(name, blobs)}")
    return blobs[name]


def _named(graph: Graph, names: Sequence[str]) -> Comparison:
    if len(names) > 2:
        raise GraphError(f"{len(names)} features are named; give one, or one for each of two towers")
    return Comparison(tuple(_blob(graph, name) for name in names))


def _compared(graph: Graph) -> Iterator[Comparison]:
    """What losses of pairs and of triplets compare."""
    for node in graph.nodes:
        if node.type == "ContrastiveLoss" and len(node.bottoms) == 3:
            first, second, label = node.bottoms
            similar = node.message.contrastive_loss_param.label == schema.ContrastiveLossParameter.SIMILAR
            yield Comparison((first, second), label=label, one_is_same=similar, told_by=node)
        elif node.type == "TripletLoss" and len(node.bottoms) == 3:
            euclidean = node.message.triplet_loss_param.distance == schema.TripletLossParameter.EUCLIDEAN
            yield Comparison(tuple(node.bottoms), "EUCLIDEAN" if euclidean else "SQUARED", told_by=node)


def _by_distance(graph: Graph) -> Iterator[Comparison]:
    for node in graph.nodes:
        if node.type == "Distance" and len(node.bottoms) == 2:
            metric = schema.DistanceParameter.Metric.Name(node.message.distance_param.metric)
            yield Comparison(tuple(node.bottoms), _OF_LAYER[metric], told_by=node)


def _ambiguous(candidates: Sequence[Comparison]) -> GraphError:
    told = "; ".join(
        f"{quoted(comparison.told_by.name if comparison.told_by else '')} {_names(comparison.features)}"
        for comparison in candidates[:4]
    )
    return GraphError(f"several layers compare features: {told}; say which with --feature, once for each tower")


def _names(blobs: Sequence[Blob]) -> str:
    return ", ".join(quoted(blob.name) for blob in blobs)


def _by_towers(graph: Graph, ancestry: Ancestry) -> Comparison:
    """The features that towers hand on and what is learned of them, or the one thing that a net without towers says."""
    towers = twin_features(graph)
    if not towers:
        found = [blob for blob, _ in predictions(graph, ancestry)]
        if len(found) != 1:
            names = f"computes {_names(found)}" if found else "computes nothing with parameters"
            raise GraphError(f"the net has no towers and {names}; name the blob that is its feature with --feature")
        return Comparison((found[0],))
    if any(len(blobs) != 1 for blobs in towers):
        raise GraphError(
            f"each tower hands on several blobs ({_names(towers[0])} the first one); name the features with --feature, "
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
            told_by = loss or ancestry.producer[blob.id]
            if scored == "PROBABILITY" and told_by.type in _BEFORE:  # what it is made of is not rounded to 0 or 1
                blob, scored = told_by.bottoms[0], _BEFORE[told_by.type]
            return Comparison(features, "LEARNED", blob, scored, label, told_by=told_by)
    return Comparison(features)


def _as_score(blob: Blob, loss: Node | None, maker: Node) -> ScoreKind | None:
    """What kind of a score for "same" a blob is; None where it is none: not one value, or two, a pair."""
    if loss is not None:
        kind = _OF_LOSS.get(loss.type)
    else:
        kind = "PROBABILITY" if maker.type in ("Softmax", "Sigmoid") else None
    if kind is None or blob.shape is None:
        return kind
    values = 1
    for size in blob.shape[1:]:
        values *= size
    return kind if values in ((2,) if kind == "SOFTMAX" else (1, 2)) else None


def _label_of(loss: Node) -> Blob | None:
    labels = loss.layer.labels if loss.layer is not None else ()
    if loss.type == "EuclideanLoss":
        return loss.bottoms[1]  # its two bottoms are alike to Caffe: the second is what the first is compared with
    return loss.bottoms[labels[0]] if labels else None


def _label_behind(graph: Graph, found: Comparison) -> Blob | None:
    """The label of the one loss that depends on all features."""
    ancestry = Ancestry(graph.nodes)
    makers = {ancestry.producer[feature.id].id for feature in found.features}
    before: dict[str, Set[str]] = {}  # for each blob those of the makers that it depends on
    labels = set()
    for node in graph.nodes:
        passed = frozenset[str]().union(*(before.get(blob.id, ()) for blob in node.bottoms))
        before.update(dict.fromkeys((top.id for top in node.tops), passed | makers & {node.id}))
        if node.layer is not None and node.layer.is_loss and makers <= passed:
            label = _label_of(node)
            labels |= {label} if label is not None and label.id not in ancestry.learned else set()
    return labels.pop() if len(labels) == 1 else None


# Where images come in


def image_blobs(graph: Graph, features: Sequence[Blob], inputs: Sequence[str] = ()) -> tuple[tuple[Blob, ...], ...]:
    """For each feature the blobs that an image is handed in as, to compute it: parts of a record, or whole ones.

    It is one blob, but where one tower goes over the images of both sides joined in a batch: there it is all of them.
    `inputs` names the blobs instead, one for each feature. Raises GraphError where they cannot be told.
    """
    if inputs:
        if len(inputs) != len(features):
            raise GraphError(f"{len(inputs)} inputs are named for {len(features)} features; give one --input for each")
        return tuple((_blob(graph, name),) for name in inputs)
    ancestry = Ancestry(graph.nodes)
    nodes = {node.id: node for node in graph.nodes}
    before = [
        {feature.id, *(blob.id for node_id in ancestry.before(feature) for blob in nodes[node_id].bottoms)}
        for feature in features
    ]
    found = []
    for index, feature in enumerate(features):
        others = set[str]().union(*(ids for place, ids in enumerate(before) if place != index))
        begins = _begins(graph, before[index] - others)
        if not begins or any(blob.id in ancestry.learned for blob in begins):
            begins = _joined(graph, before[index], ancestry)
            if len(begins) != len(features):
                raise _no_input(feature, begins)
            found.append(begins)
            continue
        if len(begins) > 1:
            begins = tuple(blob for blob in begins if blob.shape is not None and len(blob.shape) == 4)
        if len(begins) != 1:
            raise _no_input(feature, _begins(graph, before[index]))
        _check_untouched(begins[0], ancestry)
        found.append(begins)
    return tuple(found)


def _no_input(feature: Blob, begins: Sequence[Blob]) -> GraphError:
    names = _names(begins) or "no data of its own"
    return GraphError(
        f"which input takes the image for {quoted(feature.name)} cannot be told: it is computed from {names}; name it "
        "with --input, once for each feature"
    )


def _begins(graph: Graph, ids: set[str]) -> tuple[Blob, ...]:
    """The blobs among these that are computed from none of the others."""
    return tuple(
        top
        for node in graph.nodes
        if node.type not in _MADE_UP and not any(bottom.id in ids for bottom in node.bottoms)
        for top in node.tops
        if top.id in ids
    )


def _joined(graph: Graph, ids: set[str], ancestry: Ancestry) -> tuple[Blob, ...]:
    """What the first layer that joins images to one batch joins."""
    for node in graph.nodes:
        unlearned = not any(bottom.id in ancestry.learned for bottom in node.bottoms)
        if node.type == "Concat" and unlearned and any(top.id in ids for top in node.tops):
            return node.bottoms
    return ()


def data_node(blob: Blob, ancestry: Ancestry) -> Node:
    """The layer that an image comes from, however it is cut from a record."""
    node = ancestry.producer[blob.id]
    while node.bottoms:
        node = ancestry.producer[node.bottoms[0].id]
    return node


def _check_untouched(blob: Blob, ancestry: Ancestry) -> None:
    node = ancestry.producer[blob.id]
    while node.bottoms:
        if node.type not in ("Slice", "Split"):
            raise GraphError(
                f"layer {quoted(node.name)} works on both images of a record before they part, so one image cannot be "
                "handed in; name the blob that takes it with --input",
                location=node.location,
            )
        node = ancestry.producer[node.bottoms[0].id]
