"""Fused towers: the same outputs and gradients as separate towers, only where rows do not mix."""

from __future__ import annotations

from pathlib import Path

import paths
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import siamese_proto as sp
from siamese_proto.graph.gradient_flow import gradient_flow
from siamese_proto.graph.ir import Phase
from siamese_proto.passes.fuse_towers import fuse_towers
from siamese_proto.passes.rewriting import Rewritten

FLAGSHIP = paths.GOLDEN / "flagship" / "net.prototxt"
PROTOTXT = paths.PROTOTXT


def tower(name: str, data: str, *layers: str) -> str:
    """Return a stack of layers of these types and settings that share parameters with the same layer elsewhere."""
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
    """Check that fused and plain nets agree in float64; return the fused net and the types of its layers."""
    fused, plain = (sp.Net(text, phase, seed=4, fuse=fuse).double() for fuse in (True, False))
    batches = [{name: tensor.double().requires_grad_() for name, tensor in batch.items()} for _ in range(2)]
    outputs = [net(**blobs) for net, blobs in zip((fused, plain), batches, strict=True)]
    assert list(outputs[0]) == list(outputs[1])
    for name, output in outputs[0].items():
        torch.testing.assert_close(output, outputs[1][name])
    for results in outputs:
        sum((blob * torch.arange(1.0, blob.numel() + 1).view(blob.shape)).sum() for blob in results.values()).backward()
    tensors = [[*net.tensors.values(), *blobs.values()] for net, blobs in zip((fused, plain), batches, strict=True)]
    for mine, theirs in zip(*tensors, strict=True):
        torch.testing.assert_close(mine, theirs)  # a forward pass changes statistics
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad)
    return fused, {node.type for node in fused.fused_graph.nodes}


def test_the_flagship_runs_its_towers_as_one() -> None:
    graph = sp.build_graph(sp.parse_net(FLAGSHIP), shapes={"pair_data": (64, 2, 28, 28)})
    rewritten = fuse_towers(graph)
    fused, nodes = rewritten.graph, rewritten.replaced
    assert [node.type for node in fused.nodes] == [
        "Data", "Slice", "JoinBatches", "Convolution", "Pooling", "Convolution", "Pooling", "InnerProduct", "ReLU",
        "InnerProduct", "InnerProduct", "PartBatches", "ContrastiveLoss",
    ]  # fmt: skip  # one word per layer
    assert len(nodes) == 16
    assert fused.params == graph.params
    assert fused.outputs == graph.outputs


@pytest.mark.parametrize("count", [2, 3, 9])
def test_results_do_not_depend_on_the_number_of_towers_or_their_batch_sizes(count: int) -> None:
    layers = (CONVOLUTION, POOL, PRODUCT, "ReLU", PRODUCT)
    text = inputs(count, 2, 3, 8, 7) + "".join(tower(f"t{i}_", f"x{i}", *layers) for i in range(count))
    batch = {f"x{i}": torch.randn(i + 1, 3, 8, 7) for i in range(count)}
    net, types = compare(text, batch)
    assert {"JoinBatches", "PartBatches"} <= types
    assert len(fuse_towers(net.graph).graph.nodes) == count + 1 + len(layers) + 1


def test_only_the_shared_part_of_a_half_twin_is_fused() -> None:
    own = (
        'layer {{ name: "own{0}" type: "InnerProduct" bottom: "t{0}_0" top: "own{0}" '
        'inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}\n'
    )
    text = inputs(2, 2, 6) + "".join(tower(f"t{i}_", f"x{i}", PRODUCT) + own.format(i) for i in range(2))
    net, types = compare(text, {f"x{i}": torch.randn(4, 6) for i in range(2)})
    assert {"JoinBatches", "PartBatches"} <= types
    assert [node.name for node in net.fused_graph.nodes if node.type == "InnerProduct"] == ["t0_0", "own0", "own1"]


def test_a_blob_read_inside_a_tower_is_split_for_its_reader() -> None:
    text = inputs(2, 2, 6) + "".join(tower(f"t{i}_", f"x{i}", PRODUCT, "ReLU", PRODUCT) for i in range(2))
    text += 'layer { name: "peek" type: "Power" bottom: "t1_0" top: "peek" power_param { scale: 3 } }\n'
    _, types = compare(text, {f"x{i}": torch.randn(4, 6) for i in range(2)})
    assert "PartBatches" in types


