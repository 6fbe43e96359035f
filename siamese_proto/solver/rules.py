"""Caffe's update rules as torch optimizers (sgd_solver.cpp and its siblings in src/caffe/solvers).

An optimizer here runs over the owners of a net's parameters in the order the net owns them, statistics included: that
is the order of the history in a solver state. `rate` below is learning rate times the parameter's own lr_mult.
Unlike torch's optimizers, SGD and Nesterov keep the learning rate inside the history, so a lower rate takes effect only
as fast as the history fades.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, overload

import torch
from torch import Tensor

from siamese_proto.errors import SolverError
from siamese_proto.solver.settings import RuleSettings


class UpdateRule(torch.optim.Optimizer):
    """Base of all rules: clips, averages and regularises the gradients in Caffe's order, then updates.

    One param group a parameter, with its `lr_mult` and `decay_mult`; `lr` is the same in all. A parameter without a
    gradient counts as having gradient zero, so that weight decay and history go on for it.
    """

    histories: ClassVar[tuple[str, ...]] = ("history",)  # one tensor a parameter for each, in Caffe's order

    def __init__(
        self,
        params: Sequence[Tensor],
        settings: RuleSettings,
        *,
        lr_mults: Sequence[float] | None = None,
        decay_mults: Sequence[float] | None = None,
    ) -> None:
        self.settings = settings
        self.iteration = 0  # updates made so far
        ones = [1.0] * len(params)
        groups = [
            {"params": [param], "lr_mult": lr_mult, "decay_mult": decay_mult}
            for param, lr_mult, decay_mult in zip(params, lr_mults or ones, decay_mults or ones, strict=True)
        ]
        super().__init__(groups, {"lr": 0.0, "lr_mult": 1.0, "decay_mult": 1.0})
        for param in params:
            self.state[param] = {name: torch.zeros_like(param, requires_grad=False) for name in self.histories}

    @property
    def params(self) -> list[Tensor]:
        """The parameters in net order."""
        return [group["params"][0] for group in self.param_groups]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate that the next update goes by."""
        for group in self.param_groups:
            group["lr"] = rate

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter from its gradient: the sum over `iter_size` passes, which is changed in place."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        params = self.params
        if params:
            grads = [torch.zeros_like(param) if param.grad is None else param.grad for param in params]
            clip(grads, self.settings.clip_gradients)
            if self.settings.iter_size > 1:
                torch._foreach_mul_(grads, 1 / self.settings.iter_size)
            decays = [self.settings.weight_decay * group["decay_mult"] for group in self.param_groups]
            regularise(params, grads, decays, self.settings.regularization)
            self.update(params, grads, [group["lr"] * group["lr_mult"] for group in self.param_groups])
        self.iteration += 1
        return loss

    def update(self, weights: list[Tensor], grads: list[Tensor], rates: list[float]) -> None:
        """Change weights and histories; one gradient and one rate a weight."""
        raise NotImplementedError

    def history(self, name: str) -> list[Tensor]:
        """The histories of one kind, one a parameter, in net order."""
        return [self.state[param][name] for param in self.params]

    def export_history(self) -> list[Tensor]:
        """Every history as Caffe's solver state lists them: one run over the parameters for each kind."""
        return [tensor for name in self.histories for tensor in self.history(name)]

    @torch.no_grad()
    def import_history(self, history: Sequence[Tensor], iteration: int) -> None:
        """Take over the histories of a solver state; SolverError where they are not those of this rule and net."""
        own = self.export_history()
        if len(history) != len(own):
            raise SolverError(
                f"the solver state holds {len(history)} histories, but {type(self).__name__} over this net has "
                f"{len(own)}; it was written for another net or by another update rule"
            )
        for index, (mine, theirs) in enumerate(zip(own, history, strict=True)):
            if mine.shape != theirs.shape and without_padding(mine.shape) != without_padding(theirs.shape):
                raise SolverError(
                    f"history {index} of the solver state has shape {tuple(theirs.shape)}, but its parameter in this "
                    f"net has shape {tuple(mine.shape)}; it was written for another net"
                )
        for mine, theirs in zip(own, history, strict=True):
            mine.copy_(theirs.reshape(mine.shape))
        self.iteration = iteration

    def state_dict(self) -> dict[str, Any]:
        """Torch's own form of the state, with the number of updates made."""
        return {**super().state_dict(), "iteration": self.iteration}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        state = dict(state_dict)
        self.iteration = state.pop("iteration")
        super().load_state_dict(state)


def without_padding(shape: torch.Size) -> tuple[int, ...]:
    """A shape without leading ones: old solver states write every blob with four axes."""
    axes = list(shape)
    while len(axes) > 1 and axes[0] == 1:
        axes.pop(0)
    return tuple(axes)


def clip(grads: list[Tensor], limit: float) -> None:
    """`grad <- grad min(1, limit / |all gradients|)`, the L2 norm over all of them; negative limits clip nothing."""
    if limit < 0:
        return
    norm = torch.stack(torch._foreach_norm(grads)).norm()
    # The factor stays on the device: whether the limit was met is not asked, so nothing waits for the answer.
    torch._foreach_mul_(grads, limit / norm.clamp(min=max(limit, torch.finfo(norm.dtype).tiny)))


