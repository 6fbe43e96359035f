"""Nets as ONNX models: onnxruntime computes what the net computes, under the net's names."""

from __future__ import annotations

import sys
from pathlib import Path

import onnx
import paths
import pytest
import torch
from click.testing import CliRunner, Result
from onnx_nets import compare, run
from ported_nets import some_values
from ported_zoo import ALL, CONTRASTIVE, LABELLED, ZOO, input_layer, layer, lenet, product

import siamese_proto as sp
from siamese_proto.cli import main
from siamese_proto.export.deploy import deploy
from siamese_proto.export.onnx import make_onnx

pytestmark = pytest.mark.slow

GOLDEN = paths.GOLDEN
FLAGSHIP = GOLDEN / "flagship" / "net.prototxt"
WEIGHTS = GOLDEN / "flagship" / "snap_iter_100.caffemodel"
PAIRS = {"pair_data": (64, 2, 28, 28)}
# These contain all layers of the other nets of the zoo; an export takes seconds.
CHOSEN = ["LeNet twin", "half-twin with own biases", "triplet", "ResNet", "AlexNet", "FCN", "tied", "functions"]
CHOSEN += ["shapes", "odd windows", "columns", "sentences"]
# A Reshape to a size, and softmax losses, which count their labels when they are traced.
FIXED = {"shapes", "FCN", "sentences"}


@pytest.mark.parametrize("name", CHOSEN)
def test_onnxruntime_computes_the_same_as_the_net(name: str) -> None:
    net = sp.Net(ZOO[name], seed=1)
    with torch.no_grad():  # statistics are zeros at first
        for param in net.graph.params:
            if param.statistic:
                net.tensors[param.id].uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(3))
    model = compare(net, some_values(net))
    assert model.any_batch == (name not in FIXED)
    stored = onnx.load_from_string(model.content).graph.initializer
    assert len([value for value in stored if "/" in value.name]) == len(net.graph.params)


def test_the_flagship_and_its_tower_keep_their_names_and_share_their_parameters() -> None:
    net = sp.Net(FLAGSHIP, weights=WEIGHTS, shapes=PAIRS)
    model = compare(net, some_values(net))
    assert (model.inputs, model.outputs) == (("pair_data", "sim"), ("loss",))
    stored = {value.name for value in onnx.load_from_string(model.content).graph.initializer}
    layers = ("conv1", "conv2", "ip1", "ip2", "feat")
    assert {name for name in stored if "/" in name} == {f"{layer}/{index}" for layer in layers for index in (0, 1)}
    tower = sp.Net(deploy(sp.parse_net(FLAGSHIP), shapes=PAIRS).text, weights=WEIGHTS)
    model = compare(tower, {"data": torch.rand(7, 1, 28, 28, generator=torch.Generator().manual_seed(2))})
    assert (model.inputs, model.outputs, model.any_batch) == (("data",), ("feat",), True)


def test_the_model_contains_nothing_about_the_machine() -> None:
    net = sp.Net(ZOO["LeNet twin"], seed=1)
    content = make_onnx(net.graph, net.tensors).content
    for place in (str(Path(sp.__file__).parent), str(Path(torch.__file__).parent), "site-packages", ".py"):
        assert place.encode() not in content
    assert any(node.name.startswith("conv_p/") for node in onnx.load_from_string(content).graph.node)


def test_equal_outputs_and_unusual_names_are_distinguished() -> None:
    text = (
        input_layer("data", 2, 5)
        + product("ip", "data", 4)
        + layer("split", "Split", "ip", "ip/Gemm:0 ip/0")
        + layer("kept", "Power", "data", "w.q{x}")
    )
    net = sp.Net(text, seed=1)
    assert set(compare(net, {"data": torch.rand(6, 5)}).outputs) == {"ip/Gemm:0", "ip/0", "w.q{x}"}


def test_any_name_can_be_written() -> None:
    names = ('"""\n; import os', "\u6f22\u5b57 \U0001f600", "a" * 300, "\x00\x1f")
    message = sp.parse_net(
        input_layer("data", 2, 5) + "".join(product(f"ip{i}", "data", 4) for i in range(len(names)))
    ).message
    for layer_message, name in zip(message.layer[1:], names, strict=True):
        layer_message.name = layer_message.top[0] = name
    assert set(compare(sp.Net(message, seed=1), {"data": torch.rand(3, 5)}).outputs) == set(names)


def test_exporting_does_not_change_the_net() -> None:
    text = input_layer("data", 3, 2, 4) + layer(
        "bn", "BatchNorm", "data", "", "batch_norm_param { use_global_stats: false }"
    )
    net = sp.Net(text, seed=1)
    before = {name: tensor.clone() for name, tensor in net.tensors.items()}
    values = some_values(net)
    make_onnx(net.graph, net.tensors)
    assert all(torch.equal(net.tensors[name], tensor) for name, tensor in before.items())
    compare(net, values)