def test_a_tower_that_reads_another_tower_is_not_fused_with_it() -> None:
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


def test_dropout_draws_the_same_masks_fused_and_one_by_one() -> None:
    text = inputs(2, 2, 6) + "".join(tower(f"t{i}_", f"x{i}", PRODUCT, "Dropout", PRODUCT) for i in range(2))
    compare(text, {f"x{i}": torch.randn(4, 6) for i in range(2)})


def test_a_single_tower_or_a_blob_inside_a_tower_can_still_be_passed() -> None:
    text = inputs(2, 2, 6) + "".join(tower(f"t{i}_", f"x{i}", PRODUCT, PRODUCT) for i in range(2))
    fused, plain = sp.Net(text, seed=2), sp.Net(text, seed=2, fuse=False)
    for names in (["x0"], ["x1"], ["x0", "t1_0"], ["t0_0", "t1_0"]):
        batch = {name: torch.randn(3, 6 if name.startswith("x") else 5) for name in names}
        mine, theirs = fused(**batch), plain(**batch)
        assert list(mine) == list(theirs)
        for name, blob in mine.items():
            torch.testing.assert_close(blob, theirs[name])


def test_inspecting_the_net_shows_every_layer_separately() -> None:
    text = inputs(2, 2, 6) + "".join(tower(f"t{i}_", f"x{i}", PRODUCT, PRODUCT) for i in range(2))
    blobs = sp.Net(text).blobs(**{f"x{i}": torch.randn(3, 6) for i in range(2)})
    assert list(blobs) == ["x0", "x1", "t0_0", "t0_1", "t1_0", "t1_1"]


LAYERS = st.sampled_from(
    [CONVOLUTION, POOL, PRODUCT, "ReLU", "Sigmoid", "TanH", "Power power_param { scale: 2 }", "AbsVal", "Flatten"]
)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(LAYERS, min_size=1, max_size=6), st.integers(2, 4), st.data())
def test_random_nets_give_equal_results_fused_and_plain(layers: list[str], count: int, data: st.DataObject) -> None:
    flat = False
    layers = []
    for layer in layers:  # no window over a flat blob
        if flat and layer in (CONVOLUTION, POOL):
            continue
        flat = flat or layer in (PRODUCT, "Flatten")
        layers.append(layer)
    text = inputs(count, 2, 3, 30, 29) + "".join(tower(f"t{i}_", f"x{i}", *layers) for i in range(count))
    torch.manual_seed(1)
    rows = [data.draw(st.integers(1, 3)) for _ in range(count)]
    compare(text, {f"x{i}": torch.randn(n, 3, 30, 29) for i, n in enumerate(rows)})


SIDES = {"face_siamese": (2, 1, 56, 46), "oneshot_siamese": (2, 1, 105, 105), "signature_siamese": (2, 1, 105, 105)}
NETS = sorted(path for path in PROTOTXT.glob("*/*.prototxt") if path.stem.startswith("train_test"))


LARGE = ("oneshot_siamese", "signature_siamese")  # whose test nets equal the training nets except for Dropout


@pytest.mark.slow
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
def test_every_included_net_gives_equal_results_fused_and_plain(path: Path, phase: Phase) -> None:
    side = SIDES.get(path.parent.name, (50 if path.parent.name == "pseudo_siamese" else 3, 1, 28, 28))
    named = {"pair_data": (3, 2, 28, 28), "sim": (3,), "same": side[:1], "first": (1, 50), "later": (27, 50)}
    graph = sp.build_graph(sp.parse_net(path), phase=phase)
    tops = [top.name for node in graph.nodes if node.is_source for top in node.tops]
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
    for net, results in zip(nets, outputs, strict=True):
        net.loss(results).backward()
    for mine, theirs in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-6, atol=1e-12)
    assert any(node.type == "JoinBatches" for node in nets[0].fused_graph.nodes) == (
        path.parent.name != "pseudo_siamese"  # whose towers do not share parameters
    )


