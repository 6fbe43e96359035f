"""Caffe's update rules as torch optimizers (sgd_solver.cpp and its siblings in src/caffe/solvers).

An optimizer here updates the parameters of a net in the net's order, including statistics: that is the order of the
history in a solver state. `rate` below is the learning rate times the parameter's lr_mult. Unlike torch's optimizers,
SGD and Nesterov store the learning rate inside the history, so a lower rate takes effect only as the history decays.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, overload

import torch
from torch import Tensor

from siamese_proto.errors import SolverError
from siamese_proto.solver.settings import RuleSettings

# This many numbers of one history do not have the same sign by chance, except in a net with one layer.
_MIN_NUMBERS = 16
_FUSED_TYPES = {torch.float32, torch.float64}


class UpdateRule(torch.optim.Optimizer):
    """Base of all rules: clips, averages and regularizes the gradients in Caffe's order, then updates.

    Parameters with the same `lr_mult` and `decay_mult` are one param group; `lr` is the same in all. A parameter
    without a gradient has gradient zero, so its weight decay and history continue.

    Args:
        params: The parameters, in the order of the net.
        settings: The settings of the rule.
        lr_mults: The factor of the learning rate of each parameter; 1 by default.
        decay_mults: The factor of the weight decay of each parameter; 1 by default.
        keep_steps: Leave in each `grad` what was subtracted from the parameter, as Caffe does in its diff.

    Raises:
        ValueError: A parameter is given twice.
    """

    histories: ClassVar[tuple[str, ...]] = ("history",)  # each has one tensor per parameter; in Caffe's order
    squares: ClassVar[tuple[str, ...]] = ()  # histories that are never negative: steps are divided by their roots

    def __init__(
        self,
        params: Sequence[Tensor],
        settings: RuleSettings,
        *,
        lr_mults: Sequence[float] | None = None,
        decay_mults: Sequence[float] | None = None,
        keep_steps: bool = False,
    ) -> None:
        if len(set(params)) < len(params):
            raise ValueError("a parameter is given twice")
        self.params = list(params)  # in the order of the net
        self.settings = settings
        self.keep_steps = keep_steps
        self.iteration = 0  # number of updates
        ones = [1.0] * len(params)
        groups: dict[tuple[float, float], dict[str, Any]] = {}
        for param, lr_mult, decay_mult in zip(params, lr_mults or ones, decay_mults or ones, strict=True):
            group = {"params": [], "lr_mult": lr_mult, "decay_mult": decay_mult}
            groups.setdefault((lr_mult, decay_mult), group)["params"].append(param)
        super().__init__(groups.values(), {"lr": 0.0, "lr_mult": 1.0, "decay_mult": 1.0})
        for param in params:
            self.state[param] = {name: torch.zeros_like(param, requires_grad=False) for name in self.histories}

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next update."""
        for group in self.param_groups:
            group["lr"] = rate

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove the gradients, or set them to zero."""
        if not set_to_none:
            super().zero_grad(set_to_none=False)
            return
        for param in self.params:  # without the profiler hook of torch's method, which slows small nets
            param.grad = None

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter from its gradient, the sum over `iter_size` passes, which is changed in place."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.update()
        return loss

    @torch.no_grad()
    def update(self) -> None:
        """Do what `step` does, without torch's hooks around it."""
        for param in self.params:
            if param.grad is None:
                param.grad = torch.zeros_like(param)
        grads = [param.grad for param in self.params if param.grad is not None]
        clip(grads, self.settings.clip_gradients)
        if self.settings.iter_size > 1:
            torch._foreach_mul_(grads, 1 / self.settings.iter_size)
        for group in self.param_groups:
            self._update(group["params"], group["lr"] * group["lr_mult"], group["decay_mult"])
        self.iteration += 1

    def _update(self, weights: list[Tensor], rate: float, decay_mult: float) -> None:
        grads = [weight.grad for weight in weights if weight.grad is not None]
        decay = self.settings.weight_decay * decay_mult
        if decay:
            self.apply_weight_decay(weights, grads, rate, decay)
        histories = [[self.state[weight][name] for weight in weights] for name in self.histories]
        at_once = not self.keep_steps and alike_in_memory(weights, grads, *histories)
        if at_once and self.update_at_once(weights, grads, rate, *histories):
            return
        steps = self.steps(grads, rate, *histories)
        torch._foreach_sub_(weights, steps)
        if self.keep_steps:
            torch._foreach_copy_(grads, steps)

    def apply_weight_decay(self, weights: list[Tensor], grads: list[Tensor], rate: float, decay: float) -> None:
        """Apply the weight decay of one group before its steps are computed: as part of the gradient, as in Caffe."""
        add_regularization(weights, grads, decay, self.settings.regularization)

    def steps(self, grads: list[Tensor], rate: float, *histories: list[Tensor]) -> list[Tensor]:
        """Return what to subtract from the weights of one group; changes the histories, one list per kind."""
        raise NotImplementedError

    def update_at_once(self, weights: list[Tensor], grads: list[Tensor], rate: float, *histories: list[Tensor]) -> bool:
        """Do what `steps` and the subtraction do with one torch kernel; False, without changes, if there is none."""
        return False

    def export_history(self) -> list[Tensor]:
        """Return every history in the order of Caffe's solver state: for each kind, one per parameter."""
        return [self.state[param][name] for name in self.histories for param in self.params]

    def check_history(self, history: Sequence[Tensor]) -> None:
        """Raise SolverError if the histories of a solver state do not match this rule and net."""
        own = self.export_history()
        if len(history) != len(own):
            raise SolverError(
                f"the solver state holds {len(history)} histories, but {type(self).__name__} over this net has "
                f"{len(own)}; it was written for another net or by another update rule"
            )
        for index, (expected, stored) in enumerate(zip(own, history, strict=True)):
            if without_leading_ones(expected.shape) != without_leading_ones(stored.shape):
                raise SolverError(
                    f"history {index} of the solver state has shape {tuple(stored.shape)}, but its parameter in this "
                    f"net has shape {tuple(expected.shape)}; it was written for another net"
                )

    def check_signs(self, history: Sequence[Tensor]) -> None:
        """Raise SolverError if histories of an unknown rule cannot be this rule's.

        Squares are never negative; moments of several layers are never all positive.
        """
        names = [name for name in self.histories for _ in self.params]
        squares = [stored for name, stored in zip(names, history, strict=True) if name in self.squares]
        moments = [stored for name, stored in zip(names, history, strict=True) if name not in self.squares]
        large = [stored for stored in moments if stored.count_nonzero() >= _MIN_NUMBERS]
        rule = type(self).__name__
        if any(bool((stored < 0).any()) for stored in squares):
            fault = f"negative numbers where {rule} has squares"
        elif len(large) > 1 and not any(bool((stored < 0).any()) for stored in moments):
            fault = f"only squares where {rule} has none"
        else:
            return
        raise SolverError(f"the solver state has {fault}; it was written by another update rule")

    @torch.no_grad()
    def import_history(self, history: Sequence[Tensor], iteration: int) -> None:
        """Copy the histories of a solver state. Raises SolverError if they do not match this rule and net."""
        self.check_history(history)
        for own, stored in zip(self.export_history(), history, strict=True):
            own.copy_(stored.reshape(own.shape))
        self.iteration = iteration

    def state_dict(self) -> dict[str, Any]:
        """Return torch's form of the state, with the number of updates."""
        return {**super().state_dict(), "iteration": self.iteration}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        state = dict(state_dict)
        self.iteration = state.pop("iteration")
        super().load_state_dict(state)


