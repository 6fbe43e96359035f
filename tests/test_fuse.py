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

FLAGSHIP = Path(__file__).parent / "golden" / "flagship" / "net.prototxt"


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
    assert len(net.fused_graph.nodes) == count + 1 + len(layers) + 1


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
