"""Passes of the optimizer: rewritten nets have the same outputs, gradients and statistics."""

from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

import siamese_proto as sp
from siamese_proto.graph.ir import Phase
from siamese_proto.layers.activation import ReLU
from siamese_proto.layers.base import layer, registered
from siamese_proto.layers.scale import Scale
from siamese_proto.passes import pooled_convolution, pooling
from siamese_proto.passes.pipeline import optimize
from siamese_proto.passes.pooled_convolution import PooledConvolution

BATCH = {"x": torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(2))}


def net(*layers: str) -> str:
    return 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 5 dim: 3 dim: 4 dim: 6 } } }\n' + (
        "\n".join(f"layer {{ {layer} }}" for layer in layers)
    )


def norm(name: str, top: str, more: str = "", bottom: str = "x") -> str:
    return f'name: "{name}" type: "BatchNorm" bottom: "{bottom}" top: "{top}" {more}'


def scale(name: str, bottom: str, top: str, more: str = "scale_param { bias_term: true }") -> str:
    return f'name: "{name}" type: "Scale" bottom: "{bottom}" top: "{top}" {more}'


FILLED = 'scale_param { axis: -3 filler { type: "uniform" min: 1 max: 2 } }'
BIASED = "scale_param { bias_term: true }"
SHARED_STATISTICS = "".join(f'param {{ name: "{name}" }} ' for name in ("mean", "variance", "factor"))
SHARED_FACTORS = ' param { name: "gamma" } param { name: "beta" }'
MERGED = {
    "in place": net(norm("n", "n"), scale("s", "n", "n")),
    "apart, without a bias, axis from behind": net(norm("n", "n"), scale("s", "n", "s", FILLED)),
    "with a loss on the scaled": net(norm("n", "n"), scale("s", "n", "s", "loss_weight: 2")),
    "nothing learned": net(norm("n", "n"), scale("s", "n", "s", "param { lr_mult: 0 }")),
    "two with the same statistics and factors": net(
        *(
            layer
            for side in "ab"
            for layer in (
                norm(f"n{side}", f"n{side}", 'param { name: "m" } param { name: "v" } param { name: "f" }'),
                scale(f"s{side}", f"n{side}", f"s{side}", 'param { name: "s" }'),
            )
        )
    ),
}
UNCHANGED = {
    "read by another": net(norm("n", "n"), scale("s", "n", "s"), 'name: "r" type: "ReLU" bottom: "n" top: "r"'),
    "along another axis": net(norm("n", "n"), scale("s", "n", "s", "scale_param { axis: 2 }")),
    "along two axes": net(norm("n", "n"), scale("s", "n", "s", "scale_param { num_axes: 2 }")),
    "by a second bottom": net(
        norm("n", "n"), 'name: "s" type: "Scale" bottom: "n" bottom: "x" top: "s" scale_param { axis: 0 }'
    ),
    "with a loss on the normal": net(norm("n", "n", "loss_weight: 1"), scale("s", "n", "s")),
    "by its own statistic": net(norm("n", "n", 'param { name: "m" }'), scale("s", "n", "s", 'param { name: "m" }')),
    "by one of its statistics": net(
        norm("n", "n", 'param { name: "m" }'), scale("s", "n", "s", 'param { name: "m" } ' + BIASED)
    ),
    "with a gradient cut": net(norm("n", "n"), scale("s", "n", "s", "propagate_down: false")),
    "by a factor for each channel from elsewhere": net(
        norm("n", "n"),
        'name: "f" type: "Parameter" top: "f" parameter_param { shape { dim: 3 } }',
        'name: "s" type: "Scale" bottom: "n" bottom: "f" top: "s"',
    ),
    "along another axis of as many": net(
        norm("n", "n"), scale("s", "n", "s", "scale_param { axis: 2 bias_term: true }")
    ).replace("dim: 4", "dim: 3"),
}


