"""What a weights file holds, in whatever format: layers by name with their arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from siamese_proto.graph.ir import Graph, Node, ParamUse
from siamese_proto.graph.splits import insert_splits
from siamese_proto.proto import schema
from siamese_proto.weights.blobs import Array
from siamese_proto.weights.files import problem


@dataclass(frozen=True)
class StoredLayer:
    """A layer of a weights file. Its arrays may be views of the mapped file: copy them, do not change them.

    `blobs` has None where the file does not repeat an array that another layer owns. `keys` names the array behind each
    blob, where that is known: equal keys are one array.
    """

    name: str
    type: str = ""
    bottoms: tuple[str, ...] = ()
    tops: tuple[str, ...] = ()
    blobs: tuple[Array | None, ...] = ()
    keys: tuple[str, ...] = ()
    diffs: tuple[Array | None, ...] = ()
    message: schema.LayerParameter | None = field(default=None, repr=False)  # its settings, without blobs

    def all_blobs(self, file: str) -> list[Array]:
        """The blobs. Raises WeightsError, about `file`, where some are not there."""
        for index, blob in enumerate(self.blobs):
            if blob is None:
                raise problem(
                    file, f"blob {index} is kept with a layer that shares it, and not said which", layer=self.name
                )
        return [blob for blob in self.blobs if blob is not None]


@dataclass(frozen=True)
class StoredWeights:
    """The layers of a weights file, in its order.

    `owners_only`: arrays that layers share stand with their owner alone, as in Caffe's HDF5 files.
    """

    file: str
    layers: tuple[StoredLayer, ...]
    name: str = ""
    owners_only: bool = False


def unique_names(names: Iterable[str]) -> list[str]:
    """The names with `#2`, `#3`, ... behind those that stood before: real files repeat layer names."""
    seen: Counter[str] = Counter()
    taken: set[str] = set()
    unique = []
    for name in names:
        seen[name] += 1
        label = name if seen[name] == 1 else f"{name}#{seen[name]}"
        while label in taken:
            label += "#"
        taken.add(label)
        unique.append(label)
    return unique


def stored_from_graph(
    file: str,
    graph: Graph,
    values: Mapping[str, Array],
    diffs: Mapping[str, Array] | None = None,
) -> StoredWeights:
    """The layers as Caffe would save them: with its Split layers, and shared arrays under every layer that uses them.

    `values` and `diffs` are by `Param.id`. Raises WeightsError where an array is missing or of another size than the
    net's.
    """
    written = [_with_statistics(node) for node in graph.nodes]
    labels = dict(zip((node.id for node in graph.nodes), unique_names(node.name for node in graph.nodes), strict=True))
    layers = []
    for index, message in insert_splits(written):
        message.phase = schema.TRAIN if graph.phase == "TRAIN" else schema.TEST
        node = graph.nodes[index] if index is not None else None
        uses = node.params if node is not None else ()
        if node is not None and node.layer is not None and node.layer.is_loss and not message.loss_weight:
            message.loss_weight.append(1.0)  # LossLayer::LayerSetUp does, when the splits are there already
        layers.append(
            StoredLayer(
                name=message.name,
                type=message.type,
                bottoms=tuple(message.bottom),
                tops=tuple(message.top),
                blobs=tuple(_array(use, values, file) for use in uses),
                keys=tuple(f"{labels[use.param.owner]}/{use.param.index}" for use in uses),
                diffs=tuple(_array(use, diffs, file) for use in uses) if diffs is not None else (),
                message=message,
            )
        )
    return StoredWeights(file, tuple(layers), graph.name)


def _with_statistics(node: Node) -> schema.LayerParameter:
    """A copy without blobs; BatchNorm says there that its statistics do not learn (BatchNormLayer::LayerSetUp)."""
    copy = schema.LayerParameter()
    copy.CopyFrom(node.message)
    copy.ClearField("blobs")
    for use in node.params[len(copy.param) :]:
        if use.param.statistic:
            copy.param.add(lr_mult=0.0)
    return copy


def _array(use: ParamUse, values: Mapping[str, Array], file: str) -> Array:
    param = use.param
    if param.id not in values:
        raise problem(file, f"no values are given for parameter {param.id}")
    value = np.asarray(values[param.id])
    shape = use.shape if use.shape is not None else value.shape
    if value.size != int(np.prod(shape)):
        raise problem(file, f"parameter {param.id} has shape {shape}, but its values have {value.shape}")
    return value.reshape(shape)


def with_keys(stored: StoredWeights) -> StoredWeights:
    """The same with keys: one key for blobs of one shared name that are equal bit for bit."""
    owners: dict[str, tuple[str, Array]] = {}
    layers = []
    for label, layer in zip(unique_names(layer.name for layer in stored.layers), stored.layers, strict=True):
        keys = []
        specs = layer.message.param if layer.message is not None else []
        for index, blob in enumerate(layer.blobs):
            key = f"{label}/{index}"
            if blob is not None and index < len(specs) and specs[index].name:
                owner, array = owners.setdefault(specs[index].name, (key, blob))
                key = owner if same_bits(array, blob) else key
            keys.append(key)
        layers.append(layer if layer.keys else replace(layer, keys=tuple(keys)))
    return replace(stored, layers=tuple(layers))


def same_bits(one: Array, other: Array) -> bool:
    """Whether two arrays have the same shape, type and bits: NaN equals NaN, 0 differs from -0."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.__array_interface__["data"] == other.__array_interface__["data"]:
        return True
    word = np.dtype(f"u{one.dtype.itemsize}")
    return bool(np.array_equal(one.reshape(-1).view(word), other.reshape(-1).view(word)))


def entry_of(layer: StoredLayer, places: Sequence[str], blobs: Sequence[Array]) -> dict[str, object]:
    """A layer as files that keep arrays by name list it: `places` are the names of its blobs' arrays."""
    return {
        "name": layer.name,
        "type": layer.type,
        "bottoms": layer.bottoms,
        "tops": layer.tops,
        "blobs": [(place, blob.shape) for place, blob in zip(places, blobs, strict=True)],
    }


def listed_layer(entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> StoredLayer:
    """The layer of an entry that `entry_of` made. Raises ValueError, KeyError or TypeError where it is none."""
    blobs = [(str(key), arrays[key].reshape([int(size) for size in shape])) for key, shape in entry["blobs"]]
    return StoredLayer(
        name=str(entry["name"]),
        type=str(entry["type"]),
        bottoms=tuple(map(str, entry["bottoms"])),
        tops=tuple(map(str, entry["tops"])),
        blobs=tuple(blob for _, blob in blobs),
        keys=tuple(key for key, _ in blobs),
    )
