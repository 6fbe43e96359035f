"""What numbers a net computes with, and whether torch compiles it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from torch import Tensor

from siamese_proto.errors import SolverError
from siamese_proto.net.net import Net
from siamese_proto.solver.rules import UpdateRule

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


@dataclass
class Execution:
    """How a net runs: parameters and their updates are float32 always, what lies between in `kind` where torch may.

    In fp16 the loss is multiplied by a factor, lest small gradients vanish, and an update whose gradients are not
    finite is left out (torch.amp.GradScaler).
    """

    kind: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = field(default=None)

    def apply(self, net: Net, *, compiled: bool = False) -> None:
        """Let a net run so from now on."""
        net.run_as(autocast=self.kind, compiled=compiled)

    def backward(self, loss: Tensor) -> None:
        """The gradients of a loss."""
        scaled = self.scaler.scale(loss) if self.scaler is not None else loss
        scaled.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types

    def step(self, rule: UpdateRule) -> None:
        """One update, of gradients without the factor: the same in all processes that share them, left out or not."""
        if self.scaler is None:
            rule.update()
            return
        made = rule.iteration
        self.scaler.step(rule)
        self.scaler.update()
        rule.iteration = made + 1  # one that was left out counts too, as the solver counts it


def execution(precision: str, device: torch.device) -> Execution:
    """How to run on a device with a precision; SolverError where the device has none of that kind."""
    on_gpu = device.type == "cuda"
    if precision in ("fp16", "tf32") and not on_gpu:
        kinds = "fp32 and bf16 work here"
        raise SolverError(f"precision {precision} needs a GPU, and the net is on the {device.type.upper()}; {kinds}")
    if precision == "bf16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise SolverError("this GPU has no bf16; take --precision fp16")
    if on_gpu:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
    kinds_of = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision not in kinds_of:
        raise SolverError(f"there is no precision {precision!r}; it is one of {', '.join(kinds_of)}")
    scaler = torch.amp.GradScaler(device.type) if precision == "fp16" else None
    return Execution(kinds_of[cast(Precision, precision)], scaler)
