"""Caffe's update rules as torch optimizers (sgd_solver.cpp and its siblings in src/caffe/solvers).

An optimizer here runs over the owners of a net's parameters in the order the net owns them, statistics included: that
is the order of the history in a solver state. `rate` below is learning rate times the parameter's own lr_mult.
Unlike torch's optimizers, SGD and Nesterov keep the learning rate inside the history, so a lower rate takes effect only
as fast as the history fades.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, overload

import torch
from torch import Tensor

from siamese_proto.errors import SolverError
from siamese_proto.solver.settings import RuleSettings

# So many numbers of one history do not have the same sign by chance, unless the net has but one layer.
_ENOUGH = 16
_SUITED = {torch.float32, torch.float64}


class UpdateRule(torch.optim.Optimizer):
    """Base of all rules: clips, averages and regularises the gradients in Caffe's order, then updates.

    Parameters of one `lr_mult` and `decay_mult` are one param group; `lr` is the same in all. A parameter without a
    gradient counts as having gradient zero, so that weight decay and history go on for it. With `keep_steps` an update
    leaves in each `grad` what was subtracted from the parameter, as Caffe's does in its diff. Raises ValueError where a
    parameter is given twice.
    """

    histories: ClassVar[tuple[str, ...]] = ("history",)  # one tensor a parameter for each, in Caffe's order
    squares: ClassVar[tuple[str, ...]] = ()  # those that are never negative: steps are divided by their roots

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
        self.params = list(params)  # in net order
        self.settings = settings
        self.keep_steps = keep_steps
        self.iteration = 0  # updates made so far
        ones = [1.0] * len(params)
        grouped: dict[tuple[float, float], list[Tensor]] = defaultdict(list)
        for param, *mults in zip(params, lr_mults or ones, decay_mults or ones, strict=True):
            grouped[mults[0], mults[1]].append(param)
        groups = [
            {"params": members, "lr_mult": lr_mult, "decay_mult": decay_mult}
            for (lr_mult, decay_mult), members in grouped.items()
        ]
        super().__init__(groups, {"lr": 0.0, "lr_mult": 1.0, "decay_mult": 1.0})
        for param in params:
            self.state[param] = {name: torch.zeros_like(param, requires_grad=False) for name in self.histories}

    def enlarges_rounding(self) -> bool:
        """Whether a gradient that is 0 but for rounding makes a step as large as any, and not one as small as it is."""
        return bool(self.squares) or (self.settings.weight_decay != 0 and self.settings.regularization == "L1")

    def set_rate(self, rate: float) -> None:
        """Set the learning rate that the next update goes by."""
        for group in self.param_groups:
            group["lr"] = rate

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, or make them zeros."""
        if not set_to_none:
            super().zero_grad(set_to_none=False)
            return
        for param in self.params:  # torch's own way asks a profiler first, which a small net notices
            param.grad = None

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
        self.update()
        return loss

    @torch.no_grad()
    def update(self) -> None:
        """What `step` does, without the hooks that torch puts around it."""
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
            self.penalise(weights, grads, rate, decay)
        histories = [[self.state[weight][name] for weight in weights] for name in self.histories]
        at_once = not self.keep_steps and alike_in_memory(weights, grads, *histories)
        if at_once and self.update_at_once(weights, grads, rate, *histories):
            return
        steps = self.steps(grads, rate, *histories)
        torch._foreach_sub_(weights, steps)
        if self.keep_steps:
            torch._foreach_copy_(grads, steps)

    def penalise(self, weights: list[Tensor], grads: list[Tensor], rate: float, decay: float) -> None:
        """Weight decay of one group, before its steps are computed: part of the gradient, as in Caffe."""
        regularise(weights, grads, decay, self.settings.regularization)

    def steps(self, grads: list[Tensor], rate: float, *histories: list[Tensor]) -> list[Tensor]:
        """What to subtract from the weights of one group; changes the histories, one list for each kind."""
        raise NotImplementedError

    def update_at_once(self, weights: list[Tensor], grads: list[Tensor], rate: float, *histories: list[Tensor]) -> bool:
        """Do what `steps` and the subtraction do by one kernel of torch's; False, with nothing done, without such."""
        return False

    def history(self, name: str) -> list[Tensor]:
        """The histories of one kind, one a parameter, in net order."""
        return [self.state[param][name] for param in self.params]

    def export_history(self) -> list[Tensor]:
        """Every history as Caffe's solver state lists them: one run over the parameters for each kind."""
        return [tensor for name in self.histories for tensor in self.history(name)]

    def check_history(self, history: Sequence[Tensor]) -> None:
        """Raise SolverError where the histories of a solver state are not those of this rule over this net."""
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

    def check_signs(self, history: Sequence[Tensor]) -> None:
        """Raise SolverError where histories that do not say which rule wrote them cannot be this one's.

        Squares are never negative; moments of several layers are never all positive.
        """
        kinds = [name for name in self.histories for _ in self.params]
        squares = [theirs for kind, theirs in zip(kinds, history, strict=True) if kind in self.squares]
        moments = [theirs for kind, theirs in zip(kinds, history, strict=True) if kind not in self.squares]
        told = [theirs for theirs in moments if theirs.count_nonzero() >= _ENOUGH]
        for wrong, text in (
            (any(bool((theirs < 0).any()) for theirs in squares), "negative numbers where {} keeps squares"),
            (
                len(told) > 1 and not any(bool((theirs < 0).any()) for theirs in moments),
                "only squares where {} has none",
            ),
        ):
            if wrong:
                found = text.format(type(self).__name__)
                raise SolverError(f"the solver state has {found}; it was written by another update rule")

    @torch.no_grad()
    def import_history(self, history: Sequence[Tensor], iteration: int) -> None:
        """Take over the histories of a solver state; SolverError where they are not those of this rule and net."""
        self.check_history(history)
        for mine, theirs in zip(self.export_history(), history, strict=True):
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


