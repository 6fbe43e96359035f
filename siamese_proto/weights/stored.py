"""The content of a weights file in any format: layers by name with their arrays."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from siamese_proto.graph.ir import Graph, Node, ParamUse
from siamese_proto.graph.splits import insert_splits
from siamese_proto.proto import schema
from siamese_proto.weights.blobs import Array
from siamese_proto.weights.files import weights_error


@dataclass(frozen=True)
class StoredLayer:
    """A layer of a weights file. Its arrays may be views of the mapped file: copy them, do not change them.

    `blobs` has None if the file does not repeat an array that another layer owns. `keys` identifies the array of each
    blob, if it is known: equal keys are one array.
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
        """Return the blobs. Raises WeightsError, about `file`, if one is missing."""
        blobs = []
        for index, blob in enumerate(self.blobs):
            if blob is None:
                text = f"blob {index} is stored with another layer that shares it, and the file does not say which"
                raise weights_error(file, text, layer=self.name)
            blobs.append(blob)
        return blobs


@dataclass(frozen=True)
class StoredWeights:
    """The layers of a weights file, in its order.

    `owners_only`: shared arrays are stored with their owner only, as in Caffe's HDF5 files.
    """

    file: str
    layers: tuple[StoredLayer, ...]
    name: str = ""
    owners_only: bool = False


def unique_names(names: Iterable[str]) -> list[str]:
    """Return the names with `#2`, `#3`, ... after repeated ones, because real files repeat layer names."""
    counts: Counter[str] = Counter()
    unique: dict[str, None] = {}
    for name in names:
        counts[name] += 1
        label = name if counts[name] == 1 else f"{name}#{counts[name]}"
        while label in unique:
            label += "#"
        unique[label] = None
    return list(unique)


def stored_from_graph(
    file: str, graph: Graph, values: Mapping[str, Array], diffs: Mapping[str, Array] | None = None
) -> StoredWeights:
    """Return the layers as Caffe would save them: with Split layers, and shared arrays with every layer that uses them.

    Args:
        file: The file to write, for errors.
        graph: The net.
        values: Arrays by `Param.id`.
        diffs: Gradients by `Param.id`.

    Raises:
        WeightsError: An array is missing or of another size than the net's.
    """
    labels = dict(zip((node.id for node in graph.nodes), unique_names(node.name for node in graph.nodes), strict=True))
    layers = []
    for index, message in insert_splits([_message(node) for node in graph.nodes]):
        message.phase = schema.TRAIN if graph.phase == "TRAIN" else schema.TEST
        node = graph.nodes[index] if index is not None else None
        uses = node.params if node is not None else ()
        if node is not None and node.is_loss and not message.loss_weight:
            message.loss_weight.append(1.0)  # as LossLayer::LayerSetUp does after splits are inserted
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


def _message(node: Node) -> schema.LayerParameter:
    """A copy without blobs, in which the statistics of BatchNorm have rate 0 (BatchNormLayer::LayerSetUp)."""
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
        raise weights_error(file, f"parameter {param.id} has no values")
    value = np.asarray(values[param.id])
    shape = use.shape if use.shape is not None else value.shape
    if value.size != math.prod(shape):
        raise weights_error(file, f"parameter {param.id} has shape {shape}, but its values have {value.shape}")
    return value.reshape(shape)


def with_keys(stored: StoredWeights) -> StoredWeights:
    """Return the same with keys: one key for blobs of one shared name that are equal bit for bit."""
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


# Files that store arrays by name also store a list of the layers, with the name and shape of each blob's array.


def list_entry(layer: StoredLayer, names: Sequence[str], blobs: Sequence[Array]) -> dict[str, object]:
    """Return the entry of a layer in the list of layers, given the names of its blobs' arrays."""
    shapes = [(name, blob.shape) for name, blob in zip(names, blobs, strict=True)]
    return {"name": layer.name, "type": layer.type, "bottoms": layer.bottoms, "tops": layer.tops, "blobs": shapes}


def listed_layer(entry: Mapping[str, Any], arrays: Mapping[str, Array]) -> StoredLayer:
    """Return the layer of an entry. Raises ValueError, KeyError or TypeError if the entry is invalid."""
    blobs = [(str(key), arrays[key].reshape([int(size) for size in shape])) for key, shape in entry["blobs"]]
    bottoms, tops = (tuple(map(str, entry[field])) for field in ("bottoms", "tops"))
    keys, arrays_of_blobs = tuple(key for key, _ in blobs), tuple(blob for _, blob in blobs)
    return StoredLayer(str(entry["name"]), str(entry["type"]), bottoms, tops, arrays_of_blobs, keys)


def named_layer(file: str, name: str, arrays: Mapping[str, Array]) -> StoredLayer:
    """Return the layer of a file without a list of layers, from its arrays by index.

    Raises:
        WeightsError: A name of an array is not an index.
    """
    for key in arrays:
        if not key.isdecimal() or len(key) > 3:
            raise weights_error(file, f"array {key!r} is not the index of a blob, such as 0", layer=name)
    blobs = {int(key): array for key, array in arrays.items()}
    return StoredLayer(name, blobs=tuple(blobs.get(index) for index in range(max(blobs, default=-1) + 1)))
