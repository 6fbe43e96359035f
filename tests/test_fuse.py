"""Towers run as one: the same outputs and gradients as one by one, wherever rows do not mix, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import siamese_proto as sp
from siamese_proto.fuse import fuse_towers
from siamese_proto.graph.ir import Phase
from siamese_proto.program import is_source

FLAGSHIP = Path(__file__).parent / "golden" / "flagship" / "net.prototxt"
PROTOTXT = Path(__file__).resolve().parents[1] / "prototxt"


def tower(name: str, data: str, *layers: str) -> str:
    """Layers one on the other; each names its type and settings, and shares its parameters with its like."""
    text, bottom = "", data
    for index, described in enumerate(layers):
        kind, _, rest = described.partition(" ")
        shared = kind in ("Convolution", "InnerProduct")
        params = f'param {{ name: "w{index}" }} param {{ name: "b{index}" }}' if shared else ""
        top = bottom if kind == "ReLU" else f"{name}{index}"
        text += f'layer {{ name: "{name}{index}" type: "{kind}" bottom: "{bottom}" top: "{top}" {params} {rest} }}\n'
        bottom = top
    return text


def inputs(count: int, *shape: int) -> str:
    dims = " ".join(f"dim: {size}" for size in shape)
    return "".join(
        f'layer {{ name: "in{index}" type: "Input" top: "x{index}" input_param {{ shape {{ {dims} }} }} }}\n'
        for index in range(count)
    )


CONVOLUTION = "Convolution convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: 'xavier' } }"
POOL = "Pooling pooling_param { kernel_size: 2 stride: 2 }"
PRODUCT = "InnerProduct inner_product_param { num_output: 5 weight_filler { type: 'xavier' } }"


def compare(text: str, batch: dict[str, torch.Tensor], phase: Phase = "TRAIN") -> tuple[sp.Net, set[str]]:
    """Run both ways in float64; outputs and gradients must agree. Gives the fused net and its layers' types."""
    fused, plain = (sp.Net(text, phase, seed=4, fuse=fuse).double() for fuse in (True, False))
    given = [{name: tensor.double().requires_grad_() for name, tensor in batch.items()} for _ in range(2)]
    outputs = [net(**blobs) for net, blobs in zip((fused, plain), given, strict=True)]
    assert list(outputs[0]) == list(outputs[1])
    for name, output in outputs[0].items():
        torch.testing.assert_close(output, outputs[1][name])
    for found in outputs:
        sum((blob * torch.arange(1.0, blob.numel() + 1).view(blob.shape)).sum() for blob in found.values()).backward()
    tensors = [[*net.parameters(), *blobs.values()] for net, blobs in zip((fused, plain), given, strict=True)]
    for mine, theirs in zip(*tensors, strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad)
    return fused, {node.type for node in fused.fused_graph.nodes}


def test_the_flagship_runs_its_towers_as_one() -> None:
    graph = sp.build_graph(sp.parse_net(FLAGSHIP), shapes={"pair_data": (64, 2, 28, 28)})
    fused, nodes = fuse_towers(graph)
    assert [node.type for node in fused.nodes] == [
        "Data", "Slice", "JoinBatches", "Convolution", "Pooling", "Convolution", "Pooling", "InnerProduct", "ReLU",
        "InnerProduct", "InnerProduct", "PartBatches", "ContrastiveLoss",
    ]  # fmt: skip  # one word a layer, not one line
    assert len(nodes) == 16
    assert fused.params == graph.params
    assert fused.outputs == graph.outputs


@pytest.mark.parametrize("count", [2, 3, 9])
def test_any_number_of_towers_of_other_batch_sizes_gives_the_same(count: int) -> None:
    layers = (CONVOLUTION, POOL, PRODUCT, "ReLU", PRODUCT)
    text = inputs(count, 2, 3, 8, 7) + "".join(tower(f"t{i}_", f"x{i}", *layers) for i in range(count))
    batch = {f"x{i}": torch.randn(i + 1, 3, 8, 7) for i in range(count)}
    net, types = compare(text, batch)
    assert {"JoinBatches", "PartBatches"} <= types
    assert len(fuse_towers(net.graph)[0].nodes) == count + 1 + len(layers) + 1


