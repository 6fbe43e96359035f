"""What `debug_info` shows: the mean size of every value and gradient of a pass, in Caffe's wording (net.cpp)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from siamese_proto.graph.ir import Blob, Node, ParamUse
from siamese_proto.graph.splits import insert_splits
from siamese_proto.layers.base import Layer
from siamese_proto.net.net import Net
from siamese_proto.net.program import is_source
from siamese_proto.solver.log import Event, log, number


@dataclass
class _Step:
    """A layer of the unfused net, or a Split that Caffe has behind it, and what it saw in the last pass."""

    name: str
    node: Node | None  # None: a Split
    bottoms: tuple[str, ...]  # names of blobs, or of tops of Splits
    tops: tuple[str, ...]
    seen: list[Tensor] = field(default_factory=list)
    params: list[Tensor] = field(default_factory=list)


class DebugPass:
    """Runs a net layer by layer, unfused, and logs the mean of `|x|` of all that comes by.

    Each layer is handed tensors of its own, so that a blob that several layers read has a gradient for each, as in
    Caffe, and a shared parameter shows what has come together so far.
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        nodes = net.graph.nodes
        self._steps = [
            _Step(
                message.name,
                nodes[index] if index is not None else None,
                tuple(message.bottom),
                tuple(message.top) if index is None else tuple(_name(top) for top in nodes[index].tops),
            )
            for index, message in insert_splits([node.message for node in nodes])
        ]
        self._before: dict[str, Tensor] = {}

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Run the net and log every top and parameter; the outputs, and the blobs with a loss weight, as of the net."""
        graph = self.net.graph
        self._before = {
            name: tensor.grad.clone() for name, tensor in self.net.tensors.items() if tensor.grad is not None
        }
        kind = next(iter(self.net.tensors.values()), torch.zeros(())).dtype
        given = {name: torch.as_tensor(value).to(self.net.device, kind) for name, value in batch.items()}
        for node in graph.nodes:
            for top in node.tops if is_source(node) else ():
                # Caffe computes the gradient of data too, where force_backward or propagate_down asks for it.
                if top.needs_gradient and not given[top.name].requires_grad:
                    given[top.name] = given[top.name].detach().requires_grad_()
        values: dict[str, Tensor] = {}
        found: dict[str, Tensor] = {}
        for step in self._steps:
            tops = self._run(step, values, given)
            values.update(zip(step.tops, tops, strict=True))
            if step.node is not None:
                found.update(zip((top.id for top in step.node.tops), tops, strict=True))
            self._log_forward(step, tops)
        wanted = dict.fromkeys(
            [
                *graph.outputs,
                *(t for node in graph.nodes for t, weight in zip(node.tops, node.loss_weights, strict=True) if weight),
            ]
        )
        return {graph.output_name(blob): found[blob.id] for blob in wanted}

    def _run(self, step: _Step, values: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[Tensor]:
        node = step.node
        if node is not None and is_source(node):
            return [given[top] for top in step.tops]
        step.seen = [values[name] for name in step.bottoms]
        for tensor in step.seen:
            if tensor.requires_grad:
                tensor.retain_grad()
        if node is None:
            return [step.seen[0].view_as(step.seen[0]) for _ in step.tops]
        assert isinstance(node.layer, Layer)  # a net with unknown layers is not made
        bottoms = [seen.detach() if cut else seen for seen, cut in zip(step.seen, node.cut, strict=True)]
        step.params = [self._handed(use) for use in node.params]
        return list(node.layer.forward(bottoms, step.params, self.net.run))

    def _handed(self, use: ParamUse) -> Tensor:
        """A parameter as one layer gets it, with a gradient of its own."""
        tensor = self.net.weights[use.param.id]
        if use.param.statistic:
            return tensor
        tensor = tensor if use.takes_gradient else tensor.detach()
        own = tensor.view(use.shape if use.shape is not None else tensor.shape)
        if own.requires_grad:
            own.retain_grad()
        return own

    def _log_forward(self, step: _Step, tops: list[Tensor]) -> None:
        for name, value in zip(step.tops, tops, strict=True):
            log(Event.TOP_DATA, f"    [Forward] Layer {step.name}, top blob {name} data: {_mean(value)}")
        for index, use in enumerate(step.node.params if step.node is not None else ()):
            value = self.net.weights[use.param.id]
            log(
                Event.PARAM_DATA,
                f"    [Forward] Layer {step.name}, param blob {_shown(use, index)} data: {_mean(value)}",
            )

    def log_backward(self) -> None:
        """Log every gradient, once the backward pass is done, and then the norms of all parameters together."""
        sums = dict(self._before)
        for step in reversed(self._steps):
            node = step.node
            if not (node.needs_backward if node is not None else self._splits_gradients(step)):
                continue
            passes = node.propagate_down if node is not None else (True,)
            for name, tensor, goes_down in zip(step.bottoms, step.seen, passes, strict=True):
                if goes_down:
                    diff = _mean(tensor.grad)
                    log(Event.BOTTOM_DIFF, f"    [Backward] Layer {step.name}, bottom blob {name} diff: {diff}")
            for index, use in enumerate(node.params if node is not None else ()):
                if not use.takes_gradient:
                    continue
                own = step.params[index].grad
                if own is not None:
                    own = own.view(use.param.shape or own.shape)
                    sums[use.param.id] = sums[use.param.id] + own if use.param.id in sums else own
                diff = _mean(sums.get(use.param.id))
                log(Event.PARAM_DIFF, f"    [Backward] Layer {step.name}, param blob {index} diff: {diff}")
        self._log_norms()

    def _splits_gradients(self, split: _Step) -> bool:
        """Whether Caffe has a backward pass for a Split; with force_backward even for that of labels."""
        return split.seen[0].requires_grad or self.net.graph.force_backward

    def _log_norms(self) -> None:
        tensors = list(self.net.tensors.values())
        diffs = [tensor.grad if tensor.grad is not None else torch.zeros(()) for tensor in tensors]
        first, second = (
            ", ".join(
                number(sum(float(t.detach().double().norm(p)) ** p for t in ts) ** (1 / p)) for ts in (tensors, diffs)
            )
            for p in (1, 2)
        )
        text = f"    [Backward] All net params (data, diff): L1 norm = ({first}); L2 norm = ({second})"
        log(Event.PARAM_NORMS, text, level=logging.ERROR)  # Caffe's level, for whoever looks for the letter E


def _mean(values: Tensor | None) -> str:
    """The mean of `|x|`; 0 where there is nothing."""
    return number(values.detach().abs().mean().item() if values is not None and values.numel() else 0.0)


def _name(blob: Blob) -> str:
    return "(automatic)" if blob.automatic else blob.name


def _shown(use: ParamUse, index: int) -> str:
    return use.param.name or str(index)