def alike_in_memory(*lists: Sequence[Tensor]) -> bool:
    """Whether tensors that belong together have the same strides, and types that torch's fused kernels support.

    On the CPU, the one for SGD does not change weights of half precision.
    """
    first, *others = lists
    strides = [tensor.stride() for tensor in first]
    return (
        {tensor.dtype for tensor in first} <= _FUSED_TYPES
        and {tensor.device.type for tensor in first} <= {"cpu", "cuda"}
        and all([tensor.stride() for tensor in other] == strides for other in others)
    )


def without_leading_ones(shape: torch.Size) -> tuple[int, ...]:
    """Return a shape without leading ones: old solver states have four axes for every blob."""
    axes = list(shape)
    while len(axes) > 1 and axes[0] == 1:
        axes.pop(0)
    return tuple(axes)


def clip(grads: list[Tensor], limit: float) -> None:
    """`grad <- grad min(1, limit / |all gradients|)`, the L2 norm over all of them; a negative limit disables it."""
    if limit < 0:
        return
    norm = torch.stack(torch._foreach_norm(grads)).norm()
    # The factor stays on the device, so that nothing waits for it.
    torch._foreach_mul_(grads, limit / norm.clamp(min=max(limit, torch.finfo(norm.dtype).tiny)))


def add_regularization(weights: list[Tensor], grads: list[Tensor], decay: float, kind: Literal["L2", "L1"]) -> None:
    """L2: `grad <- grad + decay weight`;  L1: `grad <- grad + decay sign(weight)`."""
    torch._foreach_add_(grads, torch._foreach_sign(weights) if kind == "L1" else weights, alpha=decay)


