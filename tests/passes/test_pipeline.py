"""Properties of every pass: equal outputs and gradients, a printable result, and a documented position."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fuse_towers import CONVOLUTION, POOL, PRODUCT, inputs, tower

import siamese_proto as sp
from siamese_proto import passes as package
from siamese_proto.graph.ir import Phase
from siamese_proto.passes import pipeline, pooled_convolution, pooling
from siamese_proto.passes.pipeline import PASSES
from siamese_proto.passes.rewriting import Pass, Rewritten

SIZE = (3, 26, 25)
LARGE_KERNEL = "Convolution convolution_param { num_output: 8 kernel_size: 9 pad: 4 weight_filler { type: 'xavier' } }"
SPATIAL = [CONVOLUTION, LARGE_KERNEL, POOL, "BatchNorm", "Scale scale_param { bias_term: true }"]
ELEMENT_WISE = ["ReLU", "Sigmoid", "TanH", "Dropout"]
LAYERS = [*SPATIAL, *ELEMENT_WISE, PRODUCT, "Flatten"]
CHOICES = {rewrite.__name__: (rewrite,) for rewrite in PASSES} | {"all": PASSES}


def net_text(layers: Sequence[str], towers: int) -> str:
    """Towers of these layers with shared weights; layers that need height and width come before the first flat one."""
    layers = sorted(
        layers, key=lambda layer: layer not in SPATIAL and layer not in ("ReLU", "Sigmoid", "TanH", "Dropout")
    )
    return inputs(towers, 2, *SIZE) + "".join(tower(f"t{index}_", f"x{index}", *layers) for index in range(towers))


def results(net: sp.Net, rows: Sequence[int]) -> dict[str, torch.Tensor | None]:
    """Return the outputs, and the gradients of inputs and parameters, after one pass in float64."""
    draw = torch.Generator().manual_seed(1)
    batch = {
        f"x{index}": torch.randn(count, *SIZE, generator=draw, dtype=torch.float64).requires_grad_()
        for index, count in enumerate(rows)
    }
    outputs = net(**batch)
    sum((blob * torch.arange(1.0, blob.numel() + 1).view(blob.shape)).sum() for blob in outputs.values()).backward()
    gradients = {f"gradient of {name}": blob.grad for name, blob in {**batch, **net.tensors}.items()}
    return {**outputs, **net.tensors, **gradients}


@pytest.mark.slow
@pytest.mark.parametrize("chosen", CHOICES.values(), ids=CHOICES)
@settings(max_examples=12, deadline=None)
@given(
    layers=st.lists(st.sampled_from(LAYERS), min_size=2, max_size=7),
    rows=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    phase=st.sampled_from(["TRAIN", "TEST"]),
)
def test_passes_keep_outputs_and_gradients(
    chosen: tuple[Pass, ...], layers: list[str], rows: list[int], phase: Phase
) -> None:
    text = net_text(layers, len(rows))
    with (
        mock.patch.object(pipeline, "PASSES", chosen),
        mock.patch.object(pooling, "_LEAN_FROM", 0),
        mock.patch.multiple(pooled_convolution, _SPLIT_FROM=1, _PART_SIZE={False: 500, True: 500}),
    ):
        rewritten, plain = (results(sp.Net(text, phase, seed=4, fuse=fuse).double(), rows) for fuse in (True, False))
    assert list(rewritten) == list(plain)
    for name, expected in plain.items():
        if expected is None:
            assert rewritten[name] is None, name
        else:
            torch.testing.assert_close(rewritten[name], expected, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("rewrite", PASSES)
def test_results_are_printable_and_name_only_nodes_of_the_graph(rewrite: Pass) -> None:
    text = net_text([LARGE_KERNEL, "BatchNorm", "Scale scale_param { bias_term: true }", "ReLU", POOL, PRODUCT], 2)
    graph = sp.build_graph(sp.parse_net(text), phase="TRAIN")
    result = rewrite(graph)
    assert result.replaced <= {node.id for node in graph.nodes}
    assert [blob.id for blob in result.graph.outputs] == [blob.id for blob in graph.outputs]
    assert len({node.id for node in result.graph.nodes}) == len(result.graph.nodes)
    printed = str(result)
    assert all(str(node) in printed for node in result.graph.nodes)
    assert all(node_id in printed for node_id in result.replaced)


def test_every_pass_has_a_documented_position() -> None:
    modules = [
        importlib.import_module(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    ]
    functions = {
        function
        for module in modules
        for _, function in inspect.getmembers(module, inspect.isfunction)
        if inspect.signature(function, eval_str=False).return_annotation in ("Rewritten", Rewritten)
    }
    assert functions - {pipeline.optimize} == set(PASSES)
    source = inspect.getsource(pipeline)
    for rewrite in PASSES:
        (line,) = [line for line in source.splitlines() if line.strip().startswith(f"{rewrite.__name__},")]
        assert len(line.partition("#")[2].split()) > 3, line
