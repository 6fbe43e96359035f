"""A pass through the code of a Python layer, as torch sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from siamese_proto.layers.functional.element_wise import differentiable_once

if TYPE_CHECKING:
    from siamese_proto.graph.ir import Phase
    from siamese_proto.layers.python.blobs import Array
    from siamese_proto.layers.python.worker import Worker


def call(
    worker: Worker, phase: Phase, in_place: Sequence[bool], bottoms: Sequence[Tensor], params: Sequence[Tensor]
) -> Sequence[Tensor]:
    """The tops, with the gradients that the layer's own backward computes."""
    tops: tuple[Tensor, ...] = PythonRule.apply(worker, phase, tuple(in_place), len(bottoms), *bottoms, *params)  # type: ignore[no-untyped-call]  # torch leaves apply without types
    return tops


class PythonRule(torch.autograd.Function):
    """forward(bottom, top) and backward(top, propagate_down, bottom) of the user's class (python_layer.hpp)."""

    @staticmethod
    def forward(
        ctx: Any, worker: Worker, phase: Phase, in_place: tuple[bool, ...], count: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        _load(worker, in_place, count, tensors)
        worker.forward(phase)
        ctx.worker, ctx.phase, ctx.in_place, ctx.count = worker, phase, in_place, count
        ctx.passes = worker.passes
        ctx.save_for_backward(*tensors)
        ctx.outputs = [top.data.copy() for top in worker.tops]
        like = tensors[0]
        return tuple(torch.from_numpy(output.copy()).to(like.device, like.dtype) for output in ctx.outputs)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        worker: Worker = ctx.worker
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        _load(worker, ctx.in_place, ctx.count, tensors)
        if worker.passes != ctx.passes:  # another pass lies between: what the object remembers is of that one
            worker.forward(ctx.phase)
            ctx.passes = worker.passes
        for index, (top, output, gradient) in enumerate(zip(worker.tops, ctx.outputs, gradients, strict=True)):
            top.hold(output, _array(gradient).copy())
            if index < len(ctx.in_place) and ctx.in_place[index]:
                worker.bottoms[index].hold(top.data, top.diff)
        wanted = ctx.needs_input_grad[4:]
        worker.backward(wanted[: ctx.count])
        found = [blob.diff for blob in (*worker.bottoms, *worker.blobs)]
        moved = (
            torch.from_numpy(diff.copy()).to(tensor.device, tensor.dtype) if flag else None
            for diff, tensor, flag in zip(found, tensors, wanted, strict=True)
        )
        return None, None, None, None, *moved


def _load(worker: Worker, in_place: Sequence[bool], count: int, tensors: Sequence[Tensor]) -> None:
    """Show the layer these bottoms and parameters; in place, what it writes into the top is in the bottom at once."""
    for index, tensor in enumerate(tensors):
        # A copy: what the layer writes into its bottoms is its own affair.
        array = _array(tensor).copy()
        if index < count:
            worker.bottoms[index].hold(array)
        else:
            worker.blobs[index - count].hold(array)
    for index, top in enumerate(worker.tops):
        top.take_type(_array(tensors[0]).dtype)
        if index < len(in_place) and in_place[index]:
            top.hold(worker.bottoms[index].data)


def _array(tensor: Tensor) -> Array:
    """The values on the CPU, in a type that numpy has."""
    kind = torch.float32 if tensor.dtype is torch.bfloat16 else tensor.dtype
    array: Array = tensor.detach().to("cpu", kind).contiguous().numpy()
    return array
