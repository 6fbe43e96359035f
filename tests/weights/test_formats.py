"""The four formats hold the same arrays bit for bit, each stored once, with any layer names."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from weight_nets import GOLDEN, TWIN, bits, golden_twin, graph_of, random_values

from siamese_proto.weights import (
    StoredLayer,
    StoredWeights,
    match_weights,
    read_weights,
    write_stored,
    write_weights,
)

SUFFIXES = [".caffemodel", ".caffemodel.h5", ".safetensors", ".pt"]
ODD_NAMES = ["fire2/squeeze1x1", "a.b", "Ω \u200b<b>", "q\"'uote", "100%2F", "..", "new\nline", "ip#2", "fire2", "/0"]


def odd_net(names: list[str]) -> str:
    layers = 'name: "odd" layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'
    for index, name in enumerate(names):
        escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        layers += f'layer {{ name: "{escaped}" type: "InnerProduct" bottom: "x" top: "y{index}" '
        layers += f"inner_product_param {{ num_output: {index + 2} }} }}\n"
    return layers


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("text", [TWIN, odd_net(ODD_NAMES)], ids=["twin", "odd names"])
def test_a_file_is_read_back_bit_for_bit(text: str, suffix: str, tmp_path: Path) -> None:
    graph = graph_of(text)
    values = random_values(graph)
    write_weights(tmp_path / f"w{suffix}", graph, values)
    assert [path.name for path in tmp_path.iterdir()] == [f"w{suffix}"]
    back, report = match_weights(graph, read_weights(tmp_path / f"w{suffix}"))
    assert {key: bits(value) for key, value in back.items()} == {key: bits(value) for key, value in values.items()}
    assert (report.missing, report.ignored) == ((), ())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_layers_of_one_name_keep_their_own_values(suffix: str, tmp_path: Path) -> None:
    graph = graph_of(odd_net(["ip", "other", "ip"]))
    values = random_values(graph)
    write_weights(tmp_path / f"w{suffix}", graph, values)
    back, _ = match_weights(graph, read_weights(tmp_path / f"w{suffix}"))
    assert {key: bits(value) for key, value in back.items()} == {key: bits(value) for key, value in values.items()}


@pytest.mark.parametrize("source", SUFFIXES)
@pytest.mark.parametrize("target", SUFFIXES)
def test_every_format_converts_to_every_other_without_the_net(source: str, target: str, tmp_path: Path) -> None:
    graph = graph_of(odd_net(["one", "two/three"]))
    values = random_values(graph)
    write_weights(tmp_path / f"a{source}", graph, values)
    write_stored(tmp_path / f"b{target}", read_weights(tmp_path / f"a{source}"))
    back, _ = match_weights(graph, read_weights(tmp_path / f"b{target}"))
    assert {key: bits(value) for key, value in back.items()} == {key: bits(value) for key, value in values.items()}


@pytest.mark.slow
def test_hdf5_has_the_groups_and_datasets_that_caffe_writes(tmp_path: Path) -> None:
    def listing(path: Path) -> dict[str, object]:
        items: dict[str, object] = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: items.update({name: getattr(item, "shape", None), f"{name}@": dict(item.attrs)})
            )
        return items

    caffes = GOLDEN / "solver" / "adam" / "snap_iter_20.caffemodel.h5"
    graph = golden_twin()
    values, _ = match_weights(graph, read_weights(caffes))
    write_weights(tmp_path / "ours.h5", graph, values)
    ours = listing(tmp_path / "ours.h5")
    for own in ("siamese_proto_layers", "siamese_proto_layers@"):  # Caffe does not read them
        del ours[own]
    assert ours == listing(caffes)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_shared_array_is_stored_once_and_its_users_are_listed(suffix: str, tmp_path: Path) -> None:
    import torch
    from safetensors import safe_open

    graph = graph_of(TWIN)
    write_weights(tmp_path / f"w{suffix}", graph, random_values(graph))
    if suffix == ".pt":
        content = torch.load(tmp_path / f"w{suffix}", weights_only=True)
        metadata = content.pop("__metadata__")
        keys = list(content)
    else:
        with safe_open(tmp_path / f"w{suffix}", "numpy") as opened:
            keys, metadata = sorted(opened.keys()), opened.metadata()
    assert keys == ["ip/0", "ip/1", "last/0", "last/1"]
    users = {layer["name"]: [key for key, _ in layer["blobs"]] for layer in json.loads(metadata["layers"])}
    assert users["ip_p"] == users["ip"] == ["ip/0", "ip/1"]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_files_of_other_programs_need_only_keys(suffix: str, tmp_path: Path) -> None:
    import torch
    from safetensors.numpy import save_file

    graph = graph_of(TWIN)
    values = random_values(graph)
    arrays = {f"{param.owner_name}/{param.index}": values[param.id] for param in graph.params}
    if suffix == ".pt":
        torch.save({key: torch.from_numpy(array) for key, array in arrays.items()}, tmp_path / "w.pt")
    else:
        save_file(arrays, tmp_path / "w.safetensors")
    back, _ = match_weights(graph, read_weights(tmp_path / f"w{suffix}"))
    assert {key: bits(value) for key, value in back.items()} == {key: bits(value) for key, value in values.items()}


def test_converting_an_untied_twin_keeps_both_copies(tmp_path: Path) -> None:
    graph = graph_of(TWIN)
    write_weights(tmp_path / "a.caffemodel", graph, random_values(graph))
    stored = read_weights(tmp_path / "a.caffemodel")
    twin = next(layer for layer in stored.layers if layer.name == "ip_p")
    assert twin.blobs[0] is not None
    twin.blobs[0][0, 0] = 5  # the pages are private: the file does not change
    write_stored(tmp_path / "b.safetensors", stored)
    copies = {layer.name: layer for layer in read_weights(tmp_path / "b.safetensors").layers}
    assert copies["ip_p"].keys == ("ip_p/0", "ip/1")
    assert copies["ip_p"].blobs[0] is not None
    assert copies["ip_p"].blobs[0][0, 0] == 5
    assert read_weights(tmp_path / "a.caffemodel").layers[2].blobs[0] is not None


def test_a_nested_group_is_a_layer_with_a_slash(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["data/fire2/squeeze/0"] = [[1.0, 2.0]]
        file["data/fire2/0"] = [3.0]
        file["data/loop"] = h5py.SoftLink("/data")
        file["data/again"] = file["data"]
    layers = {layer.name: layer for layer in read_weights(tmp_path / "w.h5").layers}
    assert sorted(layers) == ["fire2", "fire2/squeeze"]
    assert layers["fire2/squeeze"].blobs[0] is not None
    assert layers["fire2/squeeze"].blobs[0].tolist() == [[1.0, 2.0]]


NAMES = ["", "%", ".", "#2", "a/b", "a%2Fb", "a%252Fb", "a", "\0", "layer_name"]


@pytest.mark.parametrize("suffix", [".caffemodel", ".h5", ".safetensors", ".pt"])
def test_different_names_have_different_groups(suffix: str, tmp_path: Path) -> None:
    """Unnamed layers, names that HDF5 does not allow, and names similar to their replacements."""
    for names in (["", ""], ["", "%"], ["%", "", "#2"], *([first, second] for first in NAMES for second in NAMES[3:6])):
        graph = graph_of(odd_net(names))
        values = random_values(graph)
        write_weights(tmp_path / f"w{suffix}", graph, values)
        back, report = match_weights(graph, read_weights(tmp_path / f"w{suffix}"))
        assert report.missing == ()
        assert {key: bits(value) for key, value in back.items()} == {key: bits(value) for key, value in values.items()}


@pytest.mark.slow
def test_safetensors_with_a_table_of_any_length_are_recognized(tmp_path: Path) -> None:
    """A table of 640 bytes begins like a pickle."""
    beginnings = set()
    for length in range(1, 400):
        stored = StoredWeights("w", (StoredLayer("x" * length, "InnerProduct", blobs=(np.ones((1,), np.float32),)),))
        write_stored(tmp_path / "w.safetensors", stored)
        beginnings.add((tmp_path / "w.safetensors").read_bytes()[:2])
        assert read_weights(tmp_path / "w.safetensors").layers[0].name == "x" * length
    assert b"\x80\x02" in beginnings


def test_texts_of_variable_size_are_not_read_from_hdf5(tmp_path: Path) -> None:
    """In a damaged file, HDF5 would search for them forever."""
    with h5py.File(tmp_path / "w.h5", "w") as file:
        group = file.create_group("data/ip")
        group.attrs["layer_name"] = "other"
        group["0"] = [[1.0, 2.0]]
    assert [layer.name for layer in read_weights(tmp_path / "w.h5").layers] == ["ip"]