class SGD(UpdateRule):
    """`h <- momentum h + rate grad;  weight <- weight - h`.  (sgd_solver.cpp)"""

    def steps(self, grads: list[Tensor], rate: float, *histories: list[Tensor]) -> list[Tensor]:
        (history,) = histories
        torch._foreach_mul_(history, self.settings.momentum)
        torch._foreach_add_(history, grads, alpha=rate)
        return history

    def update_at_once(self, weights: list[Tensor], grads: list[Tensor], rate: float, *histories: list[Tensor]) -> bool:
        if self.settings.momentum == 0:  # torch then uses no history
            return False
        # torch's rule is h <- momentum h + (1 - dampening) grad;  weight <- weight - lr h.
        options: dict[str, Any] = {"weight_decay": 0.0, "nesterov": False, "maximize": False, "is_first_step": False}
        momentum = self.settings.momentum
        torch._fused_sgd_(weights, grads, histories[0], lr=1.0, momentum=momentum, dampening=1 - rate, **options)
        return True


class Nesterov(UpdateRule):
    """`h' <- momentum h + rate grad;  weight <- weight - ((1 + momentum) h' - momentum h)`.  (nesterov_solver.cpp)"""

    def steps(self, grads: list[Tensor], rate: float, *histories: list[Tensor]) -> list[Tensor]:
        (history,) = histories
        momentum = self.settings.momentum
        torch._foreach_mul_(history, momentum)
        decayed = [tensor.clone() for tensor in history]
        torch._foreach_add_(history, grads, alpha=rate)
        steps = torch._foreach_mul(history, 1 + momentum)
        torch._foreach_sub_(steps, decayed)
        return list(steps)


class AdaGrad(UpdateRule):
    """`h <- h + grad^2;  weight <- weight - rate grad / (sqrt(h) + delta)`.  (adagrad_solver.cpp)"""

    squares = ("history",)

    def steps(self, grads: list[Tensor], rate: float, *histories: list[Tensor]) -> list[Tensor]:
        (history,) = histories
        torch._foreach_addcmul_(history, grads, grads)
        return divided_by_roots(grads, history, rate, self.settings.delta)


class RMSProp(UpdateRule):
    """`h <- rms_decay h + (1 - rms_decay) grad^2;  weight <- weight - rate grad / (sqrt(h) + delta)`.

    rmsprop_solver.cpp
    """

    squares = ("history",)

    def steps(self, grads: list[Tensor], rate: float, *histories: list[Tensor]) -> list[Tensor]:
        (history,) = histories
        average(history, torch._foreach_mul(grads, grads), self.settings.rms_decay)
        return divided_by_roots(grads, history, rate, self.settings.delta)