def run(text: str, phase: Phase, *, fuse: bool) -> tuple[sp.Net, list[torch.Tensor]]:
    """Run a net twice, the second time with gradients; return it with its outputs, gradients and statistics."""
    model = sp.Net(text, phase, seed=5, fuse=fuse).double()
    draw = torch.Generator().manual_seed(7)
    for param in model.parameters():
        param.data = torch.rand(param.shape, generator=draw, dtype=torch.float64)
    rows = model.graph.nodes[0].tops[0].shape
    assert rows is not None
    x = BATCH["x"][:, :, : rows[2]].double().requires_grad_()
    model(x=x)
    outputs = model(x=x)
    sum((blob * torch.arange(1.0, blob.numel() + 1).view(blob.shape)).sum() for blob in outputs.values()).backward()
    gradients = [param.grad for param in model.parameters() if param.grad is not None]
    return model, [*outputs.values(), x.grad, *gradients, *model.buffers()]


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("text", [*MERGED.values(), *UNCHANGED.values()], ids=[*MERGED, *UNCHANGED])
def test_merging_a_scale_after_a_batch_norm_keeps_the_results(text: str, phase: Phase) -> None:
    (mine, values), (plain, expected) = (run(text, phase, fuse=fuse) for fuse in (True, False))
    for one, other in zip(values, expected, strict=True):
        torch.testing.assert_close(one, other)
    assert any(node.type == "Scale" for node in plain.fused_graph.nodes)
    assert any(node.type == "Scale" for node in mine.fused_graph.nodes) == (text in UNCHANGED.values())


def test_layers_of_blobs_with_unknown_shapes_are_unchanged() -> None:
    data = 'layer { name: "d" type: "Data" top: "x" data_param { source: "nowhere" batch_size: 5 } }\n'
    text = net(norm("n", "n"), scale("s", "n", "s", "scale_param { axis: 1 }"), convolution())
    graph = sp.build_graph(sp.parse_net(data + text.partition("\n")[2]))
    types = [type(node.layer).__name__ for node in optimize(graph).graph.nodes]
    assert types == ["Data", "BatchNorm", "Scale", "Convolution"]


def test_a_single_value_per_channel_equals_its_mean() -> None:
    text = net(norm("n", "n"), scale("s", "n", "s"))
    ways = [sp.Net(text, "TRAIN", seed=5, fuse=fuse) for fuse in (True, False)]
    for way in ways:
        torch.nn.init.constant_(way.params["s"][1], 3.0)
    output, expected = (way(x=BATCH["x"][:1, :, :1, :1])["s"] for way in ways)
    assert torch.equal(output, expected)
    assert torch.equal(output, torch.full((1, 3, 1, 1), 3.0))


def test_the_blob_between_the_merged_layers_can_still_be_read_and_passed() -> None:
    model = sp.Net(net(norm("n", "n"), scale("s", "n", "s")), "TEST", seed=5)
    assert set(model.blobs(**BATCH)) == {"x", "n", "s"}
    value = torch.full((5, 3, 4, 6), 2.0)
    assert torch.equal(model(n=value)["s"], value)  # a factor of 1 and a bias of 0


def test_a_custom_scale_layer_is_unchanged() -> None:
    class Rectified(Scale):
        type = "Scale"
        reads = ("scale_param",)

        def forward(self, *args: Any) -> Any:
            return [super().forward(*args)[0].relu()]

    before = registered()["Scale"]
    try:
        layer("Scale", replace=True)(Rectified)
        model = sp.Net(net(norm("n", "n"), scale("s", "n", "s")), "TRAIN", seed=5)
        assert (model(**BATCH)["s"] >= 0).all()
    finally:
        layer("Scale", replace=True)(before)


def pool(bottom: str, top: str = "p", more: str = "kernel_size: 2 stride: 2", method: str = "MAX") -> str:
    return f'name: "p" type: "Pooling" bottom: "{bottom}" top: "{top}" pooling_param {{ pool: {method} {more} }}'


def convolution(more: str = "num_output: 4 kernel_size: 3 pad: 1", wires: str = 'bottom: "x" top: "c"') -> str:
    filled = 'weight_filler { type: "xavier" }'
    return f'name: "c" type: "Convolution" {wires} convolution_param {{ {more} {filled} }}'


