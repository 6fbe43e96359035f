"""The product of several blobs with Caffe's quick gradient."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import mul
from typing import Any, cast

import torch
from torch import Tensor


def quotient_product(bottoms: Sequence[Tensor]) -> Tensor:
    """The product of tensors of one shape."""
    return cast(Tensor, QuotientProduct.apply(*bottoms))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class QuotientProduct(torch.autograd.Function):
    """`y = product of x_i`, `dy/dx_i = y / x_i` (eltwise_layer.cpp, stable_prod_grad: false)."""

    @staticmethod
    def forward(ctx: Any, *bottoms: Tensor) -> Tensor:
        product = reduce(mul, bottoms)
        ctx.save_for_backward(product, *bottoms)
        return product

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        product, *bottoms = ctx.saved_tensors
        return tuple(
            product / bottom * gradient if needed else None
            for bottom, needed in zip(bottoms, ctx.needs_input_grad, strict=True)
        )