class AdaDelta(UpdateRule):
    """`h <- momentum h + (1 - momentum) grad^2;  step = grad sqrt((s + delta) / (h + delta))`,
    `s <- momentum s + (1 - momentum) step^2;  weight <- weight - rate step`.

    adadelta_solver.cpp
    """

    histories = ("gradients", "steps")
    squares = histories

    def steps(self, grads: list[Tensor], rate: float, *histories: list[Tensor]) -> list[Tensor]:
        squares, squared_steps = histories
        momentum, delta = self.settings.momentum, self.settings.delta
        average(squares, torch._foreach_mul(grads, grads), momentum)
        steps = torch._foreach_div(torch._foreach_add(squared_steps, delta), torch._foreach_add(squares, delta))
        torch._foreach_sqrt_(steps)
        torch._foreach_mul_(steps, grads)
        average(squared_steps, torch._foreach_mul(steps, steps), momentum)
        torch._foreach_mul_(steps, rate)
        return list(steps)


class Adam(UpdateRule):
    """`m <- momentum m + (1 - momentum) grad;  v <- momentum2 v + (1 - momentum2) grad^2`,
    `weight <- weight - rate sqrt(1 - momentum2^t) / (1 - momentum^t) m / (sqrt(v) + delta)`, t counting from 1.

    Unlike in torch's Adam, delta is added to the uncorrected root.  (adam_solver.cpp)
    """

    histories = ("first", "second")
    squares = ("second",)
    corrects_delta: ClassVar[bool] = False

    def steps(self, grads: list[Tensor], rate: float, *histories: list[Tensor]) -> list[Tensor]:
        first, second = histories
        beta1, beta2, updates = self.settings.momentum, self.settings.momentum2, self.iteration + 1
        average(first, grads, beta1)
        average(second, torch._foreach_mul(grads, grads), beta2)
        correction = math.sqrt(1 - beta2**updates)
        delta = self.settings.delta * (correction if self.corrects_delta else 1)
        return divided_by_roots(first, second, rate * correction / (1 - beta1**updates), delta)

    def update_at_once(self, weights: list[Tensor], grads: list[Tensor], rate: float, *histories: list[Tensor]) -> bool:
        updates = self.iteration + 1
        # torch adds its eps to the corrected root, so it must be scaled like the root.
        correction = 1.0 if self.corrects_delta else math.sqrt(1 - self.settings.momentum2**updates)
        if correction == 0:
            return False
        steps = [torch.tensor(float(updates), device=weights[0].device)] * len(weights)
        options: dict[str, Any] = {"weight_decay": 0.0, "amsgrad": False, "maximize": False}
        options |= {"beta1": self.settings.momentum, "beta2": self.settings.momentum2}
        eps = self.settings.delta / correction
        torch._fused_adam_(weights, grads, histories[0], histories[1], [], steps, lr=rate, eps=eps, **options)
        return True


class AdamW(Adam):
    """`weight <- (1 - rate decay) weight`, then, with Adam's m and v,
    `weight <- weight - rate (m / (1 - momentum^t)) / (sqrt(v / (1 - momentum2^t)) + delta)`.

    Not in Caffe. Weight decay is not part of the gradient, and delta is added to the corrected root, as in
    torch.optim.AdamW.  (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019)
    """

    corrects_delta = True

    def apply_weight_decay(self, weights: list[Tensor], grads: list[Tensor], rate: float, decay: float) -> None:
        torch._foreach_mul_(weights, 1 - rate * decay)


def average(history: list[Tensor], values: Sequence[Tensor], decay: float) -> None:
    """`history <- decay history + (1 - decay) values`, an exponential moving average."""
    torch._foreach_mul_(history, decay)
    torch._foreach_add_(history, list(values), alpha=1 - decay)


def divided_by_roots(directions: list[Tensor], squares: list[Tensor], rate: float, delta: float) -> list[Tensor]:
    """`rate direction / (sqrt(square) + delta)`."""
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, delta)
    steps = torch._foreach_div(directions, roots)
    torch._foreach_mul_(steps, rate)
    return list(steps)


RULES: Mapping[str, type[UpdateRule]] = {
    rule.__name__: rule for rule in (SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam, AdamW)
}