RELU = 'name: "r" type: "ReLU" bottom: "c" top: "c"'
READ = 'name: "t" type: "TanH" bottom: "c" top: "t"'
POOLED = {  # pooling is applied before ReLU
    "in place": net(convolution(), RELU, pool("c")),
    "apart": net(convolution(), RELU.replace('top: "c"', 'top: "r"'), pool("r")),
    "windows that overlap and extend beyond the image": net(
        convolution(), RELU, pool("c", more="kernel_size: 3 stride: 2 pad: 1")
    ),
    "the whole image": net(convolution(), RELU, pool("c", more="global_pooling: true")),
    "with a loss on the pooled": net(convolution(), RELU, pool("c") + " loss_weight: 2"),
    "in place again": net(convolution(), RELU, pool("c"), 'name: "r2" type: "TanH" bottom: "p" top: "p"'),
    "pooled and rectified": net(convolution(), pool("c"), RELU.replace('"c"', '"p"')),
    "in one dimension fewer windows": net(convolution("num_output: 4 kernel_h: 4 kernel_w: 1"), RELU, pool("c")),
    "a gradient cut": net(convolution(), RELU, pool("c") + " propagate_down: false", READ.replace('"c"', '"x"')),
    "two bottoms": net(
        convolution(wires='bottom: "x" bottom: "x" top: "c" top: "d"'), RELU, pool("c"), READ.replace('"c"', '"d"')
    ),
}
APART = {
    "the convolution read by another": net(convolution(), pool("c"), READ),
    "the ReLU read by another": net(convolution(), RELU, pool("c"), READ),
    "a mean": net(convolution(), RELU, pool("c", method="AVE")),
    "also where": net(convolution(), RELU, pool("c", 'p" top: "where')),
    "windows with gaps": net(convolution(), RELU, pool("c", more="kernel_size: 1 stride: 3")),
    "a gradient cut right after": net(convolution(), pool("c") + " propagate_down: false", READ.replace('"c"', '"x"')),
    "only along the rows": net(convolution("num_output: 4 kernel_size: 3 axis: 2"), pool("c")),
    "a loss in between": net(convolution(), RELU + " loss_weight: 1", pool("c")),
    "a slope": net(convolution(), RELU + " relu_param { negative_slope: 0.5 }", pool("c")),
}


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("text", [*POOLED.values(), *APART.values()], ids=[*POOLED, *APART])
def test_pooling_before_a_relu_keeps_the_results(text: str, phase: Phase, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_LEAN_FROM", 1), ("_TURNED_FROM", 1), ("_MAXIMA_FROM", {False: 1, True: 1})):
        monkeypatch.setattr(pooling, name, value)
    (mine, values), (_, expected) = (run(text, phase, fuse=fuse) for fuse in (True, False))
    for one, other in zip(values, expected, strict=True):
        torch.testing.assert_close(one, other)
    types = [type(node.layer).__name__ for node in mine.fused_graph.nodes]
    pools = [index for index, name in enumerate(types) if "Pool" in name]
    relus = [index for index, name in enumerate(types) if name == "ReLU"]
    assert all(pool < relu for pool in pools for relu in relus) == (text in POOLED.values() or not relus)


SEPARATE = {"a gradient cut", "two bottoms", *APART}


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize("name", [*POOLED, *APART])
def test_convolution_and_pooling_in_parts_keep_the_results(
    name: str, phase: Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pooled_convolution, "_SPLIT_FROM", 1)
    monkeypatch.setattr(pooled_convolution, "_PART_SIZE", {False: 70, True: 70})  # each row separately
    monkeypatch.setattr(pooling, "_LEAN_FROM", 1)
    text = {**POOLED, **APART}[name]
    (net_in_parts, results), (_, expected) = (run(text, phase, fuse=fuse) for fuse in (True, False))
    for one, other in zip(results, expected, strict=True):
        torch.testing.assert_close(one, other)
    types = [type(node.layer).__name__ for node in net_in_parts.fused_graph.nodes]
    assert ("PooledConvolution" in types) == (name not in SEPARATE)
    assert ("Convolution" in types) == (name in SEPARATE)


def test_pooling_detects_flattened_gradients() -> None:
    product = 'name: "i" type: "InnerProduct" bottom: "p" top: "i" inner_product_param { num_output: 3 }'
    again = convolution("num_output: 2 kernel_size: 1", 'bottom: "p" top: "c2"')
    tails = {
        True: [(product,), (RELU.replace('"c"', '"p"'), product)],
        False: [(), (again,), (RELU.replace('"c"', '"p"'), again)],
    }
    for is_flattened, several in tails.items():
        for tail in several:
            model = sp.Net(net(convolution(), pool("c"), *tail), "TRAIN")
            (layer,) = (node.layer for node in model.fused_graph.nodes if isinstance(node.layer, PooledConvolution))
            assert layer.pooling.is_flattened == is_flattened


def test_a_window_of_negative_values_passes_no_gradient() -> None:
    text = net('name: "n" type: "Power" bottom: "x" top: "c"', RELU, pool("c"))
    x = BATCH["x"].clone()
    x[0] = -1.0
    x[1] = 0.0
    x[2, :, 0] = float("nan")
    gradients = []
    for fuse in (True, False):
        leaf = x.clone().requires_grad_()
        model = sp.Net(text, "TRAIN", fuse=fuse)
        (model(x=leaf)["p"] * torch.arange(1.0, 91).view(5, 3, 2, 3)).sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0] is not None
    assert gradients[1] is not None
    assert torch.equal(gradients[0].nan_to_num(7), gradients[1].nan_to_num(7))
    assert (gradients[0][:2] == 0).all()
    assert (gradients[0][3:] != 0).any()
    order = [node.type for node in sp.Net(text, "TRAIN").fused_graph.nodes]
    assert order == ["Input", "Power", "Pooling", "ReLU"]


