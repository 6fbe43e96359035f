"""Binary files of real Caffe are read exactly, and written again byte for byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from weight_nets import GOLDEN, TWIN, bits, flagship, golden_twin, graph_of, random_values

from siamese_proto.errors import WeightsError
from siamese_proto.proto import schema
from siamese_proto.weights import (
    StoredLayer,
    StoredWeights,
    match_weights,
    read_weights,
    write_stored,
    write_weights,
)

SOLVERS = sorted(path.parent for path in GOLDEN.glob("solver/*/trajectory.npz"))


def test_golden_solvers_exist() -> None:
    assert len(SOLVERS) == 13


@pytest.mark.parametrize("folder", SOLVERS, ids=lambda folder: folder.name)
def test_the_arrays_of_caffe_are_read_exactly(folder: Path) -> None:
    trajectory = np.load(folder / "trajectory.npz")
    layers = {layer.name: layer for layer in read_weights(folder / "snap_iter_20.caffemodel").layers}
    keys = [key for key in trajectory if key.startswith("iter20/")]
    assert len(keys) == 4
    for key in keys:
        _, layer, index = key.split("/")
        assert bits(layers[layer].blobs[int(index)]) == bits(trajectory[key])
        assert bits(layers[f"{layer}_p"].blobs[int(index)]) == bits(trajectory[key])


def test_the_lenet_twin_is_written_byte_for_byte_as_by_caffe(tmp_path: Path) -> None:
    graph = flagship()
    golden = GOLDEN / "flagship" / "snap_iter_100.caffemodel"
    values, _ = match_weights(graph, read_weights(golden))
    write_weights(tmp_path / "ours.caffemodel", graph, values)
    assert (tmp_path / "ours.caffemodel").read_bytes() == golden.read_bytes()


def test_splits_and_a_loss_without_tops_are_written_as_by_caffe(tmp_path: Path) -> None:
    graph = graph_of("""
        name: "n"
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "l" type: "EuclideanLoss" bottom: "x" bottom: "x" }
    """)
    write_weights(tmp_path / "n.caffemodel", graph, {})
    layers = schema.NetParameter.FromString((tmp_path / "n.caffemodel").read_bytes()).layer
    assert [(layer.name, list(layer.top), list(layer.loss_weight)) for layer in layers] == [
        ("in", ["x"], []),
        ("x_in_0_split", ["x_in_0_split_0", "x_in_0_split_1"], []),
        ("l", [], [1.0]),
    ]
    assert {layer.phase for layer in layers} == {schema.TRAIN}


def test_statistics_are_marked_as_not_learning(tmp_path: Path) -> None:
    graph = graph_of(TWIN)
    last = graph.nodes[-1]
    uses = tuple(replace(use, param=replace(use.param, statistic=True)) for use in last.params)
    message = schema.LayerParameter(name=last.name, type=last.type)
    message.param.add(lr_mult=0.0, name="mean")
    graph = replace(graph, nodes=(*graph.nodes[:-1], replace(last, params=uses, message=message)))
    write_weights(tmp_path / "s.caffemodel", graph, random_values(graph))
    written = schema.NetParameter.FromString((tmp_path / "s.caffemodel").read_bytes()).layer[-1]
    assert [(spec.name, spec.HasField("lr_mult"), spec.lr_mult) for spec in written.param] == [
        ("mean", True, 0.0),
        ("", True, 0.0),
    ]
    assert len(message.param) == 1


def test_a_blob_without_axes_is_one_number(tmp_path: Path) -> None:
    number = np.array(0.25, np.float32)
    for suffix in (".caffemodel", ".h5", ".safetensors", ".pt"):
        write_stored(tmp_path / f"w{suffix}", StoredWeights("w", (StoredLayer("prelu", "PReLU", blobs=(number,)),)))
        (layer,) = read_weights(tmp_path / f"w{suffix}").layers
        assert bits(layer.blobs[0]) == ((), number.tobytes())


def test_diffs_are_written_in_caffes_order(tmp_path: Path) -> None:
    graph = graph_of(TWIN)
    values, diffs = random_values(graph), random_values(graph, seed=8)
    write_weights(tmp_path / "d.caffemodel", graph, values, diffs=diffs)
    layers = schema.NetParameter.FromString((tmp_path / "d.caffemodel").read_bytes()).layer
    last = next(layer for layer in layers if layer.name == "last")
    param = next(param for param in graph.params if param.owner_name == "last" and param.index == 0)
    assert np.array(last.blobs[0].diff, np.float32).tobytes() == diffs[param.id].tobytes()
    assert np.array(last.blobs[0].data, np.float32).tobytes() == values[param.id].tobytes()


def save(path: Path, net: schema.NetParameter) -> Path:
    path.write_bytes(net.SerializeToString())
    return path


def test_a_v1_file_with_enumerated_types_and_four_sizes_is_read(tmp_path: Path) -> None:
    net = schema.NetParameter(name="old")
    layer = net.layers.add(name="ip", type=schema.V1LayerParameter.INNER_PRODUCT, bottom=["a"], top=["x"])
    layer.blobs.add(num=1, channels=1, height=2, width=3, data=range(6))
    layer.blobs.add(num=1, channels=1, height=1, width=2, data=[6, 7])
    (read,) = read_weights(save(tmp_path / "v1.caffemodel", net)).layers
    assert (read.name, read.type, read.bottoms, read.tops) == ("ip", "InnerProduct", ("a",), ("x",))
    assert [blob.shape for blob in read.blobs if blob is not None] == [(1, 1, 2, 3), (1, 1, 1, 2)]
    assert np.concatenate([np.ravel(blob) for blob in read.blobs if blob is not None]).tolist() == list(range(8))


def test_v0_files_with_nested_layers_are_read(tmp_path: Path) -> None:
    net = schema.NetParameter(name="oldest", input=["data"], input_dim=[2, 3, 5, 7])
    padding = net.layers.add(bottom=["data"], top=["pad"]).layer
    padding.name, padding.type, padding.pad = "pad", "padding", 1
    outer = net.layers.add(bottom=["pad"], top=["c"])
    outer.layer.name, outer.layer.type, outer.layer.num_output, outer.layer.kernelsize = "conv", "conv", 4, 3
    outer.layer.blobs.add(num=4, channels=3, height=3, width=3, data=np.arange(108))
    outer.layer.blobs.add(num=1, channels=1, height=1, width=4, data=[1, 2, 3, 4])
    layers = {layer.name: layer for layer in read_weights(save(tmp_path / "v0.caffemodel", net)).layers}
    conv = layers["conv"]
    assert conv.type == "Convolution"
    assert conv.blobs[0] is not None
    assert conv.blobs[1] is not None
    assert conv.blobs[0].reshape(-1).tolist() == list(range(108))
    assert conv.blobs[1].shape == (1, 1, 1, 4)


def test_doubles_unpacked_numbers_and_split_fields_are_read(tmp_path: Path) -> None:
    def blob(*parts: bytes) -> bytes:
        body = b"".join(parts) + b"\x3a\x03\x0a\x01\x02"  # shape (2)
        return b"\x3a" + bytes([len(body)]) + body

    one, two = np.array([1.5], "<f4").tobytes(), np.array([2.5], "<f4").tobytes()
    unpacked = blob(b"\x2d" + one, b"\x2d" + two)
    pieces = blob(b"\x2a\x04" + one, b"\x2a\x04" + two)
    doubles = blob(b"\x42\x10" + np.array([1.5, 2.5], "<f8").tobytes())
    body = b"\x0a\x01a" + unpacked + pieces + doubles
    (tmp_path / "odd.caffemodel").write_bytes(b"\xa2\x06" + bytes([len(body)]) + body)
    (layer,) = read_weights(tmp_path / "odd.caffemodel").layers
    assert [blob.tolist() for blob in layer.blobs if blob is not None] == [[1.5, 2.5]] * 3
    assert layer.blobs[2] is not None
    assert layer.blobs[2].dtype == np.float64


def test_arrays_are_views_of_the_file_that_torch_accepts() -> None:
    import torch

    stored = read_weights(GOLDEN / "flagship" / "init.caffemodel")
    blobs = [blob for layer in stored.layers for blob in layer.blobs if blob is not None]
    assert len(blobs) == 20
    for blob in blobs:
        assert not blob.flags.owndata
        assert torch.from_numpy(blob).numpy().tobytes() == blob.tobytes()


def test_values_of_the_wrong_size_are_not_written(tmp_path: Path) -> None:
    graph = graph_of(TWIN)
    values = random_values(graph)
    values["last_0"] = values["last_0"][:2]
    with pytest.raises(WeightsError, match=r"parameter last_0 has shape \(4, 10\), but its values have \(2, 10\)"):
        write_weights(tmp_path / "x.caffemodel", graph, values)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["adam", "sgd_fixed"])
def test_both_formats_of_caffe_hold_the_same_net(name: str) -> None:
    graph = golden_twin()
    binary, _ = match_weights(graph, read_weights(GOLDEN / "solver" / name / "snap_iter_20.caffemodel"))
    hdf5, _ = match_weights(graph, read_weights(GOLDEN / "solver" / name / "snap_iter_20.caffemodel.h5"))
    assert len(binary) == 4
    assert {key: bits(value) for key, value in binary.items()} == {key: bits(value) for key, value in hdf5.items()}


def test_names_that_are_not_utf_8_are_escaped(tmp_path: Path) -> None:
    old = schema.NetParameter()
    layer = old.layers.add(name="ip@", bottom=["b@"], top=["t@"], type=schema.V1LayerParameter.INNER_PRODUCT)
    layer.blobs.add(num=1, channels=1, height=1, width=2, data=[1.0, 2.0])
    old.input.append("in@")
    (tmp_path / "w.caffemodel").write_bytes(old.SerializeToString().replace(b"@", b"\xbe"))
    (read,) = [layer for layer in read_weights(tmp_path / "w.caffemodel").layers if layer.blobs]
    assert (read.name, read.bottoms, read.tops) == (r"ip\xbe", (r"b\xbe",), (r"t\xbe",))
