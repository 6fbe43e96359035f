"""Labels of pairs: whether the two images show the same class.

The expected labels are 1 (same) and 0 (different). Caffe cuts off the fraction of a label and takes everything but 0
for "same"; nets here do the same and warn of other values. PairData layers need a mapping for other values.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from siamese_proto.errors import DataError, NetError, quoted
from siamese_proto.graph.ir import Graph, Node
from siamese_proto.layers.base import DataLayer, Layer, RunState

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray
    from torch import Tensor

_log = logging.getLogger(__name__)
_LOSSES = ("ContrastiveLoss",)
_PASS_THROUGH = ("Split", "Flatten", "Reshape")  # layers that do not change labels
_MOST_LISTED = 5  # values in a message


def nonzero(labels: Any) -> Any:
    """Whether each label of a tensor or an array is not 0 with its fraction cut off (contrastive_loss_layer.cpp)."""
    return abs(labels) >= 1


@dataclass(frozen=True)
class PairLabels:
    """The labels that mean "same" and "different", as ranges [begin, end)."""

    text: str
    same: tuple[tuple[float, float], ...]
    different: tuple[tuple[float, float], ...]

    def are_same(self, labels: NDArray[Any], what: str) -> NDArray[numpy.bool_]:
        """Return whether each label means "same", (N,). `what` names the source of the labels in errors.

        Raises DataError for a label that means neither.
        """
        same, different = (_within(labels, ranges) for ranges in (self.same, self.different))
        other = labels[~(same | different)]
        if len(other):
            raise DataError(
                f"{what} has labels {listed(other)}, expected those of {quoted(self.text)}; specify their meaning, for "
                f"example {mapping_for(labels)} (--pair-labels for a command, pair_labels in a PairData layer)"
            )
        return same


def read_pair_labels(text: str) -> PairLabels:
    """Read `same=1,different=-1`.

    Items are numbers, or ranges that exclude their end as in `same=0.5:,different=:0.5`, and can be repeated. Raises
    DataError for other text, and for a number that means both.
    """
    ranges: dict[str, list[tuple[float, float]]] = {"same": [], "different": []}
    for item in text.split(","):
        name, _, value = (part.strip() for part in item.partition("="))
        try:
            ranges[name].append(_range(value))
        except (KeyError, ValueError):
            raise DataError(
                f"pair labels {quoted(text)}: {quoted(item)} is not 'same=NUMBER' or 'different=NUMBER'; write, for "
                "example, 'same=1,different=-1' or 'same=0.5:,different=:0.5'"
            ) from None
    for kind, intervals in ranges.items():
        if not intervals:
            raise DataError(
                f"pair labels {quoted(text)} do not specify which labels mean {quoted(kind)}; add {kind}=NUMBER"
            )
    if any(max(one[0], other[0]) < min(one[1], other[1]) for one in ranges["same"] for other in ranges["different"]):
        raise DataError(f"pair labels {quoted(text)} list a label as both 'same' and 'different'; list it once")
    return PairLabels(text, tuple(ranges["same"]), tuple(ranges["different"]))


def _range(text: str) -> tuple[float, float]:
    """Read `2.5` or `begin:end`, [begin, end), as 32-bit numbers like labels."""
    begin, colon, end = text.partition(":")
    if not colon:
        return _single(float(text)), math.nextafter(_single(float(text)), math.inf)
    interval = _single(float(begin or "-inf")), _single(float(end or "inf"))
    if not interval[0] < interval[1]:
        raise ValueError(text)
    return interval


def _single(value: float) -> float:
    import numpy

    if math.isnan(value):
        raise ValueError("not a number")
    return float(numpy.float32(value))


def _within(labels: NDArray[Any], ranges: tuple[tuple[float, float], ...]) -> NDArray[numpy.bool_]:
    import numpy

    values = labels.astype(numpy.float64)
    mask: NDArray[numpy.bool_] = numpy.zeros(len(labels), numpy.bool_)
    for begin, end in ranges:
        mask |= (values >= begin) & (values < end)
    return mask


def listed(labels: NDArray[Any]) -> str:
    """List the distinct labels and how often each occurs: `-1 (3 times), 1 (once)`."""
    import numpy

    values, counts = numpy.unique(labels, return_counts=True)
    named = [
        f"{value:g} ({'once' if count == 1 else f'{count} times'})"
        for value, count in zip(values[:_MOST_LISTED].tolist(), counts[:_MOST_LISTED].tolist(), strict=True)
    ]
    more = f" and {len(values) - _MOST_LISTED} other values" if len(values) > _MOST_LISTED else ""
    return ", ".join(named) + more


def odd_labels(labels: NDArray[Any], *, one_is_same: bool = True) -> str:
    """Describe labels other than 0 and 1 and how a net interprets them; empty if there are none."""
    import numpy

    if numpy.isin(labels, (0, 1)).all():
        return ""
    same = nonzero(labels) == one_is_same
    return (
        f"the labels of its pairs are {listed(labels)}, expected 0 and 1; a label whose whole part is not 0 "
        f"counts as {'same' if one_is_same else 'different'}, as in Caffe, so {int(same.sum())} of {len(labels)} pairs "
        f"count as same and {int((~same).sum())} as different"
    )


def look_at_labels(labels: Tensor, loss: Layer, run: RunState, *, one_is_same: bool = True) -> None:
    """Warn of labels other than 0 and 1 in the first batch of a loss."""
    import torch

    if torch.compiler.is_compiling() or loss in run.looked_at:  # there are no labels yet during compilation
        return
    run.looked_at.add(loss)
    try:
        values = labels.cpu().numpy()
    except RuntimeError:  # a transform of torch.func hides the values
        return
    text = odd_labels(values, one_is_same=one_is_same)
    if text:
        _log.warning("layer %s: in its first batch %s", quoted(loss.name), text)


def mapping_for(labels: NDArray[Any]) -> str:
    """Suggest a mapping for labels."""
    if labels.min() < 0 < labels.max():
        return "same=1,different=-1"
    return "same=0.5:,different=:0.5" if labels.min() >= 0 and labels.max() <= 1 else "same=NUMBER,different=NUMBER"


def check_sources(graph: Graph, run: RunState, given: Collection[str] = ()) -> None:
    """Check the labels that data layers provide to losses of pairs, before a net runs.

    Labels of Caffe's data layers other than 0 and 1 are logged as a warning. Layers in `given` (names) read no source;
    the loss checks their first labels.

    Raises:
        DataError: A PairData layer has labels that need a mapping.
    """
    for loss, source, text, is_error in odd_sources(graph):
        if source.name in given:
            continue
        if is_error:
            raise DataError(text, location=source.location, layer=source.name)
        _log.warning("%s: layer %s: %s", source.location, quoted(source.name), text)
        if isinstance(loss.layer, Layer):
            run.looked_at.add(loss.layer)  # do not warn again


def label_sources(graph: Graph) -> Iterator[tuple[Node, Node, int]]:
    """Yield the losses of pairs with labels from a data layer: the loss, the layer, and the index of its top."""
    makers = {top.id: (node, index) for node in graph.nodes for index, top in enumerate(node.tops)}
    for loss in graph.nodes:
        if loss.type not in _LOSSES or len(loss.bottoms) != 3:
            continue
        node, index = makers[loss.bottoms[2].id]
        while node.type in _PASS_THROUGH:
            node, index = makers[node.bottoms[0].id]
        if isinstance(node.layer, DataLayer):
            yield loss, node, index


def odd_sources(graph: Graph) -> Iterator[tuple[Node, Node, str, bool]]:
    """Yield the data layers whose labels for losses of pairs are not 0 and 1, if known before a run.

    Yields the loss, the layer, a message with a fix, and whether it is an error: for PairData, which accepts a mapping.
    For Caffe's own layers it is a warning, because Caffe runs such nets.
    """
    for loss, source, top in label_sources(graph):
        assert isinstance(source.layer, DataLayer)  # by label_sources
        try:
            labels = source.layer.label_values(top)
        except NetError as problem:
            raise problem.at(location=source.location, layer=source.name) from None
        one_is_same = loss.message.contrastive_loss_param.label == 0
        text = odd_labels(labels, one_is_same=one_is_same) if labels is not None and len(labels) else ""
        if not text or labels is None:
            continue
        if source.type == "PairData":
            yield loss, source, f'{text}; map them: pair_labels: "{mapping_for(labels)}"', True
        else:
            yield loss, source, f"{text}; write 0 and 1, or map them with a Power layer before the loss", False
