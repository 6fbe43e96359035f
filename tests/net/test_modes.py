"""train() and eval() follow torch: they change what layers do, not which layers a net has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from ported_nets import executed, give_weights
from torch import Tensor

import siamese_proto as sp
from siamese_proto.export.source import port
from siamese_proto.layers import base
from siamese_proto.layers.base import RunState
from siamese_proto.net.part import Part

SHAPE = (4, 3, 6, 8)


class Noisy(sp.Layer):
    """`y = x + 1` in TRAIN, `y = x` in TEST, by the phase read once, and `-y` by the phase read at each pass."""

    def read(self, message) -> None:
        self.shift = 1.0 if self.phase == "TRAIN" else 0.0

    def top_shapes(self, bottoms):
        return [bottoms[0]]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        y = bottoms[0] + self.shift
        return [-y if self.phase == "TRAIN" else y]

    def rows_independent(self) -> bool:
        return self.phase == "TEST"


@pytest.fixture(autouse=True)
def registered_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_REGISTERED", dict(base._REGISTERED))
    sp.layer("NoisyInModes")(Noisy)


# Layers that behave differently in training, in each of two towers.
STATISTICS = "".join(f'param {{ name: "{name}" }}' for name in ("mean", "variance", "factor"))
LAYERS = {
    "Dropout": 'type: "Dropout"',
    "ChannelDropout": 'type: "ChannelDropout" dropout_param { dropout_ratio: 0.4 }',
    "BatchNorm": 'type: "BatchNorm" batch_norm_param { moving_average_fraction: 0.9 }',
    "BatchNorm-shared": f'type: "BatchNorm" {STATISTICS}',
    "Pooling": 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }',
    "SPP": 'type: "SPP" spp_param { pool: STOCHASTIC pyramid_height: 2 }',
    "user": 'type: "NoisyInModes"',
}
# Layers with a fixed phase.
FIXED = {
    "Dropout-TRAIN": 'type: "Dropout" phase: TRAIN',
    "Dropout-TEST": 'type: "Dropout" phase: TEST',
    "ChannelDropout-TRAIN": 'type: "ChannelDropout" phase: TRAIN',
    "BatchNorm-batch": 'type: "BatchNorm" batch_norm_param { use_global_stats: false }',
    "BatchNorm-stored": 'type: "BatchNorm" batch_norm_param { use_global_stats: true }',
    "BatchNorm-TRAIN": 'type: "BatchNorm" phase: TRAIN',
    "Pooling-TEST": 'type: "Pooling" phase: TEST pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }',
    "SPP-TRAIN": 'type: "SPP" phase: TRAIN spp_param { pool: STOCHASTIC pyramid_height: 2 }',
    "user-TRAIN": 'type: "NoisyInModes" phase: TRAIN',
}


def twin(layer: str) -> str:
    """Two towers that share a convolution, rectified so that STOCHASTIC pooling has what it needs."""
    dims = " ".join(f"dim: {size}" for size in SHAPE)
    text = ""
    for side in "ab":
        text += f"""
        layer {{ name: "in_{side}" type: "Input" top: "{side}" input_param {{ shape {{ {dims} }} }} }}
        layer {{ name: "conv_{side}" type: "Convolution" bottom: "{side}" top: "c{side}"
          param {{ name: "w" }} param {{ name: "b" }}
          convolution_param {{ num_output: 5 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "relu_{side}" type: "ReLU" bottom: "c{side}" top: "c{side}" }}
        layer {{ name: "layer_{side}" bottom: "c{side}" top: "y{side}" {layer} }}"""
    return text


def batch(seed: int = 1) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {side: torch.randn(SHAPE, generator=draw) * 2 + 1 for side in "ab"}


def assert_same(outputs: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(outputs) == list(expected)
    for name, value in expected.items():
        assert torch.equal(outputs[name], value), name


def state(net: sp.Net) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def test_a_net_starts_in_the_mode_of_its_phase() -> None:
    train, test = sp.Net(twin(LAYERS["Dropout"]), "TRAIN"), sp.Net(twin(LAYERS["Dropout"]), "TEST")
    assert all(module.training for module in train.modules())
    assert not any(module.training for module in test.modules())
    assert train.eval() is train
    assert not train.training


@pytest.mark.slow
@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("layer", [*LAYERS, *FIXED])
def test_a_train_net_in_eval_mode_computes_what_a_test_net_does(layer: str, fuse: bool) -> None:
    text = twin({**LAYERS, **FIXED}[layer])
    net = sp.Net(text, "TRAIN", seed=1, fuse=fuse)
    for seed in range(3):
        net(**batch(seed))
    test = sp.Net(text, "TEST", seed=1, fuse=fuse, share_with=net)
    test.run_state.draw = net.run_state.draw
    before = state(net)
    outputs = net.eval()(**batch())
    mine = state(net)
    net.load_state_dict(before)
    assert_same(outputs, test(**batch()))
    assert_same(mine, state(test))


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("layer", [*LAYERS, *FIXED])
def test_a_test_net_in_train_mode_computes_what_a_train_net_does(layer: str, fuse: bool) -> None:
    text = twin({**LAYERS, **FIXED}[layer])
    train, test = (sp.Net(text, phase, seed=1, fuse=fuse) for phase in ("TRAIN", "TEST"))
    test.train()
    for seed in range(2):
        assert_same(test(**batch(seed)), train(**batch(seed)))
    assert_same(state(test), state(train))


@pytest.mark.parametrize("layer", LAYERS)
def test_the_two_modes_differ(layer: str) -> None:
    net = sp.Net(twin(LAYERS[layer]), "TRAIN", seed=1)
    train = net(**batch())["ya"]
    assert not torch.equal(net.eval()(**batch())["ya"], train)


@pytest.mark.parametrize("layer", FIXED)
def test_a_layer_with_a_fixed_phase_keeps_it_in_both_modes(layer: str) -> None:
    outputs = []
    for mode in (True, False):
        net = sp.Net(twin(FIXED[layer]), "TRAIN", seed=1)
        outputs.append(net.train(mode)(**batch()))
    assert_same(*outputs)


def test_eval_does_not_change_units_and_statistics() -> None:
    text = twin(LAYERS["BatchNorm"]) + 'layer { name: "drop" type: "Dropout" bottom: "ya" top: "ya" }'
    net = sp.Net(text, "TRAIN", seed=1)
    net(**batch(7))
    before = state(net)
    mean, variance, factor = net.params["layer_a"]
    outputs = net.eval()(**batch())["ya"]
    assert_same(state(net), before)
    x = torch.nn.functional.conv2d(batch()["a"], *net.params["conv_a"]).relu()
    expected = (x - (mean / factor)[:, None, None]) / (variance / factor + 1e-5).sqrt()[:, None, None]
    torch.testing.assert_close(outputs, expected, rtol=1e-5, atol=1e-5)


def test_train_continues_after_eval() -> None:
    nets = [sp.Net(twin(LAYERS["BatchNorm-shared"]), "TRAIN", seed=1) for _ in range(2)]
    for net in nets:
        net(**batch(1))
    nets[0].eval()(**batch(2))
    assert_same(nets[0].train()(**batch(3)), nets[1](**batch(3)))
    assert_same(state(nets[0]), state(nets[1]))


def test_towers_are_fused_as_far_as_the_mode_allows() -> None:
    """BatchNorm mixes rows in training, so the towers part before it; in evaluation it is one layer for both."""
    net = sp.Net(twin(f'type: "BatchNorm" {STATISTICS}'), "TRAIN")
    counts = [
        [node.type for node in net.train(mode).fused_graph.nodes].count("BatchNorm") for mode in (True, False, True)
    ]
    assert counts == [2, 1, 2]


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "user"])
def test_fused_and_plain_agree_in_both_modes(layer: str, phase: str, mode: bool) -> None:
    nets = [sp.Net(twin(LAYERS[layer]), phase, seed=1, fuse=fuse).double().train(mode) for fuse in (True, False)]
    for net in nets:
        outputs = net(**{name: blob.double() for name, blob in batch().items()})
        sum(output.sin().sum() for output in outputs.values()).backward()
    for mine, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    for mine, theirs in zip(nets[0].buffers(), nets[1].buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_layers_sources_and_crops_stay_with_the_phase() -> None:
    text = """
    layer { name: "train" type: "DummyData" top: "x" include { phase: TRAIN }
      dummy_data_param { shape { dim: 2 dim: 3 } data_filler { type: "gaussian" std: 1 } } }
    layer { name: "test" type: "DummyData" top: "x" include { phase: TEST }
      dummy_data_param { shape { dim: 5 dim: 3 } data_filler { value: 2 } } }
    layer { name: "drop" type: "Dropout" bottom: "x" top: "x" }
    layer { name: "loss" type: "Reduction" bottom: "x" top: "loss" loss_weight: 1 include { phase: TRAIN } }"""
    net = sp.Net(text, "TRAIN", seed=1)
    source = net.graph.nodes[0].layer
    net.eval()
    assert [node.name for node in net.graph.nodes] == ["train", "drop", "loss"]
    assert net.graph.nodes[0].layer is source
    assert net.graph.phase == source.phase == "TRAIN"
    blobs = net.blobs()
    assert blobs["x"].shape == (2, 3)
    torch.testing.assert_close(blobs["loss"], blobs["x"].sum())


def test_a_net_from_the_graph_of_a_net_in_eval_mode_starts_in_its_phase() -> None:
    net = sp.Net(twin(LAYERS["Dropout"]), "TRAIN", seed=1).eval()
    other = sp.Net(net.graph, seed=1)
    assert other.training
    assert (other(**batch())["ya"] == 0).float().mean() > (net(**batch())["ya"] == 0).float().mean() + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["Dropout", "BatchNorm", "Pooling"])
def test_a_compiled_program_follows_the_mode(layer: str) -> None:
    nets = [sp.Net(twin(LAYERS[layer]), "TRAIN", seed=1) for _ in range(2)]
    nets[0].run_as(compiled=True)
    nets[0]._compiler = lambda program: torch.compile(
        program, backend="aot_eager"
    )  # without waiting for a C++ compiler
    for mode in (True, False, True):
        plain = nets[1].train(mode)(**batch())
        for name, outputs in nets[0].train(mode)(**batch()).items():
            torch.testing.assert_close(outputs, plain[name])


def test_states_of_recurrent_layers_and_files_survive_a_change_of_mode(tmp_path: Path) -> None:
    path = tmp_path / "out.h5"
    text = f"""
    layer {{ name: "in" type: "Input" top: "x" top: "cont"
      input_param {{ shape {{ dim: 2 dim: 3 dim: 4 }} shape {{ dim: 2 dim: 3 }} }} }}
    layer {{ name: "rnn" type: "RNN" bottom: "x" bottom: "cont" top: "y"
      recurrent_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "out" type: "HDF5Output" bottom: "y" bottom: "cont" hdf5_output_param {{ file_name: "{path}" }} }}"""
    x = torch.randn(2, 3, 4)
    outputs = []
    for modes in ([True, True], [True, False]):
        net = sp.Net(text, "TRAIN", seed=1)
        for mode in modes:
            net.train(mode)(x=x, cont=torch.ones(2, 3))
        net.close()
        with h5py.File(path) as file:
            outputs.append(np.array(file["data"]))
    assert outputs[0].shape == (4, 3, 5, 1)
    np.testing.assert_array_equal(*outputs)


PYTHON = """
class Mode:
    def setup(self, bottom, top):
        self.seen = []
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        self.seen.append(self.phase)
        top[0].data[...] = bottom[0].data + self.phase
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff * (10 + self.phase)
"""


def test_a_python_layer_reads_the_mode_in_its_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mode_layer.py").write_text(PYTHON)
    text = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "mode" type: "Python" bottom: "x" top: "y" python_param { module: "mode_layer" layer: "Mode" } }"""
    net = sp.Net(text, "TRAIN", allow_python_layers=True)
    x = torch.zeros(2, 3, requires_grad=True)
    trained = net(x=x)["y"]
    assert net.eval()(x=torch.zeros(2, 3))["y"].tolist() == [[1] * 3] * 2
    trained.sum().backward()  # of the pass in training mode, despite another pass in between
    assert x.grad is not None
    assert x.grad.tolist() == [[10] * 3] * 2
    assert net.graph.nodes[1].layer.worker.object.seen == [0, 1, 0]


@pytest.mark.slow
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("layer", [name for name in [*LAYERS, *FIXED] if not name.startswith("user")])
def test_ported_source_follows_the_mode_as_the_net_does(layer: str, phase: str, mode: bool) -> None:
    net = sp.Net(twin({**LAYERS, **FIXED}[layer]), phase, seed=1)
    ported = port(net.graph)
    module = executed(ported)
    net.train()(**batch(5))  # to fill the statistics
    give_weights(net, module, ported)
    outputs = module.train(mode)(*batch().values())
    expected = net.train(mode)(**batch())
    again = net(**batch())
    for name, value in expected.items():
        if torch.equal(value, again[name]) or "BatchNorm" in layer:
            torch.testing.assert_close(outputs[name], value, rtol=1e-5, atol=1e-5)
        else:  # random: torch draws other numbers
            assert not torch.equal(outputs[name], module(*batch().values())[name])


@pytest.mark.parametrize("own", ["", "phase: TRAIN"])
def test_ported_dropout_of_channels_follows_the_mode_with_any_number_of_axes(own: str) -> None:
    text = f"""
    layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 20 dim: 30 dim: 4 }} }} }}
    layer {{ name: "drop" type: "ChannelDropout" bottom: "x" top: "y" {own}
      dropout_param {{ dropout_ratio: 0.25 }} }}"""
    module = executed(port(sp.Net(text, "TRAIN").graph))
    x = torch.rand(20, 30, 4) + 1
    y = module.train()(x)
    is_drawn = (y != 0).all(2)
    assert torch.equal(is_drawn, (y != 0).any(2))  # whole channels
    assert 0.6 < is_drawn.float().mean() < 0.9
    torch.testing.assert_close(y[is_drawn], x[is_drawn] / 0.75)
    assert torch.equal(module.eval()(x), x) == (not own)


def test_evaluating_a_twin_does_not_depend_on_the_mode() -> None:
    net = sp.Net(twin(LAYERS["Dropout"]), "TEST", seed=1)
    blobs = net.graph.blobs()
    expected = net(**batch())["ya"]
    (outputs,) = Part(net.train(), [blobs["a"]], [blobs["ya"]])(batch()["a"])
    assert torch.equal(outputs, expected)