def alike_in_memory(*lists: Sequence[Tensor]) -> bool:
    """Whether tensors that belong together have their numbers in one order, of types that torch's kernels suit.

    On the CPU that for SGD leaves weights of half precision as they are.
    """
    first, *others = lists
    strides = [tensor.stride() for tensor in first]
    return (
        {tensor.dtype for tensor in first} <= _SUITED
        and {tensor.device.type for tensor in first} <= {"cpu", "cuda"}
        and all([tensor.stride() for tensor in other] == strides for other in others)
    )


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


def regularise(weights: list[Tensor], grads: list[Tensor], decay: float, kind: Literal["L2", "L1"]) -> None:
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
        if self.settings.momentum == 0:  # for torch a rule of its own, without a history
            return False
        # torch's rule is h <- momentum h + (1 - dampening) grad;  weight <- weight - lr h.
        torch._fused_sgd_(
            weights,
            grads,
            histories[0],
            weight_decay=0.0,
            momentum=self.settings.momentum,
            lr=1.0,
            dampening=1 - rate,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )
        return True


class Nesterov(UpdateRule):
    """`h' <- momentum h + rate grad;  weight <- weight - ((1 + momentum) h' - momentum h)`.  (nesterov_solver.cpp)"""

    def steps(self, grads: list[Tensor], rate: float, *histories: list[Tensor]) -> list[Tensor]:
        (history,) = histories
        momentum = self.settings.momentum
        torch._foreach_mul_(history, momentum)
        faded = [tensor.clone() for tensor in history]
        torch._foreach_add_(history, grads, alpha=rate)
        steps = torch._foreach_mul(history, 1 + momentum)
        torch._foreach_sub_(steps, faded)
        return list(steps)


class AdaGrad(UpdateRule):
    """`h <- h + grad^2;  weight <- weight - rate grad / (sqrt(h) + delta)`.  (adagrad_solver.cpp)"""

    squares = ("history",)

    def steps(self, grads: list[Tensor], rate: float, *histories: list[Tensor]) -> list[Tensor]:
        (history,) = histories
        torch._foreach_addcmul_(history, grads, grads)
        return scaled(grads, history, rate, self.settings.delta)


class RMSProp(UpdateRule):
    """`h <- rms_decay h + (1 - rms_decay) grad^2;  weight <- weight - rate grad / (sqrt(h) + delta)`.

    rmsprop_solver.cpp
    """

    squares = ("history",)

    def steps(self, grads: list[Tensor], rate: float, *histories: list[Tensor]) -> list[Tensor]:
        (history,) = histories
        fade(history, torch._foreach_mul(grads, grads), self.settings.rms_decay)
        return scaled(grads, history, rate, self.settings.delta)


