"""`.safetensors` and `.pt`: every array once, under the key `layer/index` of its owner.

The metadata entry `layers` (JSON) lists the layers of the net in order, with the key and shape of each of their blobs,
so that shared arrays are known. Without it, the keys alone give the layer and the index of an array.
"""

import json
import os
import pickle
import struct
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from siamese_proto.weights.blobs import Array
from siamese_proto.weights.files import DAMAGED, Path, new_file, weights_error
from siamese_proto.weights.stored import StoredWeights, list_entry, listed_layer, named_layer, with_keys

_METADATA = "__metadata__"  # safetensors' own name for it; in a .pt file, an entry next to the tensors


def read_safetensors(path: Path) -> StoredWeights:
    """Read the layers of a safetensors file. Raises WeightsError."""
    from safetensors import SafetensorError, safe_open

    file = os.fspath(path)
    try:
        with safe_open(file, framework="numpy") as opened:
            arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  # it is not a mapping
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: a type that numpy does not have
        raise weights_error(file, f"is not a readable safetensors file ({error})") from error
    return _stored(file, arrays, metadata)


def read_pt(path: Path) -> StoredWeights:
    """Read the layers of a file written by torch.save: a dict of tensors. Runs no code of it. Raises WeightsError."""
    import torch

    file = os.fspath(path)
    try:
        with open(file, "rb") as opened:  # given a name, torch might read it as safetensors
            content = torch.load(opened, map_location="cpu", weights_only=True)
    except (*DAMAGED, pickle.UnpicklingError, struct.error, AssertionError, EOFError) as error:
        # torch's own message about pickles advises to turn the safety off.
        is_pickle = isinstance(error, pickle.UnpicklingError)
        reason = "it holds objects other than tensors, or is damaged" if is_pickle else str(error).split("\n")[0]
        raise weights_error(file, f"is not a file of tensors that torch can load safely ({reason})") from error
    if not isinstance(content, dict):
        raise weights_error(file, f"holds a {type(content).__name__}; expected a dict of tensors")
    metadata = content.pop(_METADATA, {})
    tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    arrays = {key: (t if t.dtype == torch.float64 else t.float()).detach().numpy() for key, t in tensors.items()}
    return _stored(file, arrays, metadata if isinstance(metadata, dict) else {})


def _stored(file: str, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> StoredWeights:
    if "layers" in metadata:
        try:
            layers = tuple(listed_layer(entry, arrays) for entry in json.loads(metadata["layers"]))
        except DAMAGED as error:
            raise weights_error(file, f"its list of layers does not match its arrays ({error})") from error
        return StoredWeights(file, layers, metadata.get("name", ""))
    by_layer: dict[str, dict[str, Array]] = defaultdict(dict)
    for key, array in arrays.items():
        layer, _, index = key.rpartition("/")
        if not layer:
            raise weights_error(file, f"array {key!r} is not named after a layer and the index of a blob: 'conv1/0'")
        by_layer[layer][index] = array
    return StoredWeights(file, tuple(named_layer(file, *item) for item in by_layer.items()), owners_only=True)


def write_safetensors(path: Path, stored: StoredWeights) -> None:
    """Write every array once; replaces `path` atomically."""
    from safetensors.numpy import save

    arrays, metadata = _unique(stored)
    # Its `save_file` writes a temporary file that only its owner may read and that a killed process leaves behind.
    data = save({key: np.asarray(array, order="C") for key, array in arrays.items()}, metadata)
    with new_file(path) as file:
        file.write(data)


def write_pt(path: Path, stored: StoredWeights) -> None:
    """Write every array once, for `torch.load(path, weights_only=True)`; replaces `path` atomically."""
    import torch

    arrays, metadata = _unique(stored)
    tensors: dict[str, object] = {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}
    with new_file(path) as file:
        torch.save({**tensors, _METADATA: metadata}, file)


def _unique(stored: StoredWeights) -> tuple[dict[str, Array], dict[str, str]]:
    """Every array once, by key, and the metadata with the list of layers."""
    arrays: dict[str, Array] = {}
    entries = []
    for layer in with_keys(stored).layers:
        blobs = layer.all_blobs(stored.file)
        for key, blob in zip(layer.keys, blobs, strict=True):
            arrays.setdefault(key, blob)
        entries.append(list_entry(layer, layer.keys, blobs))
    return arrays, {"format": "pt", "name": stored.name, "layers": json.dumps(entries, ensure_ascii=False)}
