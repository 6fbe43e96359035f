"""Datasets of HDF5 files that may be damaged or malicious: weights, solver states and training data.

A dataset may be in another file (an external link, external storage, a virtual dataset), so an untrusted file could
make us read any file of this machine. It may also claim any size. Both are refused before anything is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py
    from numpy.typing import NDArray

_MAX_COMPRESSION = 1100  # deflate makes data at most 1032 times smaller
_MAX_LINKS = 16  # on the way to one dataset


class NotInFileError(Exception):
    """A part of an HDF5 file is missing or in another file. The text continues a sentence that begins with its name."""


def find(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset | None:
    """Return the object at a path in a group, or None.

    Raises:
        NotInFileError: A link leads to another file or nowhere.
    """
    import h5py

    item: h5py.Group | h5py.Dataset = group
    names, links = path.split("/"), 0
    while names:
        name = names.pop(0)
        if not name or name == ".":
            continue
        link = item.get(name, getlink=True) if isinstance(item, h5py.Group) else None
        if link is None:
            if links:
                raise NotInFileError("has a link that leads nowhere")
            return None
        if isinstance(link, h5py.HardLink):
            item = item[name]
            continue
        links += 1
        if not isinstance(link, h5py.SoftLink):
            raise NotInFileError("has a link to another file; copy the data into this one")
        if links > _MAX_LINKS:
            raise NotInFileError("has a link that leads nowhere")
        names[:0] = link.path.split("/")
        item = item.file if link.path.startswith("/") else item
    return item


def check_stored(dataset: h5py.Dataset, *, fill: int = 0) -> None:
    """Check that the numbers of a dataset are in its file.

    Args:
        dataset: The dataset.
        fill: Number of bytes that may be missing in the file; HDF5 reads the fill value for them.

    Raises:
        NotInFileError: They are in another file, or the file has fewer bytes than the shape needs.
    """
    if dataset.is_virtual or dataset.external:
        raise NotInFileError(f"has shape {dataset.shape}, but its numbers are not in the file but in another one")
    is_compressed = dataset.id.get_create_plist().get_nfilters() > 0
    stored = dataset.id.get_storage_size() * (_MAX_COMPRESSION if is_compressed else 1)
    if dataset.nbytes > max(stored, fill):
        raise NotInFileError(f"has shape {dataset.shape}, but its numbers are not in the file")


def read(dataset: h5py.Dataset, *, fill: int = 0) -> NDArray[Any]:
    """Return the numbers of a dataset that `check_stored` accepts."""
    import numpy

    check_stored(dataset, fill=fill)
    return numpy.asarray(dataset[()])
