"""HDF5 files that are damaged, or that would have another file read."""

from __future__ import annotations

import random
from pathlib import Path

import h5py
import numpy
import pytest
from feeding import noise

from siamese_proto.data.layers.hdf5 import HDF5Batches, dataset_shapes
from siamese_proto.errors import DataError, NetError
from siamese_proto.weights.hdf5 import read_hdf5
from siamese_proto.weights.solverstate import read_state

SECRET = numpy.full((200, 3), 7, "f4")


def external_link(file: h5py.File, other: Path) -> None:
    file["data"] = h5py.ExternalLink(str(other), "/data")


def link_to_a_link(file: h5py.File, other: Path) -> None:
    external_link(file.create_group("inner"), other)
    file["data"] = h5py.SoftLink("/inner/data")


def group_of_another_file(file: h5py.File, other: Path) -> None:
    file["inner"] = h5py.ExternalLink(str(other), "/")
    file["data"] = h5py.SoftLink("/inner/data")


def external_storage(file: h5py.File, other: Path) -> None:
    file.create_dataset("data", (200, 3), "f4", external=[(str(other), 0, h5py.h5f.UNLIMITED)])


def virtual_dataset(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((200, 3), "f4")
    layout[:] = h5py.VirtualSource(str(other), "data", (200, 3))
    file.create_virtual_dataset("data", layout)


LINK, STORAGE = (
    "has a link to another file; copy the data into this one",
    "its numbers are not in the file but in another",
)


def as_data(path: str) -> None:
    dataset_shapes(path, ["data"])


def as_weights(path: str) -> None:
    with h5py.File(path, "r+") as file:
        file.move("data", "blob")
        file.create_group("data/ip").move("/blob", "0")
    read_hdf5(path)


def as_state(path: str) -> None:
    with h5py.File(path, "r+") as file:
        file.move("data", "iter")
        file.create_group("history")
    read_state(path)


@pytest.mark.parametrize("read", [as_data, as_weights, as_state])
@pytest.mark.parametrize(
    ("lead_out", "problem"),
    [
        (external_link, LINK),
        (link_to_a_link, LINK),
        (group_of_another_file, LINK),
        (external_storage, STORAGE),
        (virtual_dataset, STORAGE),
    ],
)
def test_hdf5_data_weights_and_solver_states_never_read_another_file(tmp_path, lead_out, problem, read):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["data"] = SECRET
    with h5py.File(tmp_path / "a.h5", "w") as file:
        lead_out(file, tmp_path / "other.h5")
    with pytest.raises(NetError, match=problem):
        read(str(tmp_path / "a.h5"))


def hdf5_file(path, *, data) -> str:
    with h5py.File(path, "w") as file:
        file["label"] = numpy.arange(200.0)
        data(file)
    return str(path)


def test_links_within_an_hdf5_file_are_followed(tmp_path):
    def link(file: h5py.File) -> None:
        file["inner/deep/numbers"] = SECRET
        file["inner/near"] = h5py.SoftLink("deep")
        file["data"] = h5py.SoftLink("/inner/near/numbers")

    path = hdf5_file(tmp_path / "a.h5", data=link)
    data, _ = next(HDF5Batches([path], ["data", "label"], 200, shuffle=False, seed=0).batches(0))
    assert numpy.array_equal(data, SECRET)


def test_a_circle_of_links_in_an_hdf5_file_ends(tmp_path):
    path = hdf5_file(tmp_path / "a.h5", data=lambda file: file.__setitem__("data", h5py.SoftLink("/data")))
    with pytest.raises(DataError, match=r"'data' in HDF5 file .* has a link that leads nowhere; make the file again"):
        dataset_shapes(path, ["data", "label"])


@pytest.mark.slow
@pytest.mark.parametrize(("version", "more"), [("earliest", {}), ("latest", {}), ("latest", {"compression": "gzip"})])
def test_a_damaged_byte_anywhere_in_an_hdf5_file_is_one_line_or_harmless(tmp_path, version, more):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=version) as file:
        file.create_dataset("data", data=noise(6, 2, 3, 5), **more)
        file.create_dataset("label", data=numpy.arange(6.0))
    whole, dice = path.read_bytes(), random.Random(1)
    messages = []
    for place in dice.sample(range(len(whole)), 300):
        path.write_bytes(whole[:place] + bytes([dice.randrange(256)]) + whole[place + 1 :])
        try:
            next(HDF5Batches([str(path)], ["data", "label"], 4, shuffle=False, seed=0).batches(0))
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert not any("\n" in message for message in messages)
