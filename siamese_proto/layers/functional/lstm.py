"""The steps of an LSTM, with a backward pass of few operations a step."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from siamese_proto.layers.functional.once import differentiable_once


def lstm_steps(x: Tensor, cont: Tensor, h: Tensor, c: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """All h and the last c, (T, N, D) and (N, D).

    Of gates' inputs x (T, N, 4 D), cont (T, N, 1), the states before the first step (N, D), through which no gradient
    passes, and weight (4 D, D).
    """
    found = LSTMRule.apply(x, cont, h, c, weight)  # type: ignore[no-untyped-call]  # torch leaves apply without types
    return cast(tuple[Tensor, Tensor], found)


class LSTMRule(torch.autograd.Function):
    """`i, f, o, g = x_t + W cont_t h`, `c = cont_t f c + i g`, `h = o tanh(c)` (lstm_unit_layer.cpp).

    f is 0 where cont is 0, whatever its input is; its gradient is `y (1 - y)` of `y = cont f`, as on Caffe's CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cont: Tensor, h: Tensor, c: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        steps, streams, size = len(x), *h.shape
        gates = torch.empty_like(x).view(steps, streams, 4, size)  # i, f, o, g
        # cont h and c before each step, the tanh of c behind it, and h: no views, so that callers may change h
        before, cells, tanh, out = (x.new_empty(steps, streams, size) for _ in range(4))
        turned, begins = weight.t(), cont == 0
        for t in range(steps):
            torch.mul(h, cont[t], out=before[t])
            cells[t] = c
            gate = gates[t]
            torch.addmm(x[t], before[t], turned, out=gate.view(streams, 4 * size))
            gate[:, :3].sigmoid_()
            gate[:, 3].tanh_()
            i, f, o, g = gate.unbind(1)
            f.mul_(cont[t]).masked_fill_(begins[t], 0.0)
            c = torch.addcmul(f * c, i, g)
            torch.tanh(c, out=tanh[t])
            h = torch.mul(o, tanh[t], out=out[t])
        ctx.save_for_backward(cont, weight, gates, before, cells, tanh)
        ctx.mark_non_differentiable(c)
        return out, c

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        cont, weight, gates, before, cells, tanh = ctx.saved_tensors
        i, f, o, g = gates.unbind(2)
        # What the gradients of c (of h for o) are multiplied by to become those of the gates' inputs.
        slopes = torch.stack([g * i * (1 - i), cells * f * (1 - f), tanh * o * (1 - o), i * (1 - g * g)], 2)
        of_tanh = o * (1 - tanh * tanh)
        of_gates = torch.empty_like(gates)
        of_h, of_c = torch.zeros_like(gradient[0]), torch.zeros_like(gradient[0])
        for t in reversed(range(len(gates))):
            of_h += gradient[t]
            of_c.addcmul_(of_h, of_tanh[t])
            torch.mul(slopes[t], of_c.unsqueeze(1), out=of_gates[t])
            torch.mul(slopes[t, :, 2], of_h, out=of_gates[t, :, 2])
            of_c *= f[t]
            torch.mm(of_gates[t].flatten(1), weight, out=of_h)
            of_h *= cont[t]
        flat = of_gates.flatten(2)
        return flat, None, None, None, flat.flatten(0, 1).t() @ before.flatten(0, 1)
