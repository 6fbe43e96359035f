"""The Split layers that Caffe inserts where a blob is read more than once (insert_splits.cpp).

A graph needs none, as autograd adds gradients. They appear in the files and logs of Caffe.
"""

from collections import Counter
from collections.abc import Sequence

from siamese_proto.proto import schema

Source = tuple[int, int]  # the indices of the layer that computes a blob and of its top


def split_name(blob: str, layer: str, index: int) -> str:
    """Return the name of the Split layer after top `index` of `layer`; its tops are called `NAME_0`, `NAME_1`, ..."""
    return f"{blob}_{layer}_{index}_split"


def insert_splits(layers: Sequence[schema.LayerParameter]) -> list[tuple[int | None, schema.LayerParameter]]:
    """Return the layers of a net and Caffe's Split layers, each with its index in `layers` (None: inserted).

    A blob read more than once is split right after its producer; each version of a blob changed in place is
    counted separately. A loss weight in the file that is not 0 counts as a read: it moves to the split's first top. A
    bottom that no layer computes is left unchanged. The messages passed are not modified.
    """
    sources = _sources(layers)
    losses = _written_losses(layers)
    reads = Counter(source for row in sources for source in row)
    reads.update(losses.keys())
    used = Counter(losses.keys())  # the first top of a split is for the loss
    split: list[tuple[int | None, schema.LayerParameter]] = []
    for index, layer in enumerate(layers):
        copy = schema.LayerParameter()
        copy.CopyFrom(layer)
        for position, source in enumerate(sources[index]):
            if source is not None and reads[source] > 1:
                name = split_name(layer.bottom[position], layers[source[0]].name, source[1])
                copy.bottom[position] = f"{name}_{used[source]}"
                used[source] += 1
        split.append((index, copy))
        for top, blob in enumerate(layer.top):
            if reads[index, top] > 1:
                loss = losses.get((index, top), 0.0)
                split.append((None, _split_layer(blob, layer.name, top, reads[index, top], loss)))
                if loss:
                    copy.ClearField("loss_weight")
    return split


def _sources(layers: Sequence[schema.LayerParameter]) -> list[list[Source | None]]:
    """Return the source of each bottom of each layer."""
    latest: dict[str, Source] = {}
    sources: list[list[Source | None]] = []
    for index, layer in enumerate(layers):
        sources.append([latest.get(blob) for blob in layer.bottom])
        latest.update({blob: (index, top) for top, blob in enumerate(layer.top)})
    return sources


def _written_losses(layers: Sequence[schema.LayerParameter]) -> dict[Source, float]:
    """Return the loss weights in the text; Caffe does not count the default one of a loss layer as a read."""
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