def test_only_the_shared_part_of_a_half_twin_is_fused() -> None:
    own = (
        'layer {{ name: "own{0}" type: "InnerProduct" bottom: "t{0}_0" top: "own{0}" '
        'inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}\n'
    )
    text = inputs(2, 2, 6) + "".join(tower(f"t{i}_", f"x{i}", PRODUCT) + own.format(i) for i in range(2))
    net, types = compare(text, {f"x{i}": torch.randn(4, 6) for i in range(2)})
    assert {"JoinBatches", "PartBatches"} <= types
    assert [node.name for node in net.fused_graph.nodes if node.type == "InnerProduct"] == ["t0_0", "own0", "own1"]


def test_what_is_read_inside_a_tower_is_taken_apart_for_its_reader() -> None:
    text = inputs(2, 2, 6) + "".join(tower(f"t{i}_", f"x{i}", PRODUCT, "ReLU", PRODUCT) for i in range(2))
    text += 'layer { name: "peek" type: "Power" bottom: "t1_0" top: "peek" power_param { scale: 3 } }\n'
    _, types = compare(text, {f"x{i}": torch.randn(4, 6) for i in range(2)})
    assert "PartBatches" in types


def test_a_tower_that_reads_the_other_is_not_fused_with_it() -> None:
    text = inputs(1, 2, 5) + tower("a_", "x0", PRODUCT) + tower("b_", "a_0", PRODUCT)
    _, types = compare(text, {"x0": torch.randn(4, 5)})
    assert "JoinBatches" not in types


@pytest.mark.parametrize(
    "difference",
    [
        ("param { lr_mult: 0 name: 'w0' } param { name: 'b0' }", "param { name: 'w0' } param { name: 'b0' }"),
        ("param { name: 'w0' }", "param { name: 'w0' } param { name: 'b0' }"),
        ("propagate_down: false param { name: 'w0' }", "param { name: 'w0' }"),
        ("loss_weight: 1 param { name: 'w0' } param { name: 'b0' }", "param { name: 'w0' } param { name: 'b0' }"),
    ],
)
def test_towers_that_differ_are_not_fused(difference: tuple[str, str]) -> None:
    text = inputs(2, 2, 6) + "".join(
        f'layer {{ name: "t{i}" type: "InnerProduct" bottom: "x{i}" top: "t{i}" {params} '
        "inner_product_param { num_output: 5 weight_filler { type: 'xavier' } } }\n"
        for i, params in enumerate(difference)
    )
    _, types = compare(text, {f"x{i}": torch.randn(4, 6) for i in range(2)})
    assert "JoinBatches" not in types


def test_layers_that_mix_rows_are_run_one_by_one() -> None:
    mixing = "Reshape reshape_param { shape { dim: 3 dim: 4 } }"
    text = inputs(2, 2, 6) + "".join(tower(f"t{i}_", f"x{i}", mixing, PRODUCT) for i in range(2))
    net, _ = compare(text, {f"x{i}": torch.randn(2, 6) for i in range(2)})
    assert [node.type for node in net.fused_graph.nodes].count("Reshape") == 2


def test_dropout_draws_what_it_draws_one_by_one() -> None:
    text = inputs(2, 2, 6) + "".join(tower(f"t{i}_", f"x{i}", PRODUCT, "Dropout", PRODUCT) for i in range(2))
    compare(text, {f"x{i}": torch.randn(4, 6) for i in range(2)})


def test_one_tower_alone_or_a_blob_inside_one_can_still_be_given() -> None:
    text = inputs(2, 2, 6) + "".join(tower(f"t{i}_", f"x{i}", PRODUCT, PRODUCT) for i in range(2))
    fused, plain = sp.Net(text, seed=2), sp.Net(text, seed=2, fuse=False)
    for names in (["x0"], ["x1"], ["x0", "t1_0"], ["t0_0", "t1_0"]):
        batch = {name: torch.randn(3, 6 if name.startswith("x") else 5) for name in names}
        mine, theirs = fused(**batch), plain(**batch)
        assert list(mine) == list(theirs)
        for name, blob in mine.items():
            torch.testing.assert_close(blob, theirs[name])


def test_looking_inside_shows_every_layer_by_itself() -> None:
    text = inputs(2, 2, 6) + "".join(tower(f"t{i}_", f"x{i}", PRODUCT, PRODUCT) for i in range(2))
    blobs = sp.Net(text).blobs(**{f"x{i}": torch.randn(3, 6) for i in range(2)})
    assert list(blobs) == ["x0", "x1", "t0_0", "t0_1", "t1_0", "t1_1"]


LAYERS = st.sampled_from(
    [CONVOLUTION, POOL, PRODUCT, "ReLU", "Sigmoid", "TanH", "Power power_param { scale: 2 }", "AbsVal", "Flatten"]
)


