"""`.caffemodel.h5`: one group per layer under /data, one dataset per blob; shared arrays only with their owner.

As Net::ToHDF5 and Net::CopyTrainedLayersFromHDF5 in net.cpp.

Caffe cannot save a layer whose name has a "/": it would be a path. Here such a name, one that HDF5 does not allow, and
one that an earlier layer has too, get a group of another name, whose attribute `layer_name` holds the layer's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from siamese_proto.weights.blobs import Array
from siamese_proto.weights.files import DAMAGED, Path, new_file, weights_error
from siamese_proto.weights.hdf5_datasets import NotInFileError, find, read
from siamese_proto.weights.stored import (
    StoredLayer,
    StoredWeights,
    list_entry,
    listed_layer,
    named_layer,
    unique_names,
    with_keys,
)

if TYPE_CHECKING:
    import h5py

_NAME = "layer_name"
_LAYERS = "siamese_proto_layers"  # our dataset with what Caffe's layout does not say about the layers, as JSON


def read_hdf5(path: Path) -> StoredWeights:
    """Read the layers of an HDF5 file, in alphabetical order as Caffe does. Raises WeightsError."""
    import h5py

    file = os.fspath(path)
    try:
        with h5py.File(file, "r") as root:
            data = find_in(file, root, "data")
            if not isinstance(data, h5py.Group):
                raise weights_error(file, "is an HDF5 file without the group /data that holds the layers of a net")
            layer_list = find_in(file, root, _LAYERS)
            if isinstance(layer_list, h5py.Dataset):
                return _read_listed(file, data, layer_list)
            layers: list[StoredLayer] = []
            _read_groups(file, data, "", layers, {data})
            return StoredWeights(file, tuple(layers), owners_only=True)
    except DAMAGED as error:
        raise weights_error(file, f"is not an HDF5 file, or is damaged or cut off ({error})") from error


def _read_listed(file: str, data: h5py.Group, layer_list: h5py.Dataset) -> StoredWeights:
    """The layers in the order of our list, with shared arrays under each of their layers."""
    import h5py

    content = json.loads(read_bytes(file, layer_list, "the list of its layers"))
    arrays: dict[str, Array] = {}
    for key in {str(key) for entry in content["layers"] for key, _ in entry["blobs"]}:
        dataset = find_in(file, data, key)
        if not isinstance(dataset, h5py.Dataset):
            raise weights_error(file, f"its list of layers names {key!r}, which does not exist")
        arrays[key] = read_dataset(file, dataset, f"blob {key}")
    layers = tuple(listed_layer(entry, arrays) for entry in content["layers"])
    return StoredWeights(file, layers, str(content["name"]))


def _read_groups(file: str, parent: h5py.Group, path: str, layers: list[StoredLayer], done: set[h5py.Group]) -> None:
    """Add a layer for each group; nested groups are layers whose names have a "/" (forks of Caffe write them)."""
    import h5py

    for key in parent:
        group = find_in(file, parent, key)
        if not isinstance(group, h5py.Group) or group in done:
            continue
        done.add(group)
        name = _own_name(group) or path + key
        arrays: dict[str, Array] = {}
        for index in group:
            dataset = find_in(file, group, index)
            if isinstance(dataset, h5py.Dataset):
                arrays[index] = read_dataset(file, dataset, f"blob {index}", name)
        layers.append(named_layer(file, name, arrays))
        _read_groups(file, group, f"{path}{key}/", layers, done)


def _own_name(group: h5py.Group) -> str:
    """The layer's name, if its group has another one; else empty."""
    if _NAME not in group.attrs or group.attrs.get_id(_NAME).dtype != np.uint8:
        return ""  # reading other types of text from a damaged file may never return
    return np.asarray(group.attrs[_NAME]).tobytes().decode("utf-8", "surrogatepass")


def find_in(file: str, group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset | None:
    """Return the object at a path in a group, or None. Raises WeightsError for a link that leaves the file."""
    with _located(file, path):
        return find(group, path)


def read_dataset(file: str, dataset: h5py.Dataset, what: str, layer: str | None = None) -> Array:
    """Return the numbers of a dataset. Raises WeightsError if the file does not hold them."""
    if dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise weights_error(file, f"{what} holds no numbers", layer=layer)
    with _located(file, what, layer):
        values = read(dataset)
    return np.asarray(values, np.float64 if values.dtype == np.float64 else np.float32)


def read_bytes(file: str, dataset: h5py.Dataset, what: str) -> bytes:
    """Return the content of a dataset of bytes, or of a text of a fixed size."""
    if dataset.dtype.kind not in "Su" or dataset.shape is None:
        raise weights_error(file, f"{what} is not a text of a fixed size")
    with _located(file, what):
        values: NDArray[Any] = read(dataset)
    return values.tobytes()


@contextmanager
def _located(file: str, what: str, layer: str | None = None) -> Iterator[None]:
    try:
        yield
    except NotInFileError as error:
        raise weights_error(file, f"{what} {error}", layer=layer) from error


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file that replaces `path` when the block ends.

    It is built in memory: HDF5 itself may crash the process when the disk is full.
    """
    import h5py

    with new_file(path) as file, h5py.File(file.name, "w", driver="core", backing_store=False) as root:
        yield root
        root.flush()
        file.write(root.id.get_file_image())


def write_hdf5(path: Path, stored: StoredWeights) -> None:
    """Write one group per layer and every array once, with its owner; replaces `path` atomically.

    Diffs of layers are written under /diff as their arrays under /data, as in Caffe.
    """
    written: dict[str, str] = {}  # the path of every array by its key
    entries = []
    layers = with_keys(stored).layers
    names = unique_names(_group_name(label) for label in unique_names(layer.name for layer in layers))
    with new_hdf5(path) as root:
        data = root.create_group("data")
        for name, layer in zip(names, layers, strict=True):
            group = data.create_group(name)
            if name != layer.name:
                group.attrs[_NAME] = _as_bytes(layer.name)
            for index, (key, blob) in enumerate(zip(layer.keys, layer.blobs, strict=True)):
                if blob is not None and key not in written:
                    written[key] = f"{name}/{index}"
                    group.create_dataset(str(index), data=blob)
                    if layer.diffs:
                        root.require_group(f"diff/{name}").create_dataset(str(index), data=layer.diffs[index])
            if all(key in written for key in layer.keys):
                blobs = [blob for blob in layer.blobs if blob is not None]
                entries.append(list_entry(layer, [written[key] for key in layer.keys], blobs))
        if len(entries) == len(layers):
            text = json.dumps({"name": stored.name, "layers": entries}, ensure_ascii=False)
            root.create_dataset(_LAYERS, data=_as_bytes(text))


def _as_bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)


def _group_name(label: str) -> str:
    """A name that HDF5 accepts: not a path, not empty, not only dots."""
    name = label
    if "/" in label or "\0" in label:
        name = label.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return name if name.strip(".") else f"%{name}"