def test_a_gradient_that_cancels_between_towers_is_exactly_zero() -> None:
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


def test_towers_are_fused_through_layers_that_do_not_mix_rows() -> None:
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
    ]  # fmt: skip  # one word per layer; the Scale layer is in the BatchNorm


@pytest.mark.parametrize("kind", ["Dropout", "ChannelDropout"])
def test_random_masks_of_fused_towers_equal_those_of_separate_towers(kind: str) -> None:
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
        results = net(**batch, y=labels)
        (net.loss(results) + results["d"].sum()).backward()
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
        declared = shared(kind, f"t{i}_0", f"m{i}", settings_text, params)
        text += declared.replace(f'top: "m{i}"', f'bottom: "c" top: "m{i}"') if kind == "LSTM" else declared
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


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(WIDER, min_size=1, max_size=6), st.integers(2, 4), st.sampled_from(["TRAIN", "TEST"]), st.data())
def test_nets_with_random_and_normalizing_layers_give_equal_results_fused_and_plain(
    layers: list[str], count: int, phase: Phase, data: st.DataObject
) -> None:
    layers: list[str] = []
    flat = False
    for layer in layers:  # no window over a flat blob
        if flat and layer.partition(" ")[0] in ("Convolution", "Pooling", "LRN", "MVN"):
            continue
        flat = flat or layer.partition(" ")[0] in ("InnerProduct", "Reshape")
        layers.append(layer)
    text = inputs(count, 2, 3, 26, 25) + "".join(tower(f"t{i}_", f"x{i}", *layers) for i in range(count))
    torch.manual_seed(1)
    rows = [data.draw(st.integers(1, 3)) for _ in range(count)]
    compare(text, {f"x{i}": torch.rand(n, 3, 26, 25) for i, n in enumerate(rows)}, phase)


def learned(name: str, bottom: str, outputs: int, label: str, more: str = "") -> str:
    """An InnerProduct that shares its parameters with those of the same label."""
    params = f'param {{ name: "{label}_w" }} param {{ name: "{label}_b" }}'
    filled = f'num_output: {outputs} weight_filler {{ type: "xavier" }}'
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {params} '
        f"inner_product_param {{ {filled} }} {more} }}\n"
    )


def convolved(name: str, bottom: str, settings_text: str, more: str = "") -> str:
    """A Convolution that shares its parameters with all others that this makes."""
    filled = f'num_output: 4 kernel_size: 3 {settings_text} weight_filler {{ type: "xavier" }}'
    params = 'param { name: "w" } param { name: "b" }'
    return (
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" {params} '
        f"convolution_param {{ {filled} }} {more} }}\n"
    )


@pytest.mark.parametrize("stopped", [(), (0,), (1,), (0, 1)])
def test_a_gradient_stopped_in_one_tower_flows_through_the_other(stopped: tuple[int, ...]) -> None:
    text = inputs(2, 3, 6) + learned("p", "x0", 7, "p") + learned("q", "x1", 7, "q")
    for i, bottom in enumerate("pq"):
        text += learned(f"t{i}", bottom, 5, "t", "propagate_down: false" if i in stopped else "")
    fused, types = compare(text, {"x0": torch.randn(3, 6), "x1": torch.randn(4, 6)})
    gradients = [fused.params[name][0].grad for name in "pq"]
    assert [gradient is None for gradient in gradients] == [0 in stopped, 1 in stopped]
    assert ("JoinBatches" in types) == (len(stopped) != 1)


def test_a_gradient_flows_through_the_only_tower_that_needs_it() -> None:
    text = inputs(2, 3, 6) + learned("p", "x0", 6, "p")
    text += "".join(learned(f"t{i}", bottom, 5, "t") for i, bottom in enumerate(("p", "x1")))
    text += 'layer { name: "loss" type: "EuclideanLoss" bottom: "t0" bottom: "t1" top: "loss" }\n'
    fused, _ = compare(text, {"x0": torch.randn(3, 6), "x1": torch.randn(3, 6)})
    join = next(node for node in fused.fused_graph.nodes if node.type == "JoinBatches")
    has_gradient = gradient_flow(fused.graph).blobs
    assert [blob.id in has_gradient for blob in join.bottoms] == [True, False]
    assert join.tops[0].id in gradient_flow(fused.fused_graph).blobs