@settings(max_examples=25, deadline=None)
@given(st.lists(LAYERS, min_size=1, max_size=6), st.integers(2, 4), st.data())
def test_nets_drawn_at_random_give_the_same_both_ways(layers: list[str], count: int, data: st.DataObject) -> None:
    flat = False
    kept = []
    for layer in layers:  # no window over what is flat
        if flat and layer in (CONVOLUTION, POOL):
            continue
        flat = flat or layer in (PRODUCT, "Flatten")
        kept.append(layer)
    text = inputs(count, 2, 3, 30, 29) + "".join(tower(f"t{i}_", f"x{i}", *kept) for i in range(count))
    torch.manual_seed(1)
    rows = [data.draw(st.integers(1, 3)) for _ in range(count)]
    compare(text, {f"x{i}": torch.randn(n, 3, 30, 29) for i, n in enumerate(rows)})


SIDES = {"face_siamese": (2, 1, 56, 46), "oneshot_siamese": (2, 1, 105, 105), "signature_siamese": (2, 1, 105, 105)}
NETS = sorted(path for path in PROTOTXT.glob("*/*.prototxt") if path.stem.startswith("train_test"))


LARGE = ("oneshot_siamese", "signature_siamese")  # whose nets for the test are those that train, but for Dropout


@pytest.mark.parametrize(
    ("path", "phase"),
    [
        (path, phase)
        for path in NETS
        for phase in ("TRAIN", "TEST")
        if phase == "TRAIN" or path.parent.name not in LARGE
    ],
    ids=lambda value: f"{value.parent.name}/{value.stem}" if isinstance(value, Path) else value,
)
def test_every_net_of_the_project_gives_the_same_both_ways(path: Path, phase: Phase) -> None:
    side = SIDES.get(path.parent.name, (50 if path.parent.name == "pseudo_siamese" else 3, 1, 28, 28))
    named = {"pair_data": (3, 2, 28, 28), "sim": (3,), "same": side[:1], "first": (1, 50), "later": (27, 50)}
    graph = sp.build_graph(sp.parse_net(path), phase=phase)
    tops = [top.name for node in graph.nodes if is_source(node) for top in node.tops]
    torch.manual_seed(2)
    batch = {top: torch.rand(named.get(top, side)) for top in tops}
    for label in ("sim", "same"):
        if label in batch:
            batch[label] = torch.arange(len(batch[label])) % 2
    if "first" in batch:
        batch["first"], batch["later"] = torch.zeros(1, 50), torch.ones(27, 50)
    shapes = {name: tuple(blob.shape) for name, blob in batch.items()}
    nets = [sp.Net(path, phase, shapes=shapes, seed=4, fuse=fuse).double() for fuse in (True, False)]
    for net in nets:
        for param in net.graph.params:
            if param.statistic:  # zeros at first
                net.tensors[param.id].uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(3))
    outputs = [net(**batch) for net in nets]
    for name, output in outputs[0].items():
        torch.testing.assert_close(output, outputs[1][name])
    for net, found in zip(nets, outputs, strict=True):
        net.loss(found).backward()
    for mine, theirs in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-6, atol=1e-12)
    assert any(node.type == "JoinBatches" for node in nets[0].fused_graph.nodes) == (
        path.parent.name != "pseudo_siamese"  # whose towers share nothing
    )


def test_a_gradient_that_cancels_between_towers_is_zero_to_the_last_bit() -> None:
    torch.manual_seed(3)
    text = inputs(2, 2, 6) + "".join(tower(f"t{i}_", f"x{i}", PRODUCT, "ReLU", PRODUCT, PRODUCT) for i in range(2))
    text += 'layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 2 } } }\n'
    text += 'layer { name: "loss" type: "ContrastiveLoss" bottom: "t0_3" bottom: "t1_3" bottom: "y" top: "loss" }\n'
    net = sp.Net(text, "TRAIN", seed=1)
    net.loss(net(x0=torch.randn(67, 6), x1=torch.randn(67, 6), y=torch.arange(67) % 2)).backward()
    biases = {name: params[1].grad for name, params in net.params.items()}
    assert biases["t0_3"] is not None
    assert not biases["t0_3"].any()
    assert not biases["t0_2"].any()
    assert biases["t0_0"].any()


