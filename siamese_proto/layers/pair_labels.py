"""What the label of a pair says: whether its two images are of one class. One rule for the whole package.

Expected are 1 (same) and 0 (different). Real Caffe cuts a label to a whole number and takes everything but 0 for the
same; so do nets here, which warn of other values. Where sources of ours are read, other values need a mapping.
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
_HANDED_ON = ("Split", "Flatten", "Reshape")  # layers that leave labels as they are
_NAMED = 5  # values at most, where there are many


def nonzero(labels: Any) -> Any:
    """Whether each label, of a tensor or an array, is not 0 once it is cut to a whole number.

    (contrastive_loss_layer.cpp)
    """
    return abs(labels) >= 1


@dataclass(frozen=True)
class PairLabels:
    """Which labels mean "same" and which "different": ranges of numbers, [begin, end)."""

    text: str
    same: tuple[tuple[float, float], ...]
    different: tuple[tuple[float, float], ...]

    def are_same(self, labels: NDArray[Any], what: str) -> NDArray[numpy.bool_]:
        """Whether each label means "same", (N,); DataError for a label that means neither. `what` has the labels."""
        same, different = (_within(labels, ranges) for ranges in (self.same, self.different))
        other = labels[~(same | different)]
        if len(other):
            raise DataError(
                f"{what} has labels {listed(other)}, expected those of {quoted(self.text)}; say what they mean, for "
                f"example {mapping_for(labels)} (--pair-labels for a command, pair_labels in a PairData layer)"
            )
        return same


def read_pair_labels(text: str) -> PairLabels:
    """Read `same=1,different=-1`.

    Items are numbers or ranges without their end, `same=0.5:,different=:0.5`, and can be repeated. Raises DataError for
    other texts, and for a number that would mean both.
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
    for kind, found in ranges.items():
        if not found:
            raise DataError(
                f"pair labels {quoted(text)} do not say which labels mean {quoted(kind)}; add {kind}=NUMBER"
            )
    if any(max(one[0], other[0]) < min(one[1], other[1]) for one in ranges["same"] for other in ranges["different"]):
        raise DataError(f"pair labels {quoted(text)} name a label as both 'same' and 'different'; name it once")
    return PairLabels(text, tuple(ranges["same"]), tuple(ranges["different"]))


def _range(text: str) -> tuple[float, float]:
    """`2.5` or `begin:end`, [begin, end), as 32-bit numbers, which labels are."""
    begin, colon, end = text.partition(":")
    if not colon:
        return _single(float(text)), math.nextafter(_single(float(text)), math.inf)
    found = _single(float(begin or "-inf")), _single(float(end or "inf"))
    if not found[0] < found[1]:
        raise ValueError(text)
    return found


def _single(value: float) -> float:
    import numpy

    if math.isnan(value):
        raise ValueError("not a number")
    return float(numpy.float32(value))


def _within(labels: NDArray[Any], ranges: tuple[tuple[float, float], ...]) -> NDArray[numpy.bool_]:
    import numpy

    values = labels.astype(numpy.float64)
    found: NDArray[numpy.bool_] = numpy.zeros(len(labels), numpy.bool_)
    for begin, end in ranges:
        found |= (values >= begin) & (values < end)
    return found


def listed(labels: NDArray[Any]) -> str:
    """The values among labels and how often each is there: `-1 (3 times), 1 (once)`."""
    import numpy

    values, counts = numpy.unique(labels, return_counts=True)
    named = [
        f"{value:g} ({'once' if count == 1 else f'{count} times'})"
        for value, count in zip(values[:_NAMED].tolist(), counts[:_NAMED].tolist(), strict=True)
    ]
    more = f" and {len(values) - _NAMED} other values" if len(values) > _NAMED else ""
    return ", ".join(named) + more


def odd_labels(labels: NDArray[Any], *, one_is_same: bool = True) -> str:
    """Say what labels are and what a net takes them for, where there are others than 0 and 1; else empty."""
    import numpy

    if numpy.isin(labels, (0, 1)).all():
        return ""
    same = nonzero(labels) == one_is_same
    return (
        f"the labels of its pairs are {listed(labels)}, expected 0 and 1; a label whose whole part is not 0 "
        f"counts as {'same' if one_is_same else 'different'}, as in Caffe, so {int(same.sum())} of {len(labels)} pairs "
        f"are taken for same and {int((~same).sum())} for different"
    )


def look_at_labels(labels: Tensor, loss: Layer, run: RunState, *, one_is_same: bool = True) -> None:
    """Log what the labels of a loss's first batch are and are taken for, where there are others than 0 and 1."""
    import torch

    if torch.compiler.is_compiling() or loss in run.looked_at:  # while a pass is compiled there are no labels yet
        return
    run.looked_at.add(loss)
    try:
        values = labels.cpu().numpy()
    except RuntimeError:  # under a transform of torch.func, where nothing can be looked at
        return
    text = odd_labels(values, one_is_same=one_is_same)
    if text:
        _log.warning("layer %s: in its first batch %s", quoted(loss.name), text)


def mapping_for(labels: NDArray[Any]) -> str:
    """A mapping that is probably meant."""
    if labels.min() < 0 < labels.max():
        return "same=1,different=-1"
    return "same=0.5:,different=:0.5" if labels.min() >= 0 and labels.max() <= 1 else "same=NUMBER,different=NUMBER"


def check_sources(graph: Graph, run: RunState, given: Collection[str] = ()) -> None:
    """Raise DataError where a source of our own gives a pair loss labels that need a mapping; warn of those of Caffe's.

    For nets that are to run. Layers whose batches are `given`, by name, read no source; their first labels are looked
    at by the loss.
    """
    for loss, source, text, is_error in odd_sources(graph):
        if source.name in given:
            continue
        if is_error:
            raise DataError(text, location=source.location, layer=source.name)
        _log.warning("%s: layer %s: %s", source.location, quoted(source.name), text)
        if isinstance(loss.layer, Layer):
            run.looked_at.add(loss.layer)  # once is enough


def label_sources(graph: Graph) -> Iterator[tuple[Node, Node, int]]:
    """Losses of pairs whose labels come straight from a data layer: the loss, that layer, and which of its tops."""
    makers = {top.id: (node, index) for node in graph.nodes for index, top in enumerate(node.tops)}
    for loss in graph.nodes:
        if loss.type not in _LOSSES or len(loss.bottoms) != 3:
            continue
        node, index = makers[loss.bottoms[2].id]
        while node.type in _HANDED_ON:
            node, index = makers[node.bottoms[0].id]
        if isinstance(node.layer, DataLayer):
            yield loss, node, index


def odd_sources(graph: Graph) -> Iterator[tuple[Node, Node, str, bool]]:
    """Data layers that give pair losses other labels than 0 and 1, as far as these are known before a run.

    The loss, the layer, what is wrong and how to correct it, and whether it is an error: where the layer is our own and
    takes a mapping. What Caffe runs runs here too, with a warning.
    """
    for loss, source, top in label_sources(graph):
        assert isinstance(source.layer, DataLayer)  # as chosen
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