class AdaDelta(UpdateRule):
    """`h <- momentum h + (1 - momentum) grad^2;  step = grad sqrt((s + delta) / (h + delta))`,
    `s <- momentum s + (1 - momentum) step^2;  weight <- weight - rate step`.

    adadelta_solver.cpp
    """

    histories = ("gradients", "steps")
    squares = histories

    def steps(self, grads: list[Tensor], rate: float, *histories: list[Tensor]) -> list[Tensor]:
        squares, before = histories
        momentum, delta = self.settings.momentum, self.settings.delta
        fade(squares, torch._foreach_mul(grads, grads), momentum)
        steps = torch._foreach_div(torch._foreach_add(before, delta), torch._foreach_add(squares, delta))
        torch._foreach_sqrt_(steps)
        torch._foreach_mul_(steps, grads)
        fade(before, torch._foreach_mul(steps, steps), momentum)
        torch._foreach_mul_(steps, rate)
        return list(steps)


class Adam(UpdateRule):
    """`m <- momentum m + (1 - momentum) grad;  v <- momentum2 v + (1 - momentum2) grad^2`,
    `weight <- weight - rate sqrt(1 - momentum2^t) / (1 - momentum^t) m / (sqrt(v) + delta)`, t counting from 1.

    delta is added to the uncorrected root, in which it differs from torch's Adam.  (adam_solver.cpp)
    """

    histories = ("first", "second")
    squares = ("second",)
    corrects_delta: ClassVar[bool] = False

    def steps(self, grads: list[Tensor], rate: float, *histories: list[Tensor]) -> list[Tensor]:
        first, second = histories
        beta1, beta2, updates = self.settings.momentum, self.settings.momentum2, self.iteration + 1
        fade(first, grads, beta1)
        fade(second, torch._foreach_mul(grads, grads), beta2)
        correction = math.sqrt(1 - beta2**updates)
        delta = self.settings.delta * (correction if self.corrects_delta else 1)
        return scaled(first, second, rate * correction / (1 - beta1**updates), delta)

    def update_at_once(self, weights: list[Tensor], grads: list[Tensor], rate: float, *histories: list[Tensor]) -> bool:
        first, second = histories
        updates = self.iteration + 1
        # torch adds its eps to the corrected root: as much of it as makes delta beside the uncorrected one.
        correction = 1.0 if self.corrects_delta else math.sqrt(1 - self.settings.momentum2**updates)
        if correction == 0:
            return False
        torch._fused_adam_(
            weights,
            grads,
            first,
            second,
            [],
            [torch.tensor(float(updates), device=weights[0].device)] * len(weights),
            lr=rate,
            beta1=self.settings.momentum,
            beta2=self.settings.momentum2,
            weight_decay=0.0,
            eps=self.settings.delta / correction,
            amsgrad=False,
            maximize=False,
        )
        return True


class AdamW(Adam):
    """`weight <- (1 - rate decay) weight`, then, with Adam's m and v,
    `weight <- weight - rate (m / (1 - momentum^t)) / (sqrt(v / (1 - momentum2^t)) + delta)`.

    No rule of Caffe's: decay is apart from the gradient, and delta is added to the corrected root, as in
    torch.optim.AdamW.  (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019)
    """

    corrects_delta = True

    def penalise(self, weights: list[Tensor], grads: list[Tensor], rate: float, decay: float) -> None:
        torch._foreach_mul_(weights, 1 - rate * decay)


def fade(history: list[Tensor], news: Sequence[Tensor], keep: float) -> None:
    """`history <- keep history + (1 - keep) news`."""
    torch._foreach_mul_(history, keep)
    torch._foreach_add_(history, list(news), alpha=1 - keep)


def scaled(directions: list[Tensor], squares: list[Tensor], rate: float, delta: float) -> list[Tensor]:
    """`rate direction / (sqrt(square) + delta)`."""
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, delta)
    steps = torch._foreach_div(directions, roots)
    torch._foreach_mul_(steps, rate)
    return list(steps)


RULES: Mapping[str, type[UpdateRule]] = {
    rule.__name__: rule for rule in (SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam, AdamW)
}