def test_towers_that_share_weights_but_differ_in_settings_are_not_fused() -> None:
    text = inputs(2, 2, 3, 8, 7) + convolved("t0", "x0", "pad: 1") + convolved("t1", "x1", "pad: 2 dilation: 2")
    _, types = compare(text, {f"x{i}": torch.randn(i + 2, 3, 8, 7) for i in range(2)})
    assert "JoinBatches" not in types


def test_towers_of_images_of_different_sizes_are_not_fused() -> None:
    text = inputs(1, 2, 3, 8, 7) + inputs(2, 2, 3, 6, 9).splitlines()[1]
    text += convolved("t0", "x0", "") + convolved("t1", "x1", "")
    _, types = compare(text, {"x0": torch.randn(2, 3, 8, 7), "x1": torch.randn(4, 3, 6, 9)})
    assert "JoinBatches" not in types


def test_layers_with_a_loss_weight_on_one_of_two_tops_are_not_fused() -> None:
    text = inputs(4, 2, 3, 8, 7)
    for i in range(2):
        one = convolved(f"t{i}", f"x{2 * i}", "", "loss_weight: 1 loss_weight: 0")
        text += one.replace(' top: "', f' bottom: "x{2 * i + 1}" top: "{i}" top: "')
        text += f'layer {{ name: "quiet{i}" type: "Silence" bottom: "{i}" }}\n'
    _, types = compare(text, {f"x{i}": torch.randn(i // 2 + 2, 3, 8, 7) for i in range(4)})
    assert "JoinBatches" not in types


@pytest.mark.parametrize("axis", [0, -2])
def test_a_product_over_the_whole_batch_is_not_fused(axis: int) -> None:
    text = inputs(2, 3, 6)
    for i in range(2):
        text += learned(f"t{i}", f"x{i}", 5, "t").replace("num_output", f"axis: {axis} num_output")
    _, types = compare(text, {f"x{i}": torch.randn(3, 6) for i in range(2)})
    assert "JoinBatches" not in types


def test_towers_that_depend_on_each_other_run_one_by_one() -> None:
    chain = [("a0", "x0", "a"), ("b0", "x1", "b"), ("a1", "b0", "a"), ("b1", "a0", "b")]
    text = inputs(2, 3, 6) + "".join(learned(name, bottom, 6, label) for name, bottom, label in chain)
    net, types = compare(text, {"x0": torch.randn(3, 6), "x1": torch.randn(4, 6)})
    assert "JoinBatches" in types  # one of the two can be fused
    assert [node.type for node in net.fused_graph.nodes].count("InnerProduct") == 3


def test_bottoms_that_are_partly_in_another_order_are_not_mixed_up() -> None:
    text = inputs(2, 3, 6)
    for i, order in enumerate(("pqr", "prq")):
        text += (
            learned(f"p{i}", f"x{i}", 5, "p") + learned(f"q{i}", f"p{i}", 5, "q") + learned(f"r{i}", f"q{i}", 5, "r")
        )
        bottoms = " ".join(f'bottom: "{name}{i}"' for name in order)
        weighted = "eltwise_param { coeff: 1 coeff: -2 coeff: 3 }"
        text += f'layer {{ name: "e{i}" type: "Eltwise" {bottoms} top: "e{i}" {weighted} }}\n'
    net, types = compare(text, {"x0": torch.randn(3, 6), "x1": torch.randn(4, 6)})
    assert "JoinBatches" in types
    assert [node.type for node in net.fused_graph.nodes].count("Eltwise") == 2


def test_towers_without_parameters_are_not_fused() -> None:
    text = inputs(2, 4, 6)
    for i in range(2):
        text += tower(f"t{i}_", f"x{i}", PRODUCT, "Reshape reshape_param { shape { dim: 5 dim: 4 } }", "TanH", "AbsVal")
    net, _ = compare(text, {f"x{i}": torch.randn(4, 6) for i in range(2)})
    types = [node.type for node in net.fused_graph.nodes]
    assert [types.count(kind) for kind in ("InnerProduct", "Reshape", "TanH", "AbsVal")] == [1, 2, 2, 2]


def test_only_products_before_a_sum_add_the_gradients_of_each_tower_separately() -> None:
    text = inputs(2, 2, 6) + "".join(tower(f"t{i}_", f"x{i}", PRODUCT, "ReLU", PRODUCT, PRODUCT) for i in range(2))
    nodes = sp.Net(text, "TRAIN").fused_graph.nodes
    assert [type(node.layer).__name__ for node in nodes if node.type == "InnerProduct"] == [
        "InnerProduct", "JoinedInnerProduct", "JoinedInnerProduct",
    ]  # fmt: skip  # one word per layer


def test_towers_that_share_weights_with_layers_of_another_type_are_fused() -> None:
    text = inputs(2, 2, 4, 8, 7) + convolved("t0", "x0", "pad: 1")
    back = convolved("n", "x1", "pad: 1").replace('"Convolution"', '"Deconvolution"')
    text += back.replace('"b"', '"n_b"') + convolved("t1", "n", "pad: 1")
    net, types = compare(text, {f"x{i}": torch.randn(i + 2, 4, 8, 7) for i in range(2)})
    assert "JoinBatches" in types
    assert len(net.graph.params) == 3


def test_towers_are_not_fused_if_shared_statistics_would_be_updated_in_another_order() -> None:
    def norm(name: str, bottom: str, eps: float) -> str:
        settings_text = f"batch_norm_param {{ eps: {eps} moving_average_fraction: 0.5 }}"
        return shared("BatchNorm", bottom, name, settings_text, 3)

    text = inputs(2, 2, 6) + learned("t0", "x0", 6, "t")
    text += norm("first", "t0", 1e-5) + norm("second", "x1", 1e-2) + learned("t1", "second", 6, "t")
    _, types = compare(text, {"x0": torch.randn(3, 6), "x1": torch.randn(4, 6)})
    assert "JoinBatches" not in types


def test_layers_named_like_those_that_fusing_adds_are_not_confused() -> None:
    text = inputs(2, 2, 6) + "".join(learned(f"t{i}", f"x{i}", 5, "t") for i in range(2))
    for name in ("towers_0_join_0", "towers_0_join_0_", "towers_0_t0", "towers_0_part_2"):
        text += f'layer {{ name: "{name}" type: "Power" bottom: "t1" top: "{name}" power_param {{ scale: 3 }} }}\n'
    net, types = compare(text, {"x0": torch.randn(3, 6), "x1": torch.randn(4, 6)})
    assert {"JoinBatches", "PartBatches", "Power"} <= types
    ids = [node.id for node in net.fused_graph.nodes]
    assert len(set(ids)) == len(ids)


UNKNOWN = [
    'layer { name: "d" type: "Data" top: "x0" data_param { source: "nowhere" batch_size: 4 } }\n',
    'layer { name: "e" type: "Data" top: "x1" data_param { source: "nowhere" batch_size: 4 } }\n',
]


@pytest.mark.parametrize("missing", [(0,), (1,), (0, 1)])
def test_towers_of_unknown_shapes_are_not_fused(missing: tuple[int, ...]) -> None:
    declarations = inputs(2, 4, 6).splitlines(keepends=True)
    text = "".join(UNKNOWN[i] if i in missing else declarations[i] for i in range(2))
    text += "".join(learned(f"t{i}", f"x{i}", 5, "t") for i in range(2))
    graph = sp.build_graph(sp.parse_net(text))
    assert fuse_towers(graph) == Rewritten(graph)


def test_layers_of_unknown_types_in_towers_are_unchanged() -> None:
    text = inputs(2, 4, 6)
    for i in range(2):
        text += learned(f"t{i}", f"x{i}", 5, "t")
        text += f'layer {{ name: "u{i}" type: "Nobody" bottom: "t{i}" top: "u{i}" }}\n'
    rewritten = fuse_towers(sp.build_graph(sp.parse_net(text)))
    fused, nodes = rewritten.graph, rewritten.replaced
    assert [node.type for node in fused.nodes].count("Nobody") == 2
    assert len(nodes) == 2
