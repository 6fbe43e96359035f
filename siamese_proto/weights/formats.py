"""Reading and writing weights, whichever of the four formats it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from siamese_proto.errors import WeightsError
from siamese_proto.graph.ir import Graph
from siamese_proto.weights.blobs import Array
from siamese_proto.weights.caffemodel import read_caffemodel, write_caffemodel
from siamese_proto.weights.files import Path, problem
from siamese_proto.weights.hdf5 import read_hdf5, write_hdf5
from siamese_proto.weights.stored import StoredWeights, stored_from_graph
from siamese_proto.weights.torch_files import read_pt, read_safetensors, write_pt, write_safetensors

_HDF5, _ZIP, _PICKLE, _GZIP = b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"\x80\x02", b"\x1f\x8b"
_READERS = {".h5": read_hdf5, ".hdf5": read_hdf5, ".safetensors": read_safetensors, ".pt": read_pt, ".pth": read_pt}
_WRITERS: dict[str, Callable[[Path, StoredWeights], None]] = {
    ".caffemodel": write_caffemodel,
    ".h5": write_hdf5,
    ".hdf5": write_hdf5,
    ".safetensors": write_safetensors,
    ".pt": write_pt,
    ".pth": write_pt,
}


def read_weights(path: Path) -> StoredWeights:
    """The layers of a `.caffemodel`, `.caffemodel.h5`, `.safetensors` or `.pt` file, told apart by their first bytes.

    Raises WeightsError, which says what the file seems to be where it is none of them.
    """
    if not isinstance(path, str | os.PathLike):
        raise WeightsError(f"expected the path of a weights file, got {type(path).__name__}")
    file = os.fsdecode(path)
    try:
        with open(file, "rb") as opened:
            start = opened.read(512)
    except OSError as error:
        raise problem(file, f"cannot be read: {error.strerror or error}") from error
    if not start:
        raise problem(file, "the file is empty")
    hint = seems(start)
    if hint:
        raise problem(file, f"is no weights file; it looks like {hint}")
    if start.startswith(_HDF5):
        return read_hdf5(file)
    if start[4:9] == b"\0\0\0\0{":  # the length of its table stands first, and may look like a pickle
        return read_safetensors(file)
    if start.startswith((_ZIP, _PICKLE)):
        return read_pt(file)
    return _READERS.get(os.path.splitext(file)[1].lower(), read_caffemodel)(file)


def seems(start: bytes) -> str:
    """What a file that holds no weights seems to be, by its first bytes; empty where it may hold some."""
    if start.startswith(_GZIP):
        return "a gzip file: unpack it first"
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 3:  # not just a letter cut in two
            return ""
        text = start[: error.start].decode("utf-8")
    if any(not letter.isprintable() and letter not in "\ufeff\t\n\r\f" for letter in text):
        return ""
    begin = text.lstrip("\ufeff \t\r\n").lower()
    if begin.startswith("version https://git-lfs"):
        return "a Git LFS pointer: fetch the file itself with `git lfs pull`"
    if begin.startswith(("<!doctype", "<html")):
        return "a web page: the download went wrong"
    return "a text file: give the net to --model, the weights here" if "layer" in begin else "a text file"


def write_weights(
    path: Path,
    graph: Graph,
    values: Mapping[str, Array],
    *,
    diffs: Mapping[str, Array] | None = None,
) -> None:
    """Write the parameters of a net in the format that the suffix says; replaces `path` at once.

    `values` (and `diffs`, for `snapshot_diff`; only Caffe's own two formats have room for them) are by `Param.id`.
    Raises NetError.
    """
    write_stored(path, stored_from_graph(os.fspath(path), graph, values, diffs))


def write_stored(path: Path, stored: StoredWeights) -> None:
    """Write what a weights file held in the format that the suffix says; replaces `path` at once."""
    check_format(path)
    file = os.fspath(path)
    _WRITERS[os.path.splitext(file)[1].lower()](file, stored)


def check_format(path: Path) -> None:
    """Raise WeightsError, before any work is done, where the name of a file to write says no format."""
    file = os.fspath(path)
    if os.path.splitext(file)[1].lower() not in _WRITERS:
        raise WeightsError(f"{file}: the name must end with .caffemodel, .caffemodel.h5, .safetensors or .pt")