def shared(kind: str, bottom: str, top: str, settings: str, params: int) -> str:
    names = " ".join(f'param {{ name: "{kind}_{index}" }}' for index in range(params))
    return f'layer {{ name: "{top}" type: "{kind}" bottom: "{bottom}" top: "{top}" {names} {settings} }}\n'


def test_towers_are_fused_through_what_treats_rows_apart() -> None:
    norm = "lrn_param { local_size: 3 }"
    average = "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }"
    text = inputs(2, 2, 3, 9, 8)
    for side in ("left", "right"):
        text += f'layer {{ name: "in_{side}" type: "Power" bottom: "x{int(side == "right")}" top: "{side}" }}\n'
        text += tower(f"{side}_", side, CONVOLUTION, f"LRN {norm}", "Dropout", f"Pooling {average}")
        text += shared("BatchNorm", f"{side}_3", f"{side}_n", "", 3)
        text += shared("Scale", f"{side}_n", f"{side}_s", "scale_param { bias_term: true }", 2)
        text += shared("PReLU", f"{side}_s", f"{side}_r", "", 1)
        text += f'layer {{ name: "e_{side}" type: "Eltwise" bottom: "{side}_s" bottom: "{side}_r" top: "{side}_e" }}\n'
    fused, _ = compare(text, {"x0": torch.randn(2, 3, 9, 8), "x1": torch.randn(5, 3, 9, 8)}, "TEST")
    assert [node.type for node in fused.fused_graph.nodes[2:]] == [
        "JoinBatches", "Power", "Convolution", "LRN", "Dropout", "Pooling", "BatchNorm", "PReLU", "Eltwise",
        "PartBatches",
    ]  # fmt: skip  # one word a layer, not one line; the Scale layer is in the BatchNorm


@pytest.mark.parametrize("kind", ["Dropout", "ChannelDropout"])
def test_random_masks_of_joined_towers_are_those_of_each_by_itself(kind: str) -> None:
    text = inputs(3, 2, 3, 8, 7) + "".join(
        tower(f"t{i}_", f"x{i}", CONVOLUTION, f"{kind} dropout_param {{ dropout_ratio: 0.4 }}", PRODUCT)
        for i in range(3)
    )
    batch = {f"x{i}": torch.randn(i + 2, 3, 8, 7) for i in range(3)}
    fused, _ = compare(text, batch)
    assert [node.type for node in fused.fused_graph.nodes].count(kind) == 1
    again = sp.Net(text, "TRAIN", seed=4)
    first, second = (again(**batch)["t2_2"] for _ in range(2))
    assert not torch.equal(first, second)


def test_bottoms_in_another_order_are_not_mixed_up() -> None:
    text = inputs(2, 2, 6)
    for side, order in ((0, "ab"), (1, "ba")):
        for name in "ab":
            text += shared(
                "InnerProduct", f"x{side}", f"{name}{side}", PRODUCT.removeprefix("InnerProduct"), 2
            ).replace("InnerProduct_", f"{name}_")
        bottoms = " ".join(f'bottom: "{name}{side}"' for name in order)
        weighted = "eltwise_param { coeff: 1 coeff: -2 }"
        text += f'layer {{ name: "e{side}" type: "Eltwise" {bottoms} top: "e{side}" {weighted} }}\n'
    compare(text, {"x0": torch.randn(3, 6), "x1": torch.randn(4, 6)})


def test_a_loss_inside_each_tower_is_computed_for_each() -> None:
    text = inputs(2, 2, 6) + 'layer { name: "y" type: "Input" top: "y" input_param { shape { dim: 2 } } }\n'
    for i in range(2):
        text += tower(f"t{i}_", f"x{i}", PRODUCT, "ReLU", PRODUCT)
        wires = f'bottom: "t{i}_0" bottom: "y" top: "l{i}"'
        text += f'layer {{ name: "l{i}" type: "SoftmaxWithLoss" {wires} loss_weight: 0.3 }}\n'
    text += 'layer { name: "d" type: "Distance" bottom: "t0_2" bottom: "t1_2" top: "d" }\n'
    batch = {"x0": torch.randn(4, 6), "x1": torch.randn(4, 6)}
    fused, plain = (sp.Net(text, "TRAIN", seed=4, fuse=fuse).double() for fuse in (True, False))
    labels = torch.tensor([0.0, 4, 2, 1])
    for net in (fused, plain):
        found = net(**batch, y=labels)
        (net.loss(found) + found["d"].sum()).backward()
    for mine, theirs in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)
    assert [node.type for node in fused.fused_graph.nodes].count("SoftmaxWithLoss") == 2
    assert [node.type for node in fused.fused_graph.nodes].count("InnerProduct") == 2


