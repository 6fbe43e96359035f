"""Recurrent layers: their steps, gradients and modules."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamese_proto.layers.functional.element_wise import differentiable_once


def forget_gate(x: Tensor, cont: Tensor) -> Tensor:
    """Return the forget gate (.., D) for its input (.., D) and cont (.., 1)."""
    return cast(Tensor, ForgetGateRule.apply(x, cont))  # type: ignore[no-untyped-call]  # torch leaves apply without types


class ForgetGateRule(torch.autograd.Function):
    """`y = cont sigmoid(x)`, and 0 where cont is 0, even for infinite x; `dy/dx = y (1 - y)`. (lstm_unit_layer.cpp)"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cont: Tensor) -> Tensor:
        y = torch.where(cont == 0, 0.0, cont * x.sigmoid())
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        return gradient * y * (1 - y), None


def lstm_steps(x: Tensor, cont: Tensor, h: Tensor, c: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return all h (T, N, D) and the last c (N, D).

    From the gates' inputs x (T, N, 4 D), cont (T, N, 1), the states before the first step (N, D), which get no
    gradient, and weight (4 D, D).
    """
    outputs = LSTMRule.apply(x, cont, h, c, weight)  # type: ignore[no-untyped-call]  # torch leaves apply without types
    return cast(tuple[Tensor, Tensor], outputs)


class LSTMRule(torch.autograd.Function):
    """`i, f, o, g = x_t + W cont_t h`, `c = cont_t f c + i g`, `h = o tanh(c)` (lstm_unit_layer.cpp).

    f is 0 where cont is 0, even if its input is not finite; its gradient is `y (1 - y)` of `y = cont f`, as on
    Caffe's CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cont: Tensor, h: Tensor, c: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        steps, streams, size = len(x), *h.shape
        gates = torch.empty_like(x).view(steps, streams, 4, size)  # i, f, o, g
        # cont h and c before each step, tanh of c after it, and h: no views, so that callers may change h
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
        # Factors from the gradients of c (for o: of h) to those of the gates' inputs.
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


class Recurrent(nn.Module):
    """Base class of modules that process sequences step by step, starting from the last state of the previous batch.

    With `exposed` the state is an input and an output instead. It has no gradient. `carried` is the stored state; ()
    starts from 0.
    """

    def __init__(self, size: int, states: int, *, static: bool, exposed: bool) -> None:
        super().__init__()
        self.size = size
        self.states = states
        self.static = static
        self.exposed = exposed
        self.carried: tuple[Tensor, ...] = ()

    def transformed(self, params: Sequence[Tensor], x: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Compute the contribution of the inputs to all steps, with the optional static input."""
        steps = functional.linear(x.flatten(2), params[0], params[1])
        return steps + functional.linear(others[0].flatten(1), params[2]) if self.static else steps

    def begin(self, x: Tensor, others: Sequence[Tensor]) -> list[Tensor]:
        """Return the states (N, size) before the first step."""
        if self.exposed:
            return [state.detach()[0] for state in others[int(self.static) :]]
        streams = x.shape[1]
        if not self.carried or len(self.carried[0]) < streams:
            return [x.new_zeros(streams, self.size)] * self.states
        return [state[:streams].to(x) for state in self.carried]

    def end(self, states: Sequence[Tensor]) -> list[Tensor]:
        """Store the states after the last step; exposed states are returned as (1, N, size)."""
        last = [state.detach() for state in states]
        if self.exposed:
            return [state.unsqueeze(0) for state in last]
        if self.carried and len(self.carried[0]) > len(last[0]):  # fewer streams change the first ones
            last = [torch.cat([new, old[len(new) :].to(new)]) for new, old in zip(last, self.carried, strict=True)]
        self.carried = tuple(last)
        return []


class RNNSteps(Recurrent):
    """The steps of `RNN`, with the parameters as an argument."""

    def __init__(self, size: int, *, static: bool = False, exposed: bool = False) -> None:
        super().__init__(size, 1, static=static, exposed=exposed)

    def run(self, params: Sequence[Tensor], x: Tensor, cont: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the outputs of all steps, and the last state if it is exposed."""
        *_, w_hh, w_ho, b_o = params
        (h,) = self.begin(x, others)
        hidden = []
        for step, continues in zip(self.transformed(params, x, others), cont.detach().unsqueeze(-1), strict=True):
            h = (step + functional.linear(continues * h, w_hh)).tanh()  # (N, size)
            hidden.append(h)
        y = functional.linear(torch.stack(hidden), w_ho, b_o).tanh()
        last = self.end([h])
        return (y, *last) if last else y


class RNN(RNNSteps):
    """`h_t = tanh(W_hh c_t h_{t-1} + W_xh x_t + b_h + W_xh_static s)`, `y_t = tanh(W_ho h_t + b_o)`; c is cont.

    x (T, N, inputs), cont (T, N): 0 where a sequence begins, else 1, optional static input s (N, static), and with
    `exposed` h_0 (1, N, size) -> y (T, N, size), and with `exposed` h_T (1, N, size)
    """

    def __init__(self, inputs: int, size: int, static: int = 0, *, exposed: bool = False) -> None:
        super().__init__(size, static=static > 0, exposed=exposed)
        self.w_xh = nn.Parameter(torch.zeros(size, inputs))
        self.b_h = nn.Parameter(torch.zeros(size))
        self.w_xh_static = nn.Parameter(torch.zeros(size, static)) if static else None
        self.w_hh = nn.Parameter(torch.zeros(size, size))
        self.w_ho = nn.Parameter(torch.zeros(size, size))
        self.b_o = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor, cont: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the outputs of all steps, and the last state if it is exposed."""
        return self.run(tuple(self.parameters()), x, cont, *others)


class LSTMSteps(Recurrent):
    """The steps of `LSTM`, with the parameters as an argument."""

    def __init__(self, size: int, *, static: bool = False, exposed: bool = False) -> None:
        super().__init__(size, 2, static=static, exposed=exposed)

    def run(self, params: Sequence[Tensor], x: Tensor, cont: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the outputs of all steps, and the last state if it is exposed."""
        h, c = self.begin(x, others)
        hidden = []
        for step, continues in zip(self.transformed(params, x, others), cont, strict=True):
            c, h = lstm_unit(c, step + functional.linear(continues.detach().unsqueeze(-1) * h, params[-1]), continues)
            hidden.append(h)
        y = torch.stack(hidden)
        last = self.end([h, c])
        return (y, *last) if last else y


class LSTM(LSTMSteps):
    """`i, f, o, g = W_hc cont_t h_{t-1} + W_xc x_t + b_c + W_xc_static s`, then c_t and h_t as in `lstm_unit`.

    x (T, N, inputs), cont (T, N): 0 where a sequence begins, else 1, optional static input s (N, static), and with
    `exposed` h_0 and c_0 (1, N, size) -> h (T, N, size), and with `exposed` h_T and c_T (1, N, size)
    """

    def __init__(self, inputs: int, size: int, static: int = 0, *, exposed: bool = False) -> None:
        super().__init__(size, static=static > 0, exposed=exposed)
        self.w_xc = nn.Parameter(torch.zeros(4 * size, inputs))
        self.b_c = nn.Parameter(torch.zeros(4 * size))
        self.w_xc_static = nn.Parameter(torch.zeros(4 * size, static)) if static else None
        self.w_hc = nn.Parameter(torch.zeros(4 * size, size))

    def forward(self, x: Tensor, cont: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the outputs of all steps, and the last state if it is exposed."""
        return self.run(tuple(self.parameters()), x, cont, *others)


def lstm_unit(before: Tensor, x: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
    """`c = cont f c_before + i g`, `h = o tanh(c)` with i, f, o sigmoids and g the tanh of the four parts of x.

    c_before (.., D), x (.., 4 D), cont (..) -> c (.., D), h (.., D)
    """
    i, f, o, g = x.chunk(4, -1)
    c = forget_gate(f, cont.detach().unsqueeze(-1)) * before + i.sigmoid() * g.tanh()
    return c, o.sigmoid() * c.tanh()
