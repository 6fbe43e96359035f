"""Every vector that real Caffe computed for these layer types, through the public interface."""

from __future__ import annotations

import json

import numpy as np
import paths
import pytest
import torch

import siamese_proto as sp
from siamese_proto.layers.base import registered

GOLDEN = paths.GOLDEN / "layers"


def load(case: str) -> tuple[dict[str, np.ndarray], dict]:
    with np.load(GOLDEN / f"{case}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return arrays, json.loads(str(arrays.pop("meta")))


DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
# A case is run as soon as all its layer types are there.
CASES = sorted(
    path.stem
    for path in GOLDEN.glob("*.npz")
    if set(load(path.stem)[1]["layer_types"]) <= {*registered(), "Split"}  # Caffe inserts Splits by itself
)


def of_kind(arrays: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {key.partition("/")[2]: value for key, value in arrays.items() if key.startswith(f"{kind}/")}


def label_blobs(net: sp.Net) -> set[str]:
    return {node.bottoms[index].name for node in net.graph.nodes for index in node.layer.labels}


def close(case: str, what: str, actual: torch.Tensor, expected: np.ndarray) -> None:
    # A convolution's weight gradient sums some hundred products, in another order than Caffe does, that cancel.
    long_sum = case.startswith(("convolution", "deconvolution")) and what.startswith("parameter gradient")
    relative = 1e-4 if long_sum else 1e-5
    assert tuple(actual.shape) == expected.shape, what
    np.testing.assert_allclose(actual.detach().cpu().numpy(), expected, rtol=relative, atol=relative / 10, err_msg=what)


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU torch rounds what convolutions read to 10 bits unless told otherwise; Caffe does not."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("case", CASES)
def test_layers_compute_what_caffe_computes(case: str, fuse: bool, device: str) -> None:  # pytest passes it by name
    arrays, meta = load(case)
    net = sp.Net(GOLDEN / f"{case}.prototxt", phase=meta["phase"], fuse=fuse).to(device)
    with torch.no_grad():
        for place, value in of_kind(arrays, "param").items():
            layer, _, index = place.rpartition("/")
            net.params[layer][int(index)].copy_(torch.from_numpy(value))
    arrays_of_bottoms = of_kind(arrays, "bottom")
    bottoms = {
        name: torch.tensor(value, device=device, requires_grad=True) for name, value in arrays_of_bottoms.items()
    }
    outputs = net(**bottoms)
    assert sorted(outputs) == sorted(meta["outputs"])
    for name, expected in of_kind(arrays, "top").items():
        close(case, f"top {name}", outputs[name], expected)
    for place, expected in {**of_kind(arrays, "param"), **of_kind(arrays, "param_after")}.items():
        layer, _, index = place.rpartition("/")
        close(case, f"parameter {place} after the forward pass", net.params[layer][int(index)], expected)
    if meta["mode"] == "fwd":
        assert not any(output.requires_grad for output in outputs.values())
        return

    total = net.loss(outputs)
    for name, difference in of_kind(arrays, "top_diff").items():
        if outputs[name].requires_grad:
            total = total + (outputs[name] * torch.from_numpy(difference).to(device)).sum()
    if total.requires_grad:
        total.backward()
    if meta["mode"] == "force":
        check_bottoms(case, net, bottoms, of_kind(arrays, "bottom_diff"))
    for place, expected in of_kind(arrays, "param_diff").items():
        layer, _, index = place.rpartition("/")
        grad = net.params[layer][int(index)].grad
        close(case, f"parameter gradient {place}", torch.zeros(expected.shape) if grad is None else grad, expected)


def check_bottoms(case: str, net: sp.Net, bottoms: dict[str, torch.Tensor], expected: dict[str, np.ndarray]) -> None:
    labels = label_blobs(net)
    for name, bottom in bottoms.items():
        if name in labels:
            assert bottom.grad is None, f"label {name} received a gradient"
        else:
            grad = torch.zeros_like(bottom) if bottom.grad is None else bottom.grad
            close(case, f"gradient of {name}", grad, expected[name])


def test_every_layer_type_has_a_case() -> None:
    types_with_vectors = {kind for case in CASES for kind in load(case)[1]["layer_types"]}
    # data layers and Input, and what writes a file
    without_numbers = {name for name, kind in registered().items() if not kind.bottoms.least} | {"HDF5Output"}
    of_caffe = {name for name, kind in registered().items() if "\n    Caffe: " in (kind.__doc__ or "")}
    assert len(of_caffe) > 50
    assert of_caffe - types_with_vectors - without_numbers == set()