def regularise(weights: list[Tensor], grads: list[Tensor], decays: list[float], kind: Literal["L2", "L1"]) -> None:
    """L2: `grad <- grad + decay weight`;  L1: `grad <- grad + decay sign(weight)`."""
    chosen = [index for index, decay in enumerate(decays) if decay != 0]
    if chosen:
        penalised = [weights[index] for index in chosen]
        slopes = torch._foreach_sign(penalised) if kind == "L1" else penalised
        penalties = torch._foreach_mul(slopes, [decays[index] for index in chosen])
        torch._foreach_add_([grads[index] for index in chosen], penalties)


class SGD(UpdateRule):
    """`h <- momentum h + rate grad;  weight <- weight - h`.  (sgd_solver.cpp)"""

    def update(self, weights: list[Tensor], grads: list[Tensor], rates: list[float]) -> None:
        history = self.history("history")
        torch._foreach_mul_(history, self.settings.momentum)
        torch._foreach_add_(history, torch._foreach_mul(grads, rates))
        torch._foreach_sub_(weights, history)


class Nesterov(UpdateRule):
    """`h' <- momentum h + rate grad;  weight <- weight - ((1 + momentum) h' - momentum h)`.  (nesterov_solver.cpp)"""

    def update(self, weights: list[Tensor], grads: list[Tensor], rates: list[float]) -> None:
        history = self.history("history")
        momentum = self.settings.momentum
        torch._foreach_mul_(history, momentum)
        torch._foreach_add_(weights, history)
        torch._foreach_add_(history, torch._foreach_mul(grads, rates))
        torch._foreach_sub_(weights, torch._foreach_mul(history, 1 + momentum))


class AdaGrad(UpdateRule):
    """`h <- h + grad^2;  weight <- weight - rate grad / (sqrt(h) + delta)`.  (adagrad_solver.cpp)"""

    def update(self, weights: list[Tensor], grads: list[Tensor], rates: list[float]) -> None:
        history = self.history("history")
        torch._foreach_addcmul_(history, grads, grads)
        descend(weights, grads, history, rates, self.settings.delta)


class RMSProp(UpdateRule):
    """`h <- rms_decay h + (1 - rms_decay) grad^2;  weight <- weight - rate grad / (sqrt(h) + delta)`.

    rmsprop_solver.cpp
    """

    def update(self, weights: list[Tensor], grads: list[Tensor], rates: list[float]) -> None:
        history = self.history("history")
        fade(history, torch._foreach_mul(grads, grads), self.settings.rms_decay)
        descend(weights, grads, history, rates, self.settings.delta)


class AdaDelta(UpdateRule):
    """`h <- momentum h + (1 - momentum) grad^2;  step = grad sqrt((s + delta) / (h + delta))`,
    `s <- momentum s + (1 - momentum) step^2;  weight <- weight - rate step`.

    adadelta_solver.cpp
    """

    histories = ("gradients", "steps")

    def update(self, weights: list[Tensor], grads: list[Tensor], rates: list[float]) -> None:
        gradients, steps = self.history("gradients"), self.history("steps")
        momentum, delta = self.settings.momentum, self.settings.delta
        fade(gradients, torch._foreach_mul(grads, grads), momentum)
        step = torch._foreach_div(torch._foreach_add(steps, delta), torch._foreach_add(gradients, delta))
        torch._foreach_sqrt_(step)
        torch._foreach_mul_(step, grads)
        fade(steps, torch._foreach_mul(step, step), momentum)
        torch._foreach_mul_(step, rates)
        torch._foreach_sub_(weights, step)


class Adam(UpdateRule):
    """`m <- momentum m + (1 - momentum) grad;  v <- momentum2 v + (1 - momentum2) grad^2`,
    `weight <- weight - rate sqrt(1 - momentum2^t) / (1 - momentum^t) m / (sqrt(v) + delta)`, t counting from 1.

    delta is added to the uncorrected root, in which it differs from torch's Adam.  (adam_solver.cpp)
    """

    histories = ("first", "second")

    def update(self, weights: list[Tensor], grads: list[Tensor], rates: list[float]) -> None:
        first, second = self.history("first"), self.history("second")
        beta1, beta2, updates = self.settings.momentum, self.settings.momentum2, self.iteration + 1
        fade(first, grads, beta1)
        fade(second, torch._foreach_mul(grads, grads), beta2)
        correction = math.sqrt(1 - beta2**updates) / (1 - beta1**updates)
        descend(weights, first, second, [rate * correction for rate in rates], self.settings.delta)


def fade(history: list[Tensor], news: Sequence[Tensor], keep: float) -> None:
    """`history <- keep history + (1 - keep) news`."""
    torch._foreach_mul_(history, keep)
    torch._foreach_add_(history, list(news), alpha=1 - keep)


def descend(
    weights: list[Tensor], directions: list[Tensor], squares: list[Tensor], rates: list[float], delta: float
) -> None:
    """`weight <- weight - rate direction / (sqrt(square) + delta)`."""
    steps = torch._foreach_sqrt(squares)
    torch._foreach_add_(steps, delta)
    steps = torch._foreach_div(directions, steps)
    torch._foreach_mul_(steps, rates)
    torch._foreach_sub_(weights, steps)


RULES: Mapping[str, type[UpdateRule]] = {
    rule.__name__: rule for rule in (SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam)
}
