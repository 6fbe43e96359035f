"""Reading and writing weights in any of the four formats."""

import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from siamese_proto.errors import WeightsError
from siamese_proto.graph.ir import Graph
from siamese_proto.weights.blobs import Array
from siamese_proto.weights.caffemodel import read_caffemodel, write_caffemodel
from siamese_proto.weights.files import Path, looks_like, map_file, weights_error
from siamese_proto.weights.hdf5 import read_hdf5, write_hdf5
from siamese_proto.weights.stored import StoredWeights, stored_from_graph
from siamese_proto.weights.torch_files import read_pt, read_safetensors, write_pt, write_safetensors


class Format(NamedTuple):
    """How a format is read and written."""

    read: Callable[[Path], StoredWeights]
    write: Callable[[Path, StoredWeights], None]


FORMATS = {
    ".caffemodel": Format(read_caffemodel, write_caffemodel),
    ".h5": Format(read_hdf5, write_hdf5),
    ".safetensors": Format(read_safetensors, write_safetensors),
    ".pt": Format(read_pt, write_pt),
}
FORMATS |= {".hdf5": FORMATS[".h5"], ".pth": FORMATS[".pt"]}


def read_weights(path: Path) -> StoredWeights:
    """Read the layers of a `.caffemodel`, `.caffemodel.h5`, `.safetensors` or `.pt` file; the first bytes say which.

    Raises:
        WeightsError: The file is none of them; the error says what it looks like.
    """
    if not isinstance(path, str | os.PathLike):
        raise WeightsError(f"expected the path of a weights file, got {type(path).__name__}")
    file = os.fsdecode(path)
    start = map_file(file)[:512]
    kind = looks_like(start)
    if kind:
        raise weights_error(file, f"is not a weights file: it looks like {kind}")
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return read_hdf5(file)
    if start[4:9] == b"\0\0\0\0{":  # its length before the table comes first, and may look like a pickle
        return read_safetensors(file)
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):  # a zip archive, a pickle
        return read_pt(file)
    return FORMATS.get(_suffix(file), FORMATS[".caffemodel"]).read(file)


def write_weights(
    path: Path, graph: Graph, values: Mapping[str, Array], *, diffs: Mapping[str, Array] | None = None
) -> None:
    """Write the parameters of a net in the format of the suffix; replaces `path` atomically.

    Args:
        path: The file.
        graph: The net.
        values: Arrays by `Param.id`.
        diffs: The same for `snapshot_diff`; only Caffe's own two formats hold them.

    Raises:
        NetError: The file cannot be written.
    """
    write_stored(path, stored_from_graph(os.fspath(path), graph, values, diffs))


def write_stored(path: Path, stored: StoredWeights) -> None:
    """Write the content of a weights file in the format of the suffix; replaces `path` atomically."""
    check_format(path)
    file = os.fspath(path)
    FORMATS[_suffix(file)].write(file, stored)


def check_format(path: Path) -> None:
    """Raise WeightsError, before any work is done, if the suffix of a file to write is unknown."""
    file = os.fspath(path)
    if _suffix(file) not in FORMATS:
        raise WeightsError(f"{file}: the name must end with .caffemodel, .caffemodel.h5, .safetensors or .pt")


def _suffix(file: str) -> str:
    return os.path.splitext(file)[1].lower()
