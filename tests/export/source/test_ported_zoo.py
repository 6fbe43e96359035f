"""Nets of every kind, ported: the same numbers, in readable source."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import paths
import pytest
import torch
from ported_nets import close, compare, executed, give_weights, some_values
from ported_zoo import ZOO, input_layer, layer, pool

import siamese_proto as sp
from siamese_proto.export.source import port
from siamese_proto.export.source.helpers import helper_source
from siamese_proto.proto import schema

ROOT = paths.ROOT
# What the included nets read from databases, which may be missing.
SHAPES = {"pair_data": (4, 2, 28, 28), "pair": (8, 2, 12, 12)}
SIDES = {"face_siamese": (3, 1, 56, 46), "oneshot_siamese": (2, 1, 105, 105), "signature_siamese": (2, 1, 105, 155)}
FILES = [
    *sorted((ROOT / "prototxt").glob("*/*.prototxt")),
    *(ROOT / "tests" / "golden" / place / "net.prototxt" for place in ("flagship", "solver")),
]
NETS = [path for path in FILES if "solver" not in path.stem]


def zoo_net(name: str, phase: str = "TEST") -> sp.Net:
    net = sp.Net(ZOO[name], phase=phase, fuse=False, seed=1)
    with torch.no_grad():  # statistics are zeros at first
        for param in net.graph.params:
            if param.statistic:
                net.tensors[param.id].uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(3))
    return net


@pytest.mark.parametrize("name", ZOO)
def test_a_ported_net_computes_the_same_as_the_net(name: str) -> None:
    net = zoo_net(name)
    module = compare(net, some_values(net))
    learned = [param for param in net.graph.params if not param.statistic]
    assert len(list(module.parameters())) == len(learned)
    assert len(module.state_dict()) == len(net.graph.params)


@pytest.mark.parametrize("name", ["ResNet", "shared statistics", "LeNet twin"])
def test_a_ported_net_computes_the_same_as_the_net_in_training(name: str) -> None:
    net = zoo_net(name, "TRAIN").double()
    # In single precision the gradient of a bias before BatchNorm, which is 0, would be only rounding errors.
    compare(net, some_values(net))


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("path", NETS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_included_nets_are_ported(path: Path, phase: str) -> None:
    text = path.read_text()
    if phase == "TRAIN":  # random numbers differ
        text = re.sub(r"dropout_ratio: [\d.]+", "dropout_ratio: 0", text)
    blobs = sp.build_graph(sp.parse_net(text), phase=phase).blobs()
    shapes = {name: shape for name, shape in SHAPES.items() if name in blobs}
    if "pair" in blobs:
        shapes["sim"] = SHAPES["pair"][:1]
    if path.parent.name in SIDES and "same" in blobs:
        side = SIDES[path.parent.name]
        shapes.update({"data": side, "data_p": side, "same": side[:1]})
    net = sp.Net(text, phase=phase, shapes=shapes, fuse=False, seed=1)
    values = some_values(net)
    is_large = sum(tensor.numel() for tensor in net.tensors.values()) > 4_000_000
    if phase == "TEST":
        same_in_single_precision(net, values)
    if is_large:  # its layers are those of others, and its gradients take minutes
        ported = port(net.graph)
        give_weights(net, executed(ported), ported)
        return
    # In single precision rounding may change which value of a window is the maximum.
    compare(net.double(), values)


def same_in_single_precision(net: sp.Net, values: dict[str, torch.Tensor]) -> None:
    ported = port(net.graph)
    module = executed(ported).eval()
    give_weights(net, module, ported)
    with torch.no_grad():
        results = module(**{argument: values[blob] for blob, argument in ported.inputs.items()})
        results = {ported.outputs[0]: results} if isinstance(results, torch.Tensor) else results
        expected = net(**values)
        for name, output in results.items():
            close(name, output, expected[name], 2e-6)


def test_fused_towers_and_one_tower_class_compute_the_same() -> None:
    plain = zoo_net("triplet")
    fused = sp.Net(plain.graph, seed=1)
    fused.load_state_dict(plain.state_dict())
    compare(fused, some_values(plain), relative=2e-6)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sources of the zoo."""
    folder = tmp_path_factory.mktemp("sources")
    for index, name in enumerate(ZOO):
        (folder / f"net_{index}.py").write_text(sp.emit(zoo_net(name).graph))
    return folder


