"""`.caffemodel.h5`: a group a layer under /data, a dataset a blob, shared arrays with their owner alone.

As Net::ToHDF5 and Net::CopyTrainedLayersFromHDF5 in net.cpp.

Caffe cannot save a layer whose name has a "/": it would be a path. Here such a name, one that HDF5 has no room for, and
one that an earlier layer has too get a group of another name, whose attribute `layer_name` holds the layer's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from siamese_proto.files import replacing
from siamese_proto.weights.blobs import Array
from siamese_proto.weights.files import DAMAGED, Path, problem
from siamese_proto.weights.hdf5_datasets import NotInFileError, find, read
from siamese_proto.weights.stored import StoredLayer, StoredWeights, entry_of, listed_layer, unique_names, with_keys

if TYPE_CHECKING:
    import h5py

_NAME = "layer_name"
_LAYERS = "siamese_proto_layers"  # a dataset of our own: what Caffe's layout does not say of the layers, as JSON


def read_hdf5(path: Path) -> StoredWeights:
    """The layers of an HDF5 file in alphabetical order, as Caffe meets them. Raises WeightsError."""
    import h5py

    file = os.fspath(path)
    try:
        with h5py.File(file, "r") as root:
            data = find_in(file, root, "data")
            if not isinstance(data, h5py.Group):
                raise problem(file, "is an HDF5 file without the group /data that holds the layers of a net")
            listed = find_in(file, root, _LAYERS)
            if isinstance(listed, h5py.Dataset):
                return _read_listed(file, data, listed)
            layers: list[StoredLayer] = []
            _read_groups(file, data, "", layers, {data})
            return StoredWeights(file, tuple(layers), owners_only=True)
    except DAMAGED as error:
        raise problem(file, f"is no HDF5 file, or is damaged or cut off ({error})") from error


def _read_listed(file: str, data: h5py.Group, list_of_layers: h5py.Dataset) -> StoredWeights:
    """The layers as the list of our own says: in their order, with shared arrays under each of their layers."""
    import h5py

    listed = json.loads(read_bytes(file, list_of_layers, "the list of its layers"))
    entries = listed["layers"]
    arrays: dict[str, Array] = {}
    for key in {str(key) for entry in entries for key, _ in entry["blobs"]}:
        dataset = find_in(file, data, key)
        if not isinstance(dataset, h5py.Dataset):
            raise problem(file, f"its list of layers names {key!r}, which is not there")
        arrays[key] = read_dataset(file, dataset, f"blob {key}")
    layers = tuple(listed_layer(entry, arrays) for entry in entries)
    return StoredWeights(file, layers, str(listed["name"]))


def _read_groups(file: str, parent: h5py.Group, above: str, layers: list[StoredLayer], seen: set[h5py.Group]) -> None:
    """Add a layer for each group; groups in groups are layers whose names have a "/" (forks of Caffe write them)."""
    import h5py

    for key in parent:
        group = find_in(file, parent, key)
        if not isinstance(group, h5py.Group) or group in seen:
            continue
        seen.add(group)
        name = _own_name(group) or above + key
        layers.append(StoredLayer(name, blobs=_read_blobs(file, group, name)))
        _read_groups(file, group, f"{above}{key}/", layers, seen)


def _own_name(group: h5py.Group) -> str:
    """The name that a layer's group could not bear; empty where it does."""
    if _NAME not in group.attrs or group.attrs.get_id(_NAME).dtype != np.uint8:
        return ""  # other kinds of text lie where HDF5 may never come back from, in a damaged file
    return np.asarray(group.attrs[_NAME]).tobytes().decode("utf-8", "surrogatepass")


def _read_blobs(file: str, group: h5py.Group, layer: str) -> tuple[Array | None, ...]:
    import h5py

    arrays: dict[int, Array] = {}
    for key in group:
        dataset = find_in(file, group, key)
        if isinstance(dataset, h5py.Dataset):
            if not key.isdecimal() or len(key) > 3:
                raise problem(file, f"dataset {key!r} is not the number of a blob", layer=layer)
            arrays[int(key)] = read_dataset(file, dataset, f"blob {key}", layer)
    return tuple(arrays.get(index) for index in range(max(arrays, default=-1) + 1))


def find_in(file: str, group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset | None:
    """What is under a path in a group, None where nothing is. Raises WeightsError for a link that leaves the file."""
    try:
        return find(group, path)
    except NotInFileError as error:
        raise problem(file, f"{path} {error}") from error


def read_dataset(file: str, dataset: h5py.Dataset, what: str, layer: str | None = None) -> Array:
    """The numbers of a dataset, unless it claims more than the file holds."""
    if dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise problem(file, f"{what} holds no numbers", layer=layer)
    values = _checked(file, dataset, what, layer)
    return np.asarray(values, np.float64 if values.dtype == np.float64 else np.float32)


def read_bytes(file: str, dataset: h5py.Dataset, what: str) -> bytes:
    """What a dataset of bytes holds, or a text of a fixed size."""
    if dataset.dtype.kind not in "Su" or dataset.shape is None:
        raise problem(file, f"{what} is no text of a fixed size")
    return _checked(file, dataset, what, None).tobytes()


def _checked(file: str, dataset: h5py.Dataset, what: str, layer: str | None) -> NDArray[Any]:
    try:
        return read(dataset)
    except NotInFileError as error:
        raise problem(file, f"{what} {error}", layer=layer) from error


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file that takes the place of `path` once the block is done.

    It is made in memory: HDF5 itself may take the process down when it meets a full disk.
    """
    import h5py

    with replacing(path) as partial:
        with h5py.File(partial, "w", driver="core", backing_store=False) as root:
            yield root
            root.flush()
            image = root.id.get_file_image()
        with open(partial, "wb") as file:
            file.write(image)


def write_hdf5(path: Path, stored: StoredWeights) -> None:
    """Write one group a layer and every array once, with its owner; replaces `path` at once.

    Where layers have diffs, these lie under /diff as the arrays do under /data, as in Caffe.
    """
    written: dict[str, str] = {}  # the path of every array by its key
    entries = []
    layers = with_keys(stored).layers
    keys = unique_names(_group_key(label) for label in unique_names(layer.name for layer in layers))
    with new_hdf5(path) as root:
        data = root.create_group("data")
        for key, layer in zip(keys, layers, strict=True):
            group = data.create_group(key)
            if key != layer.name:
                group.attrs[_NAME] = _as_bytes(layer.name)
            for index, (array_key, blob) in enumerate(zip(layer.keys, layer.blobs, strict=True)):
                if blob is not None and array_key not in written:
                    written[array_key] = f"{key}/{index}"
                    group.create_dataset(str(index), data=blob)
                    if layer.diffs:
                        root.require_group(f"diff/{key}").create_dataset(str(index), data=layer.diffs[index])
            if all(array_key in written for array_key in layer.keys):
                blobs = [blob for blob in layer.blobs if blob is not None]
                entries.append(entry_of(layer, [written[array_key] for array_key in layer.keys], blobs))
        if len(entries) == len(layers):
            text = json.dumps({"name": stored.name, "layers": entries}, ensure_ascii=False)
            root.create_dataset(_LAYERS, data=_as_bytes(text))


def _as_bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)


def _group_key(label: str) -> str:
    """A name that HDF5 takes for a name: no path, not empty, no dots alone."""
    key = label
    if "/" in label or "\0" in label:
        key = label.replace("%", "%25").replace("/", "%2F").replace("\0", "%00")
    return key if key.strip(".") else f"%{key}"
