"""The Split layers that Caffe inserts where a blob is read more than once (insert_splits.cpp).

A graph needs none: autograd adds gradients up. They appear in files and logs that Caffe's users read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from siamese_proto.proto import schema

Source = tuple[int, int]  # the layer that makes a blob, and which of its tops the blob is


def split_name(blob: str, layer: str, index: int) -> str:
    """The name of the Split layer behind top `index` of `layer`; its tops are called `NAME_0`, `NAME_1`, ..."""
    return f"{blob}_{layer}_{index}_split"


def insert_splits(layers: Sequence[schema.LayerParameter]) -> list[tuple[int | None, schema.LayerParameter]]:
    """The layers of a net with Caffe's Split layers between them, each with its index in `layers` (None: inserted).

    A blob read more than once is split right after its producer; each version of a blob changed in place counts by
    itself. A loss weight that was written and is not 0 counts as a read: it moves to the split's first top. A bottom
    that no layer makes is left alone. The messages given are not changed.
    """
    sources = _sources(layers)
    losses = _written_losses(layers)
    reads = Counter(source for row in sources for source in row)
    reads.update(losses.keys())
    given_out = Counter(losses.keys())  # the first top of a split is the loss's own
    split: list[tuple[int | None, schema.LayerParameter]] = []
    for index, layer in enumerate(layers):
        copy = schema.LayerParameter()
        copy.CopyFrom(layer)
        for position, source in enumerate(sources[index]):
            if source is not None and reads[source] > 1:
                name = split_name(layer.bottom[position], layers[source[0]].name, source[1])
                copy.bottom[position] = f"{name}_{given_out[source]}"
                given_out[source] += 1
        split.append((index, copy))
        for top, blob in enumerate(layer.top):
            if reads[index, top] > 1:
                loss = losses.get((index, top), 0.0)
                split.append((None, _split_layer(blob, layer.name, top, reads[index, top], loss)))
                if loss:
                    copy.ClearField("loss_weight")
    return split


def _sources(layers: Sequence[schema.LayerParameter]) -> list[list[Source | None]]:
    """Where each bottom of each layer comes from."""
    latest: dict[str, Source] = {}
    sources: list[list[Source | None]] = []
    for index, layer in enumerate(layers):
        sources.append([latest.get(blob) for blob in layer.bottom])
        latest.update({blob: (index, top) for top, blob in enumerate(layer.top)})
    return sources


def _written_losses(layers: Sequence[schema.LayerParameter]) -> dict[Source, float]:
    """The loss weights that the text gives; the one that a loss layer has by default is no read in Caffe."""
    return {
        (index, top): weight
        for index, layer in enumerate(layers)
        for top, (_, weight) in enumerate(zip(layer.top, layer.loss_weight, strict=False))  # counts may differ
        if weight
    }


def _split_layer(blob: str, producer: str, top: int, count: int, loss: float) -> schema.LayerParameter:
    name = split_name(blob, producer, top)
    tops = [f"{name}_{index}" for index in range(count)]
    weights = [loss] + [0.0] * (count - 1) if loss else []
    return schema.LayerParameter(name=name, type="Split", bottom=[blob], top=tops, loss_weight=weights)
