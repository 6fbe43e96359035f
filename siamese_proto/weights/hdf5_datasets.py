"""Datasets of HDF5 files that may be damaged, or made to harm: weights, solver states and training data.

A dataset may lie in another file (an external link, external storage, a virtual dataset), so that a stranger's file
could have any file of this machine read. It may also claim any size. Both are refused before anything is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py
    from numpy.typing import NDArray

_MOST_PACKED = 1100  # deflate makes data at most 1032 times smaller
_MOST_LINKS = 16  # that lead to one dataset


class NotInFileError(Exception):
    """What should be in an HDF5 file is elsewhere or nowhere; its text says so, after the name of what is meant."""


def find(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset | None:
    """Return what is under a path in a group, or None.

    Raises:
        NotInFileError: A link leads to another file or nowhere.
    """
    import h5py

    found: h5py.Group | h5py.Dataset = group
    names, links = path.split("/"), 0
    while names:
        name = names.pop(0)
        if not name or name == ".":
            continue
        link = found.get(name, getlink=True) if isinstance(found, h5py.Group) else None
        if link is None:
            if links:
                raise NotInFileError("has a link that leads nowhere")
            return None
        if isinstance(link, h5py.HardLink):
            found = found[name]
            continue
        links += 1
        if not isinstance(link, h5py.SoftLink):
            raise NotInFileError("has a link to another file; copy the data into this one")
        if links > _MOST_LINKS:
            raise NotInFileError("has a link that leads nowhere")
        names[:0] = link.path.split("/")
        found = found.file if link.path.startswith("/") else found
    return found


def check_stored(dataset: h5py.Dataset, *, fill: int = 0) -> None:
    """Check that the numbers of a dataset are in its file.

    Args:
        dataset: The dataset.
        fill: Number of bytes that may be missing in the file, where HDF5 reads the fill value.

    Raises:
        NotInFileError: They are in another file, or the file has fewer bytes than the shape needs.
    """
    if dataset.is_virtual or dataset.external:
        raise NotInFileError(f"has shape {dataset.shape}, but its numbers are not in the file but in another one")
    packed = dataset.id.get_create_plist().get_nfilters() > 0
    held = dataset.id.get_storage_size() * (_MOST_PACKED if packed else 1)
    if dataset.nbytes > max(held, fill):
        raise NotInFileError(f"has shape {dataset.shape}, but its numbers are not in the file")


def read(dataset: h5py.Dataset, *, fill: int = 0) -> NDArray[Any]:
    """Return the numbers of a dataset that `check_stored` accepts."""
    import numpy

    check_stored(dataset, fill=fill)
    return numpy.asarray(dataset[()])
