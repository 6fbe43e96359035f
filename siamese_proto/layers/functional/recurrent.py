"""Caffe's recurrent layers as modules."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from siamese_proto.layers.functional.forget_gate import forget_gate


class Recurrent(nn.Module):
    """What goes through sequences step by step, from the state that the last batch ended with; without parameters.

    With `exposed` the state is given and returned instead. No gradient passes it. `carried` is what was kept; ()
    begins anew.
    """

    def __init__(self, size: int, states: int, *, static: bool, exposed: bool) -> None:
        super().__init__()
        self.size = size
        self.states = states
        self.static = static
        self.exposed = exposed
        self.carried: tuple[Tensor, ...] = ()

    def transformed(self, params: Sequence[Tensor], x: Tensor, others: Sequence[Tensor]) -> Tensor:
        """What the inputs of all steps come to, with the static input if there is one."""
        steps = functional.linear(x.flatten(2), params[0], params[1])
        return steps + functional.linear(others[0].flatten(1), params[2]) if self.static else steps

    def begin(self, x: Tensor, others: Sequence[Tensor]) -> list[Tensor]:
        """The states (N, size) before the first step."""
        if self.exposed:
            return [state.detach()[0] for state in others[int(self.static) :]]
        streams = x.shape[1]
        if not self.carried or len(self.carried[0]) < streams:
            return [x.new_zeros(streams, self.size)] * self.states
        return [state[:streams].to(x) for state in self.carried]

    def end(self, states: Sequence[Tensor]) -> list[Tensor]:
        """Keep the states after the last step, or return them as (1, N, size) where they are exposed."""
        kept = [state.detach() for state in states]
        if self.exposed:
            return [state.unsqueeze(0) for state in kept]
        if self.carried and len(self.carried[0]) > len(kept[0]):  # fewer streams change the first ones
            kept = [torch.cat([new, old[len(new) :].to(new)]) for new, old in zip(kept, self.carried, strict=True)]
        self.carried = tuple(kept)
        return []


class RNNSteps(Recurrent):
    """The steps of `RNN`, with parameters that belong to somebody else."""

    def __init__(self, size: int, *, static: bool = False, exposed: bool = False) -> None:
        super().__init__(size, 1, static=static, exposed=exposed)

    def run(self, params: Sequence[Tensor], x: Tensor, cont: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs of all steps, and the last state where it is exposed."""
        *_, w_hh, w_ho, b_o = params
        (h,) = self.begin(x, others)
        hidden = []
        for step, kept in zip(self.transformed(params, x, others), cont.detach().unsqueeze(-1), strict=True):
            h = (step + functional.linear(kept * h, w_hh)).tanh()  # (N, size)
            hidden.append(h)
        y = functional.linear(torch.stack(hidden), w_ho, b_o).tanh()
        last = self.end([h])
        return (y, *last) if last else y


class RNN(RNNSteps):
    """`h_t = tanh(W_hh c_t h_{t-1} + W_xh x_t + b_h + W_xh_static s)`, `y_t = tanh(W_ho h_t + b_o)`; c is cont.

    x (T, N, inputs), cont (T, N): 0 where a sequence begins, else 1, static input s (N, static) if wanted, and with
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
        """The outputs of all steps, and the last state where it is exposed."""
        return self.run(tuple(self.parameters()), x, cont, *others)


class LSTMSteps(Recurrent):
    """The steps of `LSTM`, with parameters that belong to somebody else."""

    def __init__(self, size: int, *, static: bool = False, exposed: bool = False) -> None:
        super().__init__(size, 2, static=static, exposed=exposed)

    def run(self, params: Sequence[Tensor], x: Tensor, cont: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs of all steps, and the last state where it is exposed."""
        h, c = self.begin(x, others)
        hidden = []
        for step, kept in zip(self.transformed(params, x, others), cont, strict=True):
            c, h = lstm_unit(c, step + functional.linear(kept.detach().unsqueeze(-1) * h, params[-1]), kept)
            hidden.append(h)
        y = torch.stack(hidden)
        last = self.end([h, c])
        return (y, *last) if last else y


class LSTM(LSTMSteps):
    """`i, f, o, g = W_hc cont_t h_{t-1} + W_xc x_t + b_c + W_xc_static s`, then c_t and h_t as in `lstm_unit`.

    x (T, N, inputs), cont (T, N): 0 where a sequence begins, else 1, static input s (N, static) if wanted, and with
    `exposed` h_0 and c_0 (1, N, size) -> h (T, N, size), and with `exposed` h_T and c_T (1, N, size)
    """

    def __init__(self, inputs: int, size: int, static: int = 0, *, exposed: bool = False) -> None:
        super().__init__(size, static=static > 0, exposed=exposed)
        self.w_xc = nn.Parameter(torch.zeros(4 * size, inputs))
        self.b_c = nn.Parameter(torch.zeros(4 * size))
        self.w_xc_static = nn.Parameter(torch.zeros(4 * size, static)) if static else None
        self.w_hc = nn.Parameter(torch.zeros(4 * size, size))

    def forward(self, x: Tensor, cont: Tensor, *others: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The outputs of all steps, and the last state where it is exposed."""
        return self.run(tuple(self.parameters()), x, cont, *others)


def lstm_unit(before: Tensor, x: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
    """`c = cont f c_before + i g`, `h = o tanh(c)` with i, f, o sigmoids and g the tanh of the four parts of x.

    c_before (.., D), x (.., 4 D), cont (..) -> c (.., D), h (.., D)
    """
    i, f, o, g = x.chunk(4, -1)
    c = forget_gate(f, cont.detach().unsqueeze(-1)) * before + i.sigmoid() * g.tanh()
    return c, o.sigmoid() * c.tanh()
