"""siamese-proto convert: the same numbers in another format."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import paths
import pytest
from cli_runner import run
from click.testing import CliRunner, Result

from siamese_proto.cli import main
from siamese_proto.proto import schema
from siamese_proto.weights import StoredLayer, StoredWeights, read_weights, write_stored

GOLDEN = paths.GOLDEN
SUFFIXES = [".caffemodel.h5", ".safetensors", ".pt", ".caffemodel"]


def convert(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def numbers(path: Path) -> list[tuple[str, list[tuple[tuple[int, ...], str, bytes]]]]:
    """Every layer that has arrays, in the order of the file, with the bytes of each."""
    return [
        (layer.name, [(blob.shape, blob.dtype.name, blob.tobytes()) for blob in layer.all_blobs(str(path))])
        for layer in read_weights(path).layers
        if layer.blobs
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", ["flagship/snap_iter_100", "solver/adam/snap_iter_20"])
def test_a_caffemodel_survives_a_round_trip_through_every_format(name: str, suffix: str, tmp_path: Path) -> None:
    """Shared arrays of twins are written for each layer."""
    source = GOLDEN / f"{name}.caffemodel"
    assert convert(source, tmp_path / f"a{suffix}").exit_code == 0
    done = convert(tmp_path / f"a{suffix}", tmp_path / "b.caffemodel")
    assert done.exit_code == 0, done.output
    assert numbers(tmp_path / "b.caffemodel") == numbers(source)
    assert len(numbers(source)) == len({name for name, _ in numbers(source)}) > 3


def test_hdf5_files_saved_by_caffe_are_converted(tmp_path: Path) -> None:
    """Only the owner of shared arrays has them in the file; the other layers have none."""
    source = GOLDEN / "solver" / "adam" / "snap_iter_20.caffemodel.h5"
    assert convert(source, tmp_path / "b.safetensors").exit_code == 0
    binary = dict(numbers(source.with_name("snap_iter_20.caffemodel")))
    converted = numbers(tmp_path / "b.safetensors")
    assert converted
    assert all(binary[name] == blobs for name, blobs in converted)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_unusual_numbers_shapes_and_names_are_unchanged(suffix: str, tmp_path: Path) -> None:
    bits = np.array([0x7FC00001, 0x80000000, 0x00000001, 0xFF800000, 0x7F7FFFFF, 0x3F800000], np.uint32)
    layers = (
        StoredLayer("a/b", "Convolution", blobs=(bits.view(np.float32).reshape(1, 2, 3, 1),)),
        StoredLayer("\u5377\u79ef", "InnerProduct", blobs=(np.array([[math.pi]]), np.zeros((2, 0), np.float32))),
        StoredLayer("a/b", "Scale", blobs=(np.float32([7]),)),
    )
    write_stored(tmp_path / "w.caffemodel", StoredWeights("w", layers, "n"))
    before = numbers(tmp_path / "w.caffemodel")
    assert convert(tmp_path / "w.caffemodel", tmp_path / f"a{suffix}").exit_code == 0
    assert convert(tmp_path / f"a{suffix}", tmp_path / "b.caffemodel").exit_code == 0
    assert numbers(tmp_path / "b.caffemodel") == before


def test_old_formats_and_unpacked_numbers_are_converted(tmp_path: Path) -> None:
    old = schema.NetParameter(name="old")
    v1 = old.layers.add(name="ip", type=schema.V1LayerParameter.INNER_PRODUCT)
    v1.blobs.add(num=1, channels=1, height=2, width=3, data=[1, 2, 3, 4, 5, 6])
    (tmp_path / "v1.caffemodel").write_bytes(old.SerializeToString() + b"\xc2\x3e\x03abc")  # a field of a fork: 1000
    for suffix in SUFFIXES:
        assert convert(tmp_path / "v1.caffemodel", tmp_path / f"a{suffix}").exit_code == 0
        (layer,) = read_weights(tmp_path / f"a{suffix}").layers
        assert (layer.name, layer.all_blobs("")[0].shape) == ("ip", (1, 1, 2, 3))
        assert layer.all_blobs("")[0].ravel().tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_the_written_file_is_described(tmp_path: Path) -> None:
    done = run("convert", GOLDEN / "flagship" / "init.caffemodel", "w.safetensors", folder=tmp_path)
    size = (tmp_path / "w.safetensors").stat().st_size
    assert (done.returncode, done.stdout) == (0, f"w.safetensors: 20 blobs of 19 layers, {size:,} bytes\n")


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("none.caffemodel", "w.pt", "none.caffemodel: cannot be read: No such file or directory"),
        (
            "w.caffemodel",
            "w.npz",
            "w.npz: the name must end with .caffemodel, .caffemodel.h5, .safetensors or .pt",
        ),
        ("w.caffemodel", "no/w.pt", "cannot write 'no/w.pt': there is no folder 'no'"),
        ("text.caffemodel", "w.pt", "text.caffemodel: is not a weights file: it looks like a text file"),
    ],
)
def test_unsupported_conversions_are_refused(
    source: str, target: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.caffemodel").write_bytes((GOLDEN / "flagship" / "init.caffemodel").read_bytes())
    Path("text.caffemodel").write_text("hello")
    done = convert(source, target)
    assert (done.exit_code, done.stderr) == (1, message + "\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.caffemodel", "w.caffemodel"]
