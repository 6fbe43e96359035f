"""Rules of derivation that have no derivative of their own, and say so."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch


def differentiable_once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse `create_graph` where only a first derivative is known: RuntimeError.

    torch's own `once_differentiable` leaves out silently what a second derivative gets by way of a rule's inputs.
    """

    @functools.wraps(backward)
    def refusing(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(f"{ctx.name()} has no second derivative: leave create_graph out")
        return backward(ctx, *gradients)

    return refusing
