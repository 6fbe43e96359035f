"""Layers that go through sequences step by step."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, ClassVar

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Arity, ParamRole, Shape, exactly
from siamese_proto.layers.base import Layer, RunState, layer, read_filler
from siamese_proto.layers.torch_source import Source, call, expression
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


class Recurrent(Layer):
    """Base class of RNN and LSTM (recurrent_layer.cpp).

    A hidden state that is not exposed is stored in `RunState.carried` for the next forward pass, detached; initially it
    is 0. A batch with fewer streams uses and changes the state of the first ones; if a batch has more streams than any
    before, all start with 0.
    """

    labels = (1,)
    reads = ("recurrent_param",)
    bottoms = Arity(2, 5)  # `read` narrows `bottoms` and `tops`
    bottom_names = ("input", "sequence marker (cont)")
    tops = Arity(1, 3)
    states: ClassVar[int] = 1
    gates: ClassVar[int] = 1

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.recurrent_param
        self.num_output = settings.num_output
        self.exposed = settings.expose_hidden
        self.weight_filler = read_filler(settings.weight_filler)
        self.bias_filler = read_filler(settings.bias_filler)
        self.is_debugged = settings.debug_info
        least = 2 + self.states * self.exposed
        self.bottoms, self.tops = Arity(least, least + 1), exactly(1 + self.states * self.exposed)
        self.has_static = self.bottom_count > least
        if self.num_output < 1:
            raise GraphError(f"num_output {self.num_output} must be at least 1", field="recurrent_param.num_output")

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        x, cont, *others = bottoms
        if len(x) < 3:
            raise GraphError(f"bottom 0 has shape {x}, expected (T, N, ...): steps, streams, values", field="bottom[0]")
        if cont != x[:2]:
            raise GraphError(
                f"bottom 1 (cont) has shape {cont}, expected {x[:2]}: one number per step and stream",
                field="bottom[1]",
            )
        if self.has_static and (len(others[0]) < 2 or others[0][0] != x[1]):
            raise GraphError(
                f"bottom 2 (the static input) has shape {others[0]}, expected ({x[1]}, ...): the values of each stream",
                field="bottom[2]",
            )
        state = (1, x[1], self.num_output)
        for index, shape in enumerate(others[self.has_static :], 2 + self.has_static):
            if shape != state:
                raise GraphError(
                    f"bottom {index} (hidden state) has shape {shape}, expected {state}", field=f"bottom[{index}]"
                )
        return [(*x[:2], self.num_output), *[state] * (self.states * self.exposed)]

    def unused_fields(self) -> Sequence[str]:
        return ["recurrent_param.debug_info"] if self.is_debugged else []

    def describe(self) -> str:
        return str(self.num_output) + " exposed" * self.exposed

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        static = prod(bottoms[2][1:]) if self.has_static else 0
        exposed = {"exposed": (self.exposed, False)}
        module = call(self.type, prod(bottoms[0][2:]), self.num_output, static=(static, 0), **exposed)
        memory = call(f"{self.type}Steps", self.num_output, static=(self.has_static, False), **exposed)
        arguments = ", ".join(f"{{{index}}}" for index in range(len(bottoms)))
        names = tuple(role.role.lower() for role in self.params())
        params = ", ".join(f"{{p{index}}}" for index in range(len(names)))
        return Source(
            tops=(f"{{module}}({arguments})",),
            module=module,
            names=names,
            apart=(f"{{memory}}.run(({params}), {arguments})",),
            helpers=(f"functional.recurrent.{self.type}",),
            has_state=not self.exposed,
            memory=memory,
        )

    def _input_roles(self, suffix: str) -> list[ParamRole]:
        roles = [ParamRole(f"W_x{suffix}", self.weight_filler), ParamRole(f"b_{suffix}", self.bias_filler)]
        return roles + [ParamRole(f"W_x{suffix}_static", self.weight_filler)] * self.has_static

    def _input_shapes(self, bottoms: Sequence[Shape]) -> list[Shape]:
        rows = self.gates * self.num_output
        static: list[Shape] = [(rows, prod(bottoms[2][1:]))] if self.has_static else []
        return [(rows, prod(bottoms[0][2:])), (rows,), *static]

    def _transformed(self, bottoms: Sequence[Tensor], params: Sequence[Tensor]) -> Tensor:
        """Compute `W_x x + b + W_static x_static` of all steps, (T, N, gates x num_output)."""
        from torch.nn import functional

        y = functional.linear(bottoms[0].flatten(2), params[0], params[1])
        return y + functional.linear(bottoms[2].flatten(1), params[2]) if self.has_static else y

    def _begin(self, bottoms: Sequence[Tensor], run: RunState) -> list[Tensor]:
        """Return the states (N, num_output) before the first step."""
        if self.exposed:
            return [bottom.detach()[0] for bottom in bottoms[2 + self.has_static :]]
        x = bottoms[0]
        streams = x.shape[1]
        stored = run.carried.get(self.key)
        if stored is None or len(stored[0]) < streams:
            return [x.new_zeros(streams, self.num_output)] * self.states
        return [state[:streams].to(x) for state in stored]

    def _end(self, states: Sequence[Tensor], run: RunState) -> list[Tensor]:
        """Store the states (N, num_output) after the last step; exposed states are returned as (1, N, num_output)."""
        import torch

        states = [state.detach() for state in states]
        if self.exposed:
            return [state.unsqueeze(0) for state in states]
        before = run.carried.get(self.key)
        if before is not None and len(before[0]) > len(states[0]):
            states = [torch.cat([new, old[len(new) :].to(new)]) for new, old in zip(states, before, strict=True)]
        run.carried[self.key] = tuple(states)
        return []


@layer("RNN")
class RNN(Recurrent):
    """`h_t = tanh(W_hh c_t h_{t-1} + W_xh x_t + b_h + W_xh_static s)`, `y_t = tanh(W_ho h_t + b_o)`; c is cont.

    x (T, N, *K), cont (T, N): 0 where a sequence begins, else 1, optional static input s (N, *S)
    -> y (T, N, num_output)
    With `expose_hidden` there are a bottom h_0 and a top h_T, both (1, N, num_output), without gradient. Otherwise h_T
    is h_0 of the next forward pass.  W_xh (D, prod K), b_h (D), [W_xh_static (D, prod S)], W_hh (D, D),
    W_ho (D, D), b_o (D) with D = num_output
    Caffe: rnn_layer.cpp, recurrent_layer.cpp
    """

    def params(self) -> Sequence[ParamRole]:
        weights = [ParamRole(role, self.weight_filler) for role in ("W_hh", "W_ho")]
        return [*self._input_roles("h"), *weights, ParamRole("b_o", self.bias_filler)]

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        size = self.num_output
        return [*self._input_shapes(bottoms), (size, size), (size, size), (size,)]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch
        from torch.nn import functional

        *_, recurrent_weight, output_weight, output_bias = params
        cont = bottoms[1].detach().unsqueeze(-1)  # (T, N, 1)
        (h,) = self._begin(bottoms, run)
        steps = []
        for step, x in enumerate(self._transformed(bottoms, params)):
            h = (x + functional.linear(cont[step] * h, recurrent_weight)).tanh()  # (N, D)
            steps.append(h)
        y = functional.linear(torch.stack(steps), output_weight, output_bias).tanh()
        return [y, *self._end([h], run)]

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return _products(self, bottoms)


@layer("LSTM")
class LSTM(Recurrent):
    """`i, f, o, g = W_hc cont_t h_{t-1} + W_xc x_t + b_c + W_xc_static s`, then h_t and c_t as in LSTMUnit.

    x (T, N, *K), cont (T, N): 0 where a sequence begins, else 1, optional static input s (N, *S)
    -> h (T, N, num_output)
    With `expose_hidden` there are bottoms h_0 and c_0 and tops h_T and c_T, (1, N, num_output), without gradient.
    Otherwise h_T and c_T are h_0 and c_0 of the next forward pass.
    W_xc (4 D, prod K), b_c (4 D), [W_xc_static (4 D, prod S)], W_hc (4 D, D) with D = num_output
    Caffe: lstm_layer.cpp, recurrent_layer.cpp
    """

    states = 2
    gates = 4

    def params(self) -> Sequence[ParamRole]:
        return [*self._input_roles("c"), ParamRole("W_hc", self.weight_filler)]

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [*self._input_shapes(bottoms), (4 * self.num_output, self.num_output)]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        cont = bottoms[1].detach().unsqueeze(-1)  # (T, N, 1)
        h, c = self._begin(bottoms, run)
        if torch.compiler.is_compiling():
            out, h, c = self._step_by_step(bottoms, cont, params, h, c)
        elif self._is_for_torch(bottoms[0], cont):
            out, h, c = self._by_torch(bottoms[0], cont[0], params, h, c)
        else:
            from siamese_proto.layers.functional.recurrent import lstm_steps

            transformed = self._transformed(bottoms, params).to(params[-1].dtype)  # differs under autocast
            out, c = lstm_steps(transformed, cont, h, c, params[-1])
            h = out[-1].clone()  # the stored state must not share memory with a top
        return [out, *self._end([h, c], run)]

    def _step_by_step(
        self, bottoms: Sequence[Tensor], cont: Tensor, params: Sequence[Tensor], h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return all h, and the last h and c."""
        import torch
        from torch.nn import functional

        from siamese_proto.layers.functional.recurrent import lstm_unit

        steps = []
        for step, x in enumerate(self._transformed(bottoms, params)):
            c, h = lstm_unit(c, x + functional.linear(cont[step] * h, params[-1]), bottoms[1][step])
            steps.append(h)
        return torch.stack(steps), h, c

    def _is_for_torch(self, x: Tensor, cont: Tensor) -> bool:
        """Whether torch's kernel computes the same: in single precision, if no sequence begins after the first step."""
        import torch

        if self.has_static or not x.is_cpu or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return False
        is_supported = cont == 1
        is_supported[0] |= cont[0] == 0  # between 0 and 1 Caffe's gradient is not the derivative
        return bool(is_supported.all())

    def _by_torch(
        self, x: Tensor, cont: Tensor, params: Sequence[Tensor], h: Tensor, c: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return all h, and the last h and c; `cont` (N, 1) is that of the first step. No sequence begins after it."""
        import torch

        # Torch's order of gates is i, f, g, o; it has a second bias.
        in_order = [torch.cat([i, f, g, o]) for i, f, o, g in (param.chunk(4) for param in params)]
        from_input, bias, from_hidden = in_order
        begin = [(cont * h).unsqueeze(0), torch.where(cont == 0, 0.0, c).unsqueeze(0)]
        weights = [from_input, from_hidden, bias, torch.zeros_like(bias)]
        out, h, c = torch.lstm(x.flatten(2), begin, weights, True, 1, 0.0, True, False, False)
        return out, h[0], c[0]

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return _products(self, bottoms)


@layer("LSTMUnit")
class LSTMUnit(Layer):
    """`c = cont f c_before + i g`, `h = o tanh(c)`; i, f, o are sigmoids and g is the tanh of the four parts of x.

    c_before (1, N, D), x (1, N, 4 D), cont (1, N) -> c (1, N, D), h (1, N, D)
    The gradient of f is `cont f (1 - cont f)`, as on Caffe's CPU: the derivative where cont is 0 or 1.
    Caffe: lstm_unit_layer.cpp
    """

    bottoms = exactly(3)
    bottom_names = ("cell state", "gates", "sequence marker (cont)")
    tops = exactly(2)
    labels = (2,)

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        before = bottoms[0]
        if len(before) != 3 or before[0] != 1:
            raise GraphError(f"bottom 0 has shape {before}, expected (1, N, D)", field="bottom[0]")
        for index, expected in enumerate([(1, before[1], 4 * before[2]), before[:2]], 1):
            if bottoms[index] != expected:
                raise GraphError(
                    f"bottom {index} has shape {bottoms[index]}, expected {expected} for bottom 0 of shape {before}",
                    field=f"bottom[{index}]",
                )
        return [before, before]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from siamese_proto.layers.functional.recurrent import lstm_unit

        return lstm_unit(*bottoms)

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        return expression("lstm_unit({0}, {1}, {2})", "functional.recurrent.lstm_unit")


def _products(recurrent: Recurrent, bottoms: Sequence[Shape]) -> int:
    """Return the multiply-adds: every matrix once per step and stream, that of the static input once per stream."""
    steps, streams = bottoms[0][:2]
    matrices = zip(recurrent.params(), recurrent.param_shapes(bottoms), strict=True)
    return sum(
        streams * prod(shape) * (1 if role.role.endswith("static") else steps)
        for role, shape in matrices
        if len(shape) > 1
    )
