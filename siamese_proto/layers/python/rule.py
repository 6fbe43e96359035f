"""Forward and backward passes of a Python layer as an autograd function."""

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
    """Return the tops. Their gradients come from the layer's own backward."""
    tops: tuple[Tensor, ...] = PythonRule.apply(worker, phase, tuple(in_place), len(bottoms), *bottoms, *params)  # type: ignore[no-untyped-call]  # torch has no types for apply
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
        if worker.passes != ctx.passes:  # another pass ran in between, so the object has the state of that pass
            worker.forward(ctx.phase)
            ctx.passes = worker.passes
        for index, (top, output, gradient) in enumerate(zip(worker.tops, ctx.outputs, gradients, strict=True)):
            top.hold(output, _array(gradient).copy())
            if index < len(ctx.in_place) and ctx.in_place[index]:
                worker.bottoms[index].hold(top.data, top.diff)
        needs_grad = ctx.needs_input_grad[4:]
        worker.backward(needs_grad[: ctx.count])
        diffs = [blob.diff for blob in (*worker.bottoms, *worker.blobs)]
        gradients_of_inputs = (
            torch.from_numpy(diff.copy()).to(tensor.device, tensor.dtype) if flag else None
            for diff, tensor, flag in zip(diffs, tensors, needs_grad, strict=True)
        )
        return None, None, None, None, *gradients_of_inputs


def _load(worker: Worker, in_place: Sequence[bool], count: int, tensors: Sequence[Tensor]) -> None:
    """Copy the bottoms and parameters into the layer's blobs. An in-place top shares the array of its bottom."""
    for index, tensor in enumerate(tensors):
        # A copy, so that writing into the bottoms changes nothing outside the layer.
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
    """Return the values on the CPU, in a type that numpy supports."""
    kind = torch.float32 if tensor.dtype is torch.bfloat16 else tensor.dtype
    array: Array = tensor.detach().to("cpu", kind).contiguous().numpy()
    return array
