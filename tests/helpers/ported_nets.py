"""Ported nets, compared with the original nets."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import siamese_proto as sp
from siamese_proto.export.source import Ported, port

# Gradients are sums over rows and positions; another memory layout adds them in another order.
SUMMED = 4


def executed(ported: Ported) -> nn.Module:
    """Run ported source in a separate namespace, where this package cannot be imported; return its net."""
    hidden = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "siamese_proto"}
    sys.modules.update(dict.fromkeys(hidden))
    try:
        namespace: dict[str, Any] = {"__name__": "ported"}
        exec(compile(ported.source, "ported.py", "exec", dont_inherit=True), namespace)
        return namespace[ported.class_name]()
    finally:
        sys.modules.update(hidden)


def some_values(net: sp.Net, seed: int = 0) -> dict[str, Tensor]:
    """Return values for every input of a net; labels are small integers."""
    generator = torch.Generator().manual_seed(seed)
    labels = {node.bottoms[index].name for node in net.graph.nodes for index in node.layer.labels}
    values = {}
    for node in net.graph.nodes:
        if not node.bottoms and not node.params:
            for top in node.tops:
                values[top.name] = (
                    torch.randint(0, 2, top.shape, generator=generator).float()
                    if top.name in labels
                    else torch.randn(top.shape, generator=generator)
                )
    return values


def give_weights(net: sp.Net, module: nn.Module, ported: Ported) -> None:
    """Load the net's parameters into the module; every name of its state_dict is used exactly once."""
    module.load_state_dict({key: net.tensors[param].detach().clone() for param, key in ported.keys.items()})


def compare(net: sp.Net, values: Mapping[str, Tensor], relative: float = 1e-6) -> nn.Module:
    """Check that the ported net has the outputs, gradients and statistics of the net; return the ported net."""
    ported = port(net.graph)
    dtype = next(iter(net.tensors.values())).dtype if net.tensors else torch.get_default_dtype()
    module = executed(ported).train(net.graph.phase == "TRAIN").to(dtype)
    give_weights(net, module, ported)
    labels = {node.bottoms[index].name for node in net.graph.nodes for index in node.layer.labels}
    ours, theirs = (
        {name: value.to(dtype, copy=True).requires_grad_(name not in labels) for name, value in values.items()}
        for _ in range(2)
    )
    outputs = net(**ours)
    results = module(**{argument: theirs[blob] for blob, argument in ported.inputs.items()})
    if isinstance(results, Tensor):
        results = {ported.outputs[0]: results}
    assert tuple(results) == ported.outputs
    assert set(results) == set(outputs) - set(values)
    for name, output in results.items():
        close(f"output {name}", output, outputs[name], relative)
    backward(net, outputs, results)
    for blob in ported.inputs:
        if blob not in labels:
            close(f"gradient of {blob}", grad(theirs[blob]), grad(ours[blob]), SUMMED * relative)
    here = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    assert set(here) == set(ported.keys.values())
    for param, key in ported.keys.items():
        close(f"{key} afterwards", here[key], net.tensors[param], relative)
        close(f"gradient of {key}", grad(here[key]), grad(net.tensors[param]), SUMMED * relative)
    return module


def backward(net: sp.Net, outputs: Mapping[str, Tensor], results: Mapping[str, Tensor]) -> None:
    """Compute the gradient of the losses and of a weighted sum of all outputs, on both sides."""
    totals = []
    for side in (outputs, results):
        generator = torch.Generator().manual_seed(7)
        total = net.loss({**outputs, **side})
        for name in sorted(results):
            weights = torch.rand(side[name].shape, generator=generator)
            if side[name].requires_grad:
                total = total + (side[name] * weights).sum()
        totals.append(total)
    assert totals[0].requires_grad == totals[1].requires_grad
    for total in totals:
        if total.requires_grad:
            total.backward()


def grad(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def close(what: str, result: Tensor, expected: Tensor, relative: float) -> None:
    scale = max(1.0, float(expected.detach().abs().max())) if expected.numel() else 1.0
    assert result.shape == expected.shape, what
    np.testing.assert_allclose(
        result.detach().numpy(), expected.detach().numpy(), rtol=relative, atol=relative * scale, err_msg=what
    )