def test_two_relus_of_the_same_blob_are_distinguished() -> None:
    text = net(
        'name: "n" type: "Power" bottom: "x" top: "c"',
        *(
            layer.replace('name: "', f'name: "{side}')
            for side, more in (("a", "kernel_size: 2 stride: 2"), ("b", "kernel_size: 3 stride: 1"))
            for layer in (RELU.replace('top: "c"', f'top: "{side}"'), pool(side, f"p{side}", more))
        ),
    )
    (mine, values), (_, expected) = (run(text, "TRAIN", fuse=fuse) for fuse in (True, False))
    for one, other in zip(values, expected, strict=True):
        torch.testing.assert_close(one, other)
    ids = [top.id for node in mine.fused_graph.nodes for top in node.tops]
    assert len(set(ids)) == len(ids)


class Storages(TorchDispatchMode):
    """All memory in which tensors are created, by address."""

    def __init__(self) -> None:
        super().__init__()
        self.references: dict[int, StorageWeakRef] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.references[storage._cdata] = StorageWeakRef(storage)
        return result

    def held(self) -> int:
        """Return the number of bytes that are still referenced."""
        storages = (torch.UntypedStorage._new_with_weak_ptr(storage.cdata) for storage in self.references.values())
        return sum(storage.nbytes() for storage in storages if storage is not None)


LARGE = net(convolution("num_output: 16 kernel_size: 3"), RELU, pool("c")).replace("dim: 4 dim: 6", "dim: 34 dim: 34")


