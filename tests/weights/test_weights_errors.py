"""The table of invalid files and their errors."""

# ruff: noqa: E501  # the tables have one row per line

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import paths
import pytest
from weight_nets import GOLDEN, TWIN, graph_of, random_values

from siamese_proto.errors import NetError, WeightsError
from siamese_proto.proto import schema
from siamese_proto.weights import StoredState, read_state, read_weights, write_state, write_weights

INIT = (GOLDEN / "solver" / "init.caffemodel").read_bytes()
STATE = (GOLDEN / "solver" / "adam" / "snap_iter_20.solverstate").read_bytes()


def net_with(blob: schema.BlobProto) -> bytes:
    net = schema.NetParameter()
    net.layer.add(name="ip", type="InnerProduct", blobs=[blob])
    return net.SerializeToString()


def shaped(*dims: int, count: int) -> bytes:
    return net_with(schema.BlobProto(shape=schema.BlobShape(dim=dims), data=[0.0] * count))


WEIGHTS: list[tuple[str, bytes, str]] = [
    ("w.caffemodel", b"", "the file is empty"),
    ("w.caffemodel", b'name: "n"\nlayer { }', "is not a weights file: it looks like a text file: give the net to --model, the weights here"),
    ("w.caffemodel", b"\xef\xbb\xbfhello", "is not a weights file: it looks like a text file"),
    ("w.h5", b"hello", "is not a weights file: it looks like a text file"),
    ("w.caffemodel", b"<!DOCTYPE html><p>404", "is not a weights file: it looks like a web page: the download went wrong"),
    ("w.caffemodel", b"version https://git-lfs.github.com/spec/v1\noid", "is not a weights file: it looks like a Git LFS pointer: fetch the file itself with `git lfs pull`"),
    ("w.caffemodel", gzip.compress(INIT), "is not a weights file: it looks like a gzip file: unpack it first"),
    ("w.caffemodel", b"\xff" * 99, "is not a caffemodel, or is damaged or cut off (byte 0 begins a number that does not end)"),
    ("w.caffemodel", INIT[:1000], "is damaged or cut off (byte 443 begins a field of 902 bytes, but only 553 follow)"),
    ("w.caffemodel", b"\x0a\x03abc\xa2", "is not a caffemodel, or is damaged or cut off (byte 5 begins a number that does not end)"),
    ("w.caffemodel", b"\x0b\x01\x00\x00\x00", "is not a caffemodel, or is damaged or cut off (no field can begin at byte 0)"),
    ("w.caffemodel", STATE, "is not a caffemodel but looks like a solver state; give the .caffemodel that was saved with it"),
    ("w.caffemodel", schema.BlobProto(data=[1.0], num=1).SerializeToString(), "is not a caffemodel but looks like a single blob, such as a mean image"),
    ("w.caffemodel", schema.NetParameter(name="n\x01").SerializeToString(), "holds no layers"),
    ("w.caffemodel", shaped(3, 2, count=5), "layer 'ip': blob 0: its shape (3, 2) has 6 numbers, but it holds 5"),
    ("w.caffemodel", shaped(1 << 30, 1 << 30, count=1), "layer 'ip': blob 0: its shape (1073741824, 1073741824) is larger than any file"),
    ("w.caffemodel", shaped(0, 1 << 62, count=0), "layer 'ip': blob 0: its shape (0, 4611686018427387904) is larger than any file"),
    ("w.caffemodel", shaped(-2, -1, count=2), "layer 'ip': blob 0: its shape (-2, -1) has a negative size"),
    ("w.caffemodel", shaped(*[1] * 33, count=1), "layer 'ip': blob 0: its shape has 33 axes; Caffe allows 32"),
    ("w.caffemodel", net_with(schema.BlobProto(num=2, channels=3, data=[1.0])), "layer 'ip': blob 0: its shape (2, 3, 0, 0) has 0 numbers, but it holds 1"),
    ("w.caffemodel", net_with(schema.BlobProto()), "layer 'ip': blob 0: its shape () has 1 numbers, but it holds 0"),
    ("w.caffemodel", b"\xa2\x06\x07\x3a\x05\x2a\x03abc", "layer '': blob 0: holds 3 bytes of numbers, which is not a multiple of 4"),
    ("w.h5", INIT, "is not an HDF5 file, or is damaged or cut off (...)"),
    ("w.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 90, "is not an HDF5 file, or is damaged or cut off (...)"),
    ("w.safetensors", INIT, "is not a readable safetensors file (...)"),
    ("w.pt", INIT, "is not a file of tensors that torch can load safely (...)"),
    ("w.pt", b"PK\x03\x04" + b"\0" * 90, "is not a file of tensors that torch can load safely (...)"),
]  # fmt: skip  # one row per line


@pytest.mark.parametrize(("name", "content", "message"), WEIGHTS)
def test_a_file_without_weights_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError) as raised:
        read_weights(path)
    text = str(raised.value)
    assert "\n" not in text
    # The messages of h5py, safetensors and torch are in brackets at the end, and may change.
    ours = f"{text.partition(' (')[0]} (...)" if message.endswith(" (...)") else text
    assert ours == f"{path}: {message}"


STATES: list[tuple[str, bytes, str]] = [
    ("s.solverstate", b"", "the file is empty"),
    ("s.solverstate", b"net: 'n.prototxt'", "is not a solver state: it looks like a text file"),
    ("s.solverstate", INIT, "is not a solver state: it has no iteration"),
    ("snap.caffemodel", INIT, "is not a solver state: it has no iteration; give a .caffemodel to --weights, not to --snapshot"),
    ("s.solverstate", STATE[:400], "entry 2 of the history is damaged or cut off (byte 219 begins a field of 777 bytes, but only 178 follow)"),
    ("s.solverstate", b"\xff" * 20, "is not a solver state (byte 0 begins a number that does not end)"),
    ("s.solverstate.h5", STATE, "is not an HDF5 file"),
]  # fmt: skip  # one row per line