@pytest.mark.parametrize(
    ("layer", "params", "shape"),
    [
        ("BatchNorm", 3, (4, 6)),
        ("Softmax softmax_param { axis: 0 }", 0, (4, 6)),
        ("Reduction reduction_param { axis: 0 }", 0, (4, 6)),
        ("Flatten flatten_param { axis: 0 }", 0, (4, 6)),
        ("LSTM recurrent_param { num_output: 3 weight_filler { type: 'xavier' } }", 3, (4, 2, 6)),
    ],
)
def test_layers_that_mix_rows_run_for_each_tower(layer: str, params: int, shape: tuple[int, ...]) -> None:
    kind, _, settings_text = layer.partition(" ")
    text = inputs(2, *shape) + 'layer { name: "c" type: "Input" top: "c" input_param { shape { dim: 4 dim: 2 } } }\n'
    for i in range(2):
        text += tower(f"t{i}_", f"x{i}", "Power power_param { scale: 2 }")
        made = shared(kind, f"t{i}_0", f"m{i}", settings_text, params)
        text += made.replace(f'top: "m{i}"', f'bottom: "c" top: "m{i}"') if kind == "LSTM" else made
    batch = {f"x{i}": torch.randn(shape) for i in range(2)}
    if kind == "LSTM":
        batch["c"] = torch.ones(4, 2)
    fused, _ = compare(text, batch)
    assert [node.type for node in fused.fused_graph.nodes].count(kind) == 2


def test_a_python_layer_runs_for_each_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fuse_rows.py").write_text(
        "import caffe\n\n\nclass Doubled(caffe.Layer):\n"
        "    def setup(self, bottom, top):\n        pass\n\n"
        "    def reshape(self, bottom, top):\n        top[0].reshape(*bottom[0].data.shape)\n\n"
        "    def forward(self, bottom, top):\n        top[0].data[...] = 2 * bottom[0].data\n\n"
        "    def backward(self, top, propagate_down, bottom):\n        bottom[0].diff[...] = 2 * top[0].diff\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = inputs(2, 2, 6)
    for i in range(2):
        text += tower(f"t{i}_", f"x{i}", PRODUCT)
        code = 'python_param { module: "fuse_rows" layer: "Doubled" }'
        text += f'layer {{ name: "p{i}" type: "Python" bottom: "t{i}_0" top: "p{i}" {code} }}\n'
    nets = [sp.Net(text, seed=4, fuse=fuse, allow_python_layers=True) for fuse in (True, False)]
    batch = {"x0": torch.randn(3, 6), "x1": torch.randn(3, 6)}
    mine, theirs = (net(**batch) for net in nets)
    for name, blob in mine.items():
        torch.testing.assert_close(blob, theirs[name])
    assert [node.type for node in nets[0].fused_graph.nodes].count("Python") == 2


WIDER = st.sampled_from(
    [
        CONVOLUTION,
        POOL,
        PRODUCT,
        "ReLU",
        "Dropout",
        "ChannelDropout",
        "LRN lrn_param { local_size: 3 }",
        "MVN",
        "ELU",
        "Softmax",
        "Pooling pooling_param { pool: AVE kernel_size: 3 stride: 2 }",
        "Pooling pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }",
        "Reshape reshape_param { shape { dim: 0 dim: -1 } }",
    ]
)


@settings(max_examples=25, deadline=None)
@given(st.lists(WIDER, min_size=1, max_size=6), st.integers(2, 4), st.sampled_from(["TRAIN", "TEST"]), st.data())
def test_nets_with_random_and_normalising_layers_give_the_same_both_ways(
    layers: list[str], count: int, phase: Phase, data: st.DataObject
) -> None:
    kept: list[str] = []
    flat = False
    for layer in layers:  # no window over what is flat
        if flat and layer.partition(" ")[0] in ("Convolution", "Pooling", "LRN", "MVN"):
            continue
        flat = flat or layer.partition(" ")[0] in ("InnerProduct", "Reshape")
        kept.append(layer)
    text = inputs(count, 2, 3, 26, 25) + "".join(tower(f"t{i}_", f"x{i}", *kept) for i in range(count))
    torch.manual_seed(1)
    rows = [data.draw(st.integers(1, 3)) for _ in range(count)]
    compare(text, {f"x{i}": torch.rand(n, 3, 26, 25) for i, n in enumerate(rows)}, phase)