def test_every_source_is_formatted_and_lint_clean(sources: Path) -> None:
    ruff = [sys.executable, "-m", "ruff"]
    settings = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    formatted = subprocess.run([*ruff, "format", "--diff", *settings, "."], cwd=sources, capture_output=True, text=True)
    assert formatted.returncode == 0, formatted.stdout + formatted.stderr
    # Programs print.
    checked = [*ruff, "check", *settings, "--extend-ignore", "T20", "--output-format", "concise", "."]
    linted = subprocess.run(checked, cwd=sources, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_a_twin_is_one_tower_run_by_forward_once() -> None:
    ported = port(zoo_net("LeNet twin").graph)
    assert ported.source.count("(nn.Module):") == 3  # the tower, the net and the loss
    assert sorted(ported.keys.values()) == [
        f"tower.{layer}.{kind}" for layer in ("conv", "feat", "ip") for kind in ("bias", "weight")
    ]
    module = executed(ported).eval()
    images = torch.rand(3, 1, 9, 11)
    assert torch.equal(module.forward_once(images), module.tower(images))


def test_a_pseudo_siamese_net_is_one_class_with_two_modules() -> None:
    module = executed(port(zoo_net("pseudo-siamese").graph))
    assert type(module.tower_1) is type(module.tower_2)
    assert len(list(module.parameters())) == 12
    assert not hasattr(module, "forward_once")


def test_a_half_twin_shares_its_trunk_and_owns_its_heads() -> None:
    keys = port(zoo_net("half-twin with a trunk").graph).keys.values()
    assert sorted(key for key in keys if key.endswith("weight")) == [
        "feat.weight",
        "feat_p.weight",
        "tower.conv.weight",
        "tower.ip.weight",
    ]


def test_a_ported_net_takes_any_batch_size() -> None:
    net = zoo_net("LeNet twin")
    generator = torch.Generator().manual_seed(5)
    values = {"data": torch.randn(7, 2, 9, 11, generator=generator), "sim": torch.ones(7)}
    compare(net, values)


@pytest.mark.parametrize("name", ["sentences", "sentences that share in part"])
def test_recurrent_layers_continue_from_the_state_of_the_last_batch(name: str) -> None:
    """Layers that share their parameters have separate states."""
    net = zoo_net(name)
    ported = port(net.graph)
    module = executed(ported).eval()
    give_weights(net, module, ported)
    for seed in range(3):
        values = {**some_values(net, seed), "cont": torch.ones(3, 2)}
        results = module(**{argument: values[blob] for blob, argument in ported.inputs.items()})
        results = {ported.outputs[0]: results} if isinstance(results, torch.Tensor) else results
        for blob, expected in net(**values).items():
            assert torch.allclose(results[blob], expected, rtol=1e-6, atol=1e-6)


def test_values_are_drawn_only_in_training_and_in_proportion_to_their_size() -> None:
    text = input_layer("data", 4000, 1, 2, 2) + pool("drawn", "data", "pool: STOCHASTIC kernel_size: 2")
    module = executed(port(sp.build_graph(sp.parse_net(text), phase="TRAIN")))
    data = torch.tensor([1.0, 2, 3, 4]).reshape(1, 1, 2, 2).expand(4000, 1, 2, 2)
    drawn = module.train()(data).flatten()
    shares = torch.stack([(drawn == value).float().mean() for value in (1, 2, 3, 4)])
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.3, 0.4]), rtol=0, atol=0.04)
    torch.testing.assert_close(module.eval()(data).flatten(), torch.full((4000,), 3.0))


def test_a_matrix_from_a_file_is_written_into_the_source(tmp_path: Path) -> None:
    gains = torch.rand(9, 9, generator=torch.Generator().manual_seed(1))
    blob = schema.BlobProto(data=gains.flatten().tolist(), num=1, channels=1, height=9, width=9)
    (tmp_path / "h.binaryproto").write_bytes(blob.SerializeToString())
    settings = f'infogain_loss_param {{ source: "{tmp_path}/h.binaryproto" }}'
    text = (
        input_layer("data", 4, 9) + input_layer("label", 4) + layer("loss", "InfogainLoss", "data label", "", settings)
    )
    net = sp.Net(text)
    compare(net, some_values(net))
    source = sp.emit(net.graph)
    ruff = [sys.executable, "-m", "ruff", "format", "--check", "--no-cache", "--isolated", "--line-length", "120", "-"]
    assert subprocess.run(ruff, input=source, text=True, capture_output=True, check=False).returncode == 0
    large = schema.BlobProto(data=[1.0] * 40**2, num=1, channels=1, height=40, width=40)
    (tmp_path / "h.binaryproto").write_bytes(large.SerializeToString())
    with pytest.raises(sp.NetError, match=r"layer 'loss': H of 40 x 40 numbers in source '.*' is too large for"):
        sp.emit(sp.build_graph(sp.parse_net(text.replace("dim: 9", "dim: 40"))))


def test_helpers_have_different_names() -> None:
    layers = (ROOT / "siamese_proto" / "layers").glob("*.py")
    helpers = sorted({name for path in layers for name in re.findall(r"functional\.\w+\.\w+", path.read_text())})
    assert len(helpers) > 20
    texts, imports = helper_source(helpers)
    assert len(texts) > len(helpers)
    assert {module.partition(".")[0] for module, _ in imports} <= {"torch", *sys.stdlib_module_names}