@pytest.mark.parametrize("size", [100, 122, 130])  # a row of the blob in between has 1.6, 2.3 and 2.6 times 100,000
@pytest.mark.parametrize("threads", [1, 2])
def test_the_blob_between_a_convolution_and_pooling_is_not_saved(size: int, threads: int) -> None:
    model = sp.Net(LARGE, "TRAIN", seed=5)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with Storages() as storages:
            top = model(x=torch.rand(12, 3, size, size))["p"]
    finally:
        torch.set_num_threads(before)
    assert top.requires_grad
    between = 4 * 12 * 16 * (size - 2) ** 2
    assert (
        storages.held() < between
    )  # positions of the maxima, a quarter as many numbers of 8 bytes, and the output of ReLU


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # that of torch
def test_functional_transforms_and_export_work_with_large_blobs() -> None:
    model = sp.Net(LARGE, "TRAIN", seed=5)
    x = torch.rand(64, 3, 34, 34)

    def loss(params: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.func.functional_call(model, params, (), {"x": x})["p"].sum()

    params = dict(model.named_parameters())
    loss(params).backward()
    for name, gradient in torch.func.grad(loss)(params).items():
        torch.testing.assert_close(gradient, params[name].grad, rtol=1e-4, atol=1e-2)
    slopes = {name: torch.ones_like(param) for name, param in params.items()}
    _, slope = torch.func.jvp(loss, (params,), (slopes,))
    gradients = [param.grad.sum() for param in params.values() if param.grad is not None]
    torch.testing.assert_close(slope, torch.stack(gradients).sum(), rtol=1e-4, atol=1e-2)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pooled: torch.Tensor = self.model(x=x)["p"]
            return pooled

    rows = torch.export.Dim("rows")
    program = torch.export.export(Whole(), (x,), dynamic_shapes=({0: rows},), strict=False).module()
    torch.testing.assert_close(program(x[:5]), model(x=x[:5])["p"])


def test_blobs_before_the_pooling_can_still_be_read_and_passed() -> None:
    model = sp.Net(POOLED["in place"], "TEST", seed=5)
    assert set(model.blobs(**BATCH)) == {"x", "c", "c@0", "p"}
    value = torch.randn(5, 4, 4, 6)
    expected = torch.nn.functional.max_pool2d(value.relu(), 2)
    assert torch.equal(model(c=value)["p"], expected)


def product(bottom: str, top: str) -> str:
    filled = 'num_output: 4 weight_filler { type: "xavier" }'
    return f'name: "{top}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" inner_product_param {{ {filled} }}'


def after(kind: str, bottom: str, top: str, more: str = "") -> str:
    return f'name: "{top} {kind}" type: "{kind}" bottom: "{bottom}" top: "{top}" {more}'


SUM = 'name: "e" type: "Eltwise" bottom: "x" bottom: "x" top: "e"'
OVERWRITTEN = {  # the types that overwrite their bottom
    "in place": (net(product("x", "i"), after("ReLU", "i", "i")), ["ReLU"]),
    "with another name": (net(product("x", "i"), after("TanH", "i", "t")), ["TanH"]),
    "after a sum": (net(SUM, after("Sigmoid", "e", "e")), ["Sigmoid"]),
    "after a norm": (net(norm("n", "n"), after("ReLU", "n", "n", "relu_param { negative_slope: 0.5 }")), ["ReLU"]),
    "with a negative slope": (
        net(product("x", "i"), after("ReLU", "i", "i", "relu_param { negative_slope: -0.5 }")),
        ["ReLU"],
    ),
    "dropped": (net(product("x", "i"), after("Dropout", "i", "i")), ["Dropout"]),
    "one after the other": (net(product("x", "i"), after("TanH", "i", "i"), after("ReLU", "i", "r")), ["TanH"]),
    "of an input": (net(after("ReLU", "x", "r")), []),
    "of a view": (net(after("Flatten", "x", "f"), after("ReLU", "f", "r")), []),
    "read by another": (net(product("x", "i"), after("ReLU", "i", "r"), after("AbsVal", "i", "a")), []),
    "counted in the loss": (net(product("x", "i") + " loss_weight: 1", after("ReLU", "i", "i")), []),
    "counted in the loss, next to another": (
        net(
            convolution(wires='bottom: "x" bottom: "x" top: "c" top: "d" loss_weight: 1 loss_weight: 0'),
            after("ReLU", "c", "c"),
        ),
        [],
    ),
    "after a product": (net(SUM + " eltwise_param { operation: PROD }", after("Sigmoid", "e", "e")), []),
    "needed by its producer": (net(after("Exp", "x", "e"), after("ReLU", "e", "r")), []),
    "cut off": (net(product("x", "i"), after("ReLU", "i", "r", "propagate_down: false"), product("x", "j")), []),
}


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize(("text", "types"), OVERWRITTEN.values(), ids=OVERWRITTEN)
def test_layers_overwrite_a_bottom_that_is_not_read_again(text: str, types: list[str], phase: Phase) -> None:
    (mine, values), (_, expected) = (run(text, phase, fuse=fuse) for fuse in (True, False))
    for one, other in zip(values, expected, strict=True):
        torch.testing.assert_close(one, other)
    overwriting = [node for node in mine.fused_graph.nodes if getattr(node.layer, "overwrites", False)]
    assert [node.type for node in overwriting] == types


def test_tensors_passed_by_the_caller_are_unchanged() -> None:
    model = sp.Net(OVERWRITTEN["in place"][0], "TEST", seed=5)
    value = torch.randn(5, 4)
    before = value.clone()
    assert torch.equal(model(i=value)["i"], before.relu())
    assert torch.equal(value, before)
    assert set(model.blobs(**BATCH)) == {"x", "i@0", "i"}


def test_a_custom_layer_may_read_its_bottom_again() -> None:
    class Gated(ReLU):
        type = "ReLU"
        reads = ("relu_param",)

        def forward(self, bottoms: Any, *args: Any) -> Any:
            return [super().forward(bottoms, *args)[0] - bottoms[0]]

    before = registered()["ReLU"]
    try:
        layer("ReLU", replace=True)(Gated)
        ways = [sp.Net(OVERWRITTEN["in place"][0], "TEST", seed=5, fuse=fuse) for fuse in (True, False)]
        output, expected = (way(**BATCH)["i"] for way in ways)
        assert torch.equal(output, expected)
        assert output.any()
    finally:
        layer("ReLU", replace=True)(before)


def test_layers_named_like_replacement_layers_are_not_confused() -> None:
    convolution = "convolution_param { num_output: 64 kernel_size: 5 pad: 2 weight_filler { type: 'xavier' } }"
    text = (
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 8 dim: 64 dim: 14 dim: 12 } } }\n'
        f'layer {{ name: "c" type: "Convolution" bottom: "x" top: "c" {convolution} }}\n'
        f"layer {{ {norm('c_by_spectrum', 'b', bottom='c')} }}\n"
        f"layer {{ {scale('c_by_spectrum_scaled', 'b', 's')} }}\n"
    )
    x = torch.rand(8, 64, 14, 12)
    mine, plain = (sp.Net(text, "TRAIN", seed=5, fuse=fuse) for fuse in (True, False))
    torch.testing.assert_close(mine.blobs(x=x), plain.blobs(x=x))
    torch.testing.assert_close(mine(x=x)["s"], plain(x=x)["s"], rtol=1e-4, atol=1e-5)
    types = [type(node.layer).__name__ for node in mine.fused_graph.nodes]
    assert types == ["Input", "ConvolutionBySpectrum", "BatchNorm"]