def test_a_model_computes_evaluation_in_any_mode_of_the_net() -> None:
    text = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
      inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
    layer { name: "bn" type: "BatchNorm" bottom: "y" top: "y" }
    layer { name: "drop" type: "Dropout" bottom: "y" top: "y" }"""
    net = sp.Net(text, "TEST", seed=1).train()
    x = torch.rand(4, 3)
    net(x=x)  # to fill the statistics
    model = make_onnx(net.graph, net.tensors)
    output = run(model.content, {"x": x})["y"]
    torch.testing.assert_close(torch.tensor(output), net.eval()(x=x)["y"].detach(), rtol=1e-4, atol=1e-4)


def test_recurrent_layers_start_without_state_and_are_reported() -> None:
    settings = 'recurrent_param { num_output: 4 weight_filler { type: "gaussian" } }'
    text = input_layer("x", 3, 2, 5) + input_layer("cont", 3, 2) + layer("lstm", "LSTM", "x cont", "", settings)
    net = sp.Net(text, seed=1)
    model = compare(net, {"x": torch.rand(3, 2, 5), "cont": torch.ones(3, 2)})
    assert (model.stateless, model.any_batch) == (("lstm",), False)
    net.run_state.carried.clear()
    compare(net, {"x": torch.rand(3, 2, 5), "cont": torch.ones(3, 2)})  # the traced values are not saved


@pytest.mark.parametrize(
    ("text", "phase", "message"),
    [
        (
            input_layer("data", 2, 3) + layer("drop", "Dropout", "data", "y", "phase: TRAIN"),
            "TEST",
            "<text>:2: layer 'drop': a layer of type Dropout (0.5) cannot be exported to ONNX: it draws at random",
        ),
        (
            input_layer("data", 2, 3, 10, 11)
            + layer("ok", "ReLU", "data")
            + layer("drawn", "Pooling", "data", "y", "phase: TRAIN pooling_param { pool: STOCHASTIC kernel_size: 2 }"),
            "TEST",
            "<text>:3: layer 'drawn': a layer of type Pooling (STOCHASTIC 2x2/1) cannot be exported to ONNX: it "
            "draws at random",
        ),
        (input_layer("data", 2, 3) + layer("y", "ReLU", "data"), "TRAIN", "needs a graph of phase TEST"),
        (input_layer("data", 2, 3), "TEST", "the net computes nothing"),
    ],
)
def test_layers_that_cannot_be_exported_are_reported_with_their_place(text: str, phase: str, message: str) -> None:
    net = sp.Net(text, phase=phase, seed=1)
    with pytest.raises(sp.NetError) as raised:
        make_onnx(net.graph, net.tensors)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_layer_that_onnx_computes_differently_is_never_written(monkeypatch: pytest.MonkeyPatch) -> None:
    net = sp.Net(input_layer("data", 2, 3) + layer("y", "Sigmoid", "data"), seed=1)
    monkeypatch.setattr("siamese_proto.export.onnx.model._TOLERANCE", -1.0)
    with pytest.raises(sp.NetError, match="onnxruntime computes blob 'y' with a difference of up to"):
        make_onnx(net.graph, net.tensors)


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_port_and_convert_write_the_same_model(tmp_path: Path) -> None:
    (tmp_path / "tower.prototxt").write_text(deploy(sp.parse_net(FLAGSHIP), shapes=PAIRS).text)
    done = command(
        *("port", tmp_path / "tower.prototxt", "--weights", WEIGHTS, "--format", "onnx"), "-o", tmp_path / "a.onnx"
    )
    assert done.exit_code == 0, done.output
    assert "a.onnx: written, data -> feat, any batch; onnxruntime computes the same within " in done.stdout
    done = command("convert", tmp_path / "tower.prototxt", tmp_path / "b.onnx", "--weights", WEIGHTS)
    assert (done.exit_code, done.stderr) == (0, "")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    data = torch.rand(2, 1, 28, 28)
    tower = sp.Net(tmp_path / "tower.prototxt", weights=WEIGHTS)
    output = run((tmp_path / "a.onnx").read_bytes(), {"data": data})["feat"]
    torch.testing.assert_close(torch.from_numpy(output), tower(data=data)["feat"].detach(), rtol=1e-5, atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx", "tower.prototxt"]


def test_a_missing_package_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.prototxt").write_text(
        LABELLED + lenet("", "left", **ALL) + lenet("_p", "right", **ALL) + CONTRASTIVE
    )
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    done = command("convert", tmp_path / "net.prototxt", tmp_path / "net.onnx")
    assert (done.exit_code, done.stderr) == (
        1,
        "ONNX needs the package onnxscript, which is not installed: python -m pip install 'siamese-proto[onnx]'\n",
    )
    assert not (tmp_path / "net.onnx").exists()


def test_wrong_usage_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(input_layer("data", 2, 3) + product("ip", "data", 2))
    Path("w.caffemodel").write_bytes(WEIGHTS.read_bytes())
    for arguments, message in (
        (
            ("port", "net.prototxt", "--format", "onnx", "-o", "m.py"),
            "m.py: the name of an ONNX model must end with .onnx",
        ),
        (
            ("convert", "w.caffemodel", "m.onnx"),
            "contains only weights; ONNX needs the net too: convert NET.prototxt m.onnx",
        ),
        (
            ("convert", "w.caffemodel", "m.pt", "--weights", "w.caffemodel"),
            "--weights applies to a net that is converted to ONNX",
        ),
        (("convert", "net.prototxt", "m.onnx", "--weights", "w.caffemodel"), "belongs to another net"),
        (("convert", "none.prototxt", "m.onnx"), "none.prototxt: No such file or directory"),
    ):
        done = command(*arguments)
        assert done.exit_code == 1
        assert message in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.prototxt", "w.caffemodel"]
    done = command("convert", "net.prototxt", "m.onnx")
    assert "note: without --weights, the parameters have their initial values" in done.stderr
