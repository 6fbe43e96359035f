"""The lines of `debug_info`: the mean size of every value and gradient of a pass, in Caffe's wording (net.cpp)."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from siamese_proto.graph.gradient_flow import gradient_flow
from siamese_proto.graph.ir import Node, ParamUse
from siamese_proto.graph.splits import insert_splits
from siamese_proto.layers.base import Layer
from siamese_proto.net.net import Net
from siamese_proto.solver.log import Event, log, number


@dataclass
class _Step:
    """A layer of the net as written, or a Split that Caffe inserts after it, and its inputs in the last pass."""

    name: str
    node: Node | None  # None: a Split
    bottoms: tuple[str, ...]  # names of blobs, or of tops of Splits
    tops: tuple[str, ...]
    inputs: list[Tensor] = field(default_factory=list)
    params: list[Tensor] = field(default_factory=list)


class DebugPass:
    """Runs a net as written, layer by layer, and logs the mean of `|x|` of its values and gradients.

    Each layer gets its own tensors, so that a blob that several layers read has a gradient for each, as in Caffe, and a
    shared parameter shows the sum so far.
    """

    def __init__(self, net: Net) -> None:
        self.net = net
        self._steps: list[_Step] = []
        for index, message in insert_splits([node.message for node in net.graph.nodes]):
            node = net.graph.nodes[index] if index is not None else None
            tops = message.top if node is None else ["(automatic)" if t.automatic else t.name for t in node.tops]
            self._steps.append(_Step(message.name, node, tuple(message.bottom), tuple(tops)))
        self._gradients = gradient_flow(net.graph)
        self._earlier: dict[str, Tensor] = {}  # gradients of the previous passes of the iteration, by parameter

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Run the net and log every top and parameter; returns the outputs, and the blobs with a loss weight."""
        graph, tensors = self.net.graph, self.net.tensors
        self._earlier = {name: tensor.grad.clone() for name, tensor in tensors.items() if tensor.grad is not None}
        dtype = next(iter(tensors.values()), torch.zeros(())).dtype
        sources = {name: torch.as_tensor(value).to(self.net.device, dtype) for name, value in batch.items()}
        for node in graph.nodes:
            for top in node.tops if node.is_source else ():
                # Caffe computes the gradient of data too, if force_backward or propagate_down asks for it.
                if top.id in self._gradients.blobs and not sources[top.name].requires_grad:
                    sources[top.name] = sources[top.name].detach().requires_grad_()
        by_name: dict[str, Tensor] = {}
        by_id: dict[str, Tensor] = {}
        for step in self._steps:
            is_input = step.node is not None and step.node.is_source
            tops = [sources[top] for top in step.tops] if is_input else self._run(step, by_name)
            by_name.update(zip(step.tops, tops, strict=True))
            if step.node is not None:
                by_id.update(zip((top.id for top in step.node.tops), tops, strict=True))
            self._log_forward(step, tops)
        outputs = [*graph.outputs, *(top for top, _ in graph.weighted_tops())]
        return {graph.output_name(blob): by_id[blob.id] for blob in outputs}

    def _run(self, step: _Step, values: Mapping[str, Tensor]) -> Sequence[Tensor]:
        step.inputs = [values[name] for name in step.bottoms]
        for tensor in step.inputs:
            if tensor.requires_grad:
                tensor.retain_grad()
        if step.node is None:
            return [step.inputs[0].view_as(step.inputs[0]) for _ in step.tops]
        assert isinstance(step.node.layer, Layer)  # a net with unknown layers is not built
        bottoms = [x.detach() if cut else x for x, cut in zip(step.inputs, step.node.cut, strict=True)]
        step.params = [self._own_view(use) for use in step.node.params]
        return step.node.layer.forward(bottoms, step.params, self.net.run_state)

    def _own_view(self, use: ParamUse) -> Tensor:
        """A parameter as one layer uses it, with a separate gradient."""
        tensor = self.net.weights[use.param.id]
        if use.param.statistic:
            return tensor
        tensor = tensor if use.takes_gradient else tensor.detach()
        view = tensor.view(use.shape if use.shape is not None else tensor.shape)
        if view.requires_grad:
            view.retain_grad()
        return view

    def _log_forward(self, step: _Step, tops: Sequence[Tensor]) -> None:
        for name, value in zip(step.tops, tops, strict=True):
            log(Event.TOP_DATA, f"    [Forward] Layer {step.name}, top blob {name} data: {_mean(value)}")
        for index, use in enumerate(step.node.params if step.node is not None else ()):
            name, mean = use.param.name or str(index), _mean(self.net.weights[use.param.id])
            log(Event.PARAM_DATA, f"    [Forward] Layer {step.name}, param blob {name} data: {mean}")

    def log_backward(self) -> None:
        """Log every gradient after the backward pass, and then the norms of all parameters together."""
        sums = dict(self._earlier)
        for step in reversed(self._steps):
            node = step.node
            # Caffe has a backward pass for a Split if its blob has a gradient; with force_backward even for labels.
            splits = node is None and (step.inputs[0].requires_grad or self.net.graph.force_backward)
            if not (node.id in self._gradients.nodes if node is not None else splits):
                continue
            passes = self._gradients.bottoms[node.id] if node is not None else (True,)
            for name, tensor, goes_down in zip(step.bottoms, step.inputs, passes, strict=True):
                if goes_down:
                    mean = _mean(tensor.grad)
                    log(Event.BOTTOM_DIFF, f"    [Backward] Layer {step.name}, bottom blob {name} diff: {mean}")
            for index, use in enumerate(node.params if node is not None else ()):
                if not use.takes_gradient:
                    continue
                grad = step.params[index].grad
                if grad is not None:
                    grad = grad.view(use.param.shape or grad.shape)
                    sums[use.param.id] = sums[use.param.id] + grad if use.param.id in sums else grad
                mean = _mean(sums.get(use.param.id))
                log(Event.PARAM_DIFF, f"    [Backward] Layer {step.name}, param blob {index} diff: {mean}")
        self._log_norms()

    def _log_norms(self) -> None:
        tensors = list(self.net.tensors.values())
        diffs = [tensor.grad if tensor.grad is not None else torch.zeros(()) for tensor in tensors]
        norms = []
        for p in (1, 2):
            powers = (sum(float(t.detach().double().norm(p)) ** p for t in ts) for ts in (tensors, diffs))
            norms.append(", ".join(number(power ** (1 / p)) for power in powers))
        text = f"    [Backward] All net params (data, diff): L1 norm = ({norms[0]}); L2 norm = ({norms[1]})"
        log(Event.PARAM_NORMS, text, level=logging.ERROR)  # Caffe's level


def _mean(values: Tensor | None) -> str:
    """The mean of `|x|`; 0 without values."""
    return number(values.detach().abs().mean().item() if values is not None and values.numel() else 0.0)