@pytest.mark.parametrize(("name", "content", "message"), STATES)
def test_a_file_without_a_state_is_refused(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError) as raised:
        read_state(path)
    assert str(raised.value) == f"{path}: {message}"


@pytest.mark.parametrize("suffix", [".caffemodel", ".caffemodel.h5", ".solverstate", ".solverstate.h5"])
def test_bytes_changed_at_random_are_read_or_refused(suffix: str, tmp_path: Path) -> None:
    dice = random.Random(11)
    golden = (GOLDEN / "solver" / "adam" / f"snap_iter_20{suffix}").read_bytes()
    read = read_state if "state" in suffix else read_weights
    refused = []
    for _ in range(200):
        damaged = bytearray(golden[: dice.choice([len(golden), dice.randrange(len(golden))])])
        for _ in range(dice.randrange(1, 6)):
            if damaged:
                damaged[dice.randrange(min(len(damaged), 2000))] = dice.choice([0, 0x7F, 0x80, 0xFF])
        (tmp_path / f"d{suffix}").write_bytes(damaged)
        try:
            read(tmp_path / f"d{suffix}")
        except WeightsError as error:
            refused.append(str(error))
    assert 50 < len(refused) < 200
    assert [text for text in refused if "\n" in text or not text.startswith(f"{tmp_path / 'd'}{suffix}: ")] == []


def huge(file: h5py.File) -> None:
    file.create_dataset("data/ip/0", (1 << 20, 1 << 20), "<f4", chunks=(64, 64))


def text(file: h5py.File) -> None:
    file["data/ip/0"] = "seven"


def named(file: h5py.File) -> None:
    file["data/ip/weight"] = [1.0]


def no_data(file: h5py.File) -> None:
    file["other"] = [1.0]


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (huge, "layer 'ip': blob 0 has shape (1048576, 1048576), but its numbers are not in the file"),
        (text, "layer 'ip': blob 0 holds no numbers"),
        (named, "layer 'ip': array 'weight' is not the index of a blob, such as 0"),
        (no_data, "is an HDF5 file without the group /data that holds the layers of a net"),
    ],
)
def test_hdf5_of_another_kind_is_refused(fill: Callable[[h5py.File], None], message: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        fill(file)
    with pytest.raises(WeightsError) as raised:
        read_weights(tmp_path / "w.h5")
    assert str(raised.value) == f"{tmp_path / 'w.h5'}: {message}"


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "hacked"),)

    (tmp_path / "w.pt").write_bytes(pickle.dumps({"a/0": Evil()}, protocol=2))
    with pytest.raises(WeightsError, match="is not a file of tensors that torch can load safely"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "hacked").exists()


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        for read in (read_weights, read_state):
            with pytest.raises(WeightsError) as raised:
                read(path)
            assert str(raised.value) == f"{path}: cannot be read: {reason}"


@pytest.mark.parametrize("suffix", [".caffemodel", ".caffemodel.h5", ".safetensors", ".pt"])
def test_a_missing_folder_is_an_error(suffix: str, tmp_path: Path) -> None:
    graph = graph_of(TWIN)
    path = tmp_path / "none" / f"w{suffix}"
    with pytest.raises(NetError) as raised:
        write_weights(path, graph, random_values(graph))
    assert str(raised.value) == f"{path}: cannot be written: No such file or directory"


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    graph = graph_of(TWIN)
    with pytest.raises(WeightsError) as raised:
        write_weights("w.onnx", graph, random_values(graph))
    assert str(raised.value) == "w.onnx: the name must end with .caffemodel, .caffemodel.h5, .safetensors or .pt"


FULL_DISK = """
import resource, signal, sys
import torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from weight_nets import TWIN, graph_of
import numpy as np
from siamese_proto.errors import NetError
from siamese_proto.weights import write_weights
graph = graph_of(TWIN.replace("num_output: 4", "num_output: 40000"))
values = {p.id: np.zeros(p.shape, np.float32) for p in graph.params}
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
for suffix in (".caffemodel", ".h5", ".safetensors", ".pt"):
    path = Path(sys.argv[1], "w" + suffix)
    path.write_text("the old one")
    try:
        write_weights(path, graph, values)
    except NetError as error:
        sys.stdout.write(f"{suffix} {str(error).startswith(f'{path}: cannot be written: ')} {path.read_text()}\\n")
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the size of files cannot be limited there")
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), str(paths.HELPERS)],
        capture_output=True,
        text=True,
        check=False,
    )
    suffixes = [".caffemodel", ".h5", ".safetensors", ".pt"]
    assert done.stdout.splitlines() == [f"{suffix} True the old one" for suffix in suffixes], done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"w{suffix}" for suffix in suffixes)


def test_a_state_in_a_missing_folder_is_refused(tmp_path: Path) -> None:
    state = StoredState(1, "", 0, (np.zeros(2, np.float32),))
    for name in ("s.solverstate", "s.solverstate.h5"):
        with pytest.raises(NetError, match="cannot be written: No such file or directory"):
            write_state(tmp_path / "none" / name, state)


def test_a_zip_named_safetensors_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(WeightsError, match="is not a file of tensors that torch can load safely"):
        read_weights(path)
