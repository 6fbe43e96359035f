"""`.safetensors` and `.pt`: every array once, under the key `layer/index` of its owner.

The metadata entry `layers` (JSON) lists the layers of the net in order with the key and shape of each of their blobs:
it tells which layers share an array. Without it the keys alone say which layer and which blob an array is.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
from collections.abc import Mapping

import numpy as np

from siamese_proto.files import replacing
from siamese_proto.weights.blobs import Array
from siamese_proto.weights.files import DAMAGED, Path, problem
from siamese_proto.weights.stored import StoredLayer, StoredWeights, entry_of, listed_layer, with_keys

_METADATA = "__metadata__"  # safetensors' own name for it; in a .pt file an entry beside the tensors


def read_safetensors(path: Path) -> StoredWeights:
    """The layers of a safetensors file. Raises WeightsError."""
    from safetensors import SafetensorError, safe_open

    file = os.fspath(path)
    try:
        with safe_open(file, framework="numpy") as opened:
            arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  # no mapping, despite its keys
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: a type that numpy does not have
        raise problem(file, f"is no safetensors file that can be read here ({error})") from error
    return _stored(file, arrays, metadata)


def read_pt(path: Path) -> StoredWeights:
    """The layers of a file written by torch.save: a dict of tensors. No code in it is run. Raises WeightsError."""
    import torch

    file = os.fspath(path)
    try:
        with open(file, "rb") as opened:  # by its name alone torch might take it for a file of safetensors
            content = torch.load(opened, map_location="cpu", weights_only=True)
    except (*DAMAGED, pickle.UnpicklingError, struct.error, AssertionError, EOFError) as error:
        # torch's own words on pickles tell people to turn the safety off.
        is_pickle = isinstance(error, pickle.UnpicklingError)
        reason = "it holds objects other than tensors, or is damaged" if is_pickle else str(error).split("\n")[0]
        raise problem(file, f"is no file of tensors that torch can load safely ({reason})") from error
    if not isinstance(content, dict):
        raise problem(file, f"holds a {type(content).__name__}; a dict of tensors is needed")
    metadata = content.pop(_METADATA, {})
    tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    arrays = {key: (t if t.dtype == torch.float64 else t.float()).detach().numpy() for key, t in tensors.items()}
    return _stored(file, arrays, metadata if isinstance(metadata, dict) else {})


def _stored(file: str, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> StoredWeights:
    if "layers" in metadata:
        try:
            layers = [listed_layer(entry, arrays) for entry in json.loads(metadata["layers"])]
        except DAMAGED as error:
            raise problem(file, f"its list of layers does not fit its arrays ({error})") from error
        return StoredWeights(file, tuple(layers), metadata.get("name", ""))
    found: dict[str, dict[int, Array]] = {}
    for key, array in arrays.items():
        layer, _, index = key.rpartition("/")
        if not layer or not index.isdecimal() or len(index) > 3:
            raise problem(file, f"array {key!r} is not named after a layer and the number of its blob, like 'conv1/0'")
        found.setdefault(layer, {})[int(index)] = array
    return StoredWeights(
        file,
        tuple(
            StoredLayer(layer, blobs=tuple(blobs.get(index) for index in range(max(blobs) + 1)))
            for layer, blobs in found.items()
        ),
        owners_only=True,
    )


def write_safetensors(path: Path, stored: StoredWeights) -> None:
    """Write every array once; replaces `path` at once."""
    from safetensors.numpy import save

    arrays, metadata = _unique(stored)
    # Its `save_file` writes another file first, which only its owner may read and which a killed process leaves behind.
    data = save({key: np.asarray(array, order="C") for key, array in arrays.items()}, metadata)
    with replacing(path) as partial, open(partial, "wb") as file:
        file.write(data)


def write_pt(path: Path, stored: StoredWeights) -> None:
    """Write every array once, for `torch.load(path, weights_only=True)`; replaces `path` at once."""
    import torch

    arrays, metadata = _unique(stored)
    tensors: dict[str, object] = {key: torch.from_numpy(np.array(array)) for key, array in arrays.items()}
    with replacing(path) as partial:
        torch.save({**tensors, _METADATA: metadata}, partial)


def _unique(stored: StoredWeights) -> tuple[dict[str, Array], dict[str, str]]:
    """Every array once, by key, and the metadata that says who uses it."""
    arrays: dict[str, Array] = {}
    entries = []
    for layer in with_keys(stored).layers:
        blobs = list(zip(layer.keys, layer.all_blobs(stored.file), strict=True))
        for key, blob in blobs:
            arrays.setdefault(key, blob)
        entries.append(entry_of(layer, layer.keys, [blob for _, blob in blobs]))
    return arrays, {"format": "pt", "name": stored.name, "layers": json.dumps(entries, ensure_ascii=False)}