def test_shared_statistics_are_updated_in_the_order_of_the_file() -> None:
    shared = "".join(f'param {{ name: "{name}" }}' for name in "mvf")
    text = net(
        norm("n1", "n1", shared),
        norm("n2", "n2", shared),
        'name: "t" type: "TanH" bottom: "n2" top: "t"',
        *(
            f'name: "p{side}" type: "InnerProduct" bottom: "{bottom}" top: "p{side}" param {{ name: "w" }} '
            "inner_product_param { num_output: 2 bias_term: false weight_filler { type: 'xavier' } }"
            for side, bottom in (("a", "t"), ("b", "n1"))
        ),
    )
    for one, other in zip(*(run(text, "TRAIN", fuse=fuse)[1] for fuse in (True, False)), strict=True):
        torch.testing.assert_close(one, other)


def test_each_layer_uses_the_fastest_implementation() -> None:
    large = convolution("num_output: 64 kernel_size: 5")
    ways = {
        net('name: "t" type: "TanH" bottom: "x" top: "c"', pool("c")): ["Input", "TanH", "LeanPooling"],
        net(convolution("num_output: 4 kernel_size: 1")): ["Input", "Convolution"],
        net(large).replace("dim: 3 dim: 4 dim: 6", "dim: 64 dim: 14 dim: 12 dim: 7"): ["Input", "Convolution"],
        net(large.replace("size: 5", "size: 5 axis: 2")).replace("dim: 3 dim: 4 dim: 6", "dim: 14 dim: 64 dim: 12"): [
            "Input", "Convolution",
        ],
        net(large, pool("c")).replace("dim: 3 dim: 4 dim: 6", "dim: 64 dim: 14 dim: 12"): [
            "Input", "ConvolutionBySpectrum", "LeanPooling",
        ],
    }  # fmt: skip  # one word per layer
    for text, types in ways.items():
        assert [type(node.layer).__name__ for node in sp.Net(text).fused_graph.nodes] == types


def test_only_nodes_of_the_written_graph_count_as_replaced() -> None:
    text = "".join(
        f'layer {{ name: "in{side}" type: "Input" top: "{side}" '
        "input_param { shape { dim: 4 dim: 3 dim: 6 dim: 8 } } }\n"
        f'layer {{ name: "c{side}" type: "Convolution" bottom: "{side}" top: "c{side}" param {{ name: "w" }} '
        f'param {{ name: "b" }} convolution_param {{ num_output: 5 kernel_size: 3 }} }}\n'
        f"layer {{ {norm(f'n{side}', f'n{side}', SHARED_STATISTICS, f'c{side}')} }}\n"
        f"layer {{ {scale(f's{side}', f'n{side}', f's{side}', BIASED + SHARED_FACTORS)} }}\n"
        for side in "xy"
    )
    graph = sp.Net(text, "TEST").graph
    result = optimize(graph)
    assert result.replaced == {f"{kind}{side}" for kind in "cns" for side in "xy"}  # merged first, and then fused
    assert result.replaced <= {node.id for node in graph.nodes}
