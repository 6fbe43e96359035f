"""The precision of a net's computation: automatic mixed precision, and TF32."""

from dataclasses import dataclass

import torch
from torch import Tensor

from siamese_proto.errors import SolverError
from siamese_proto.net.net import Net
from siamese_proto.solver.rules import UpdateRule

_AUTOCAST = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Execution:
    """How a net runs: parameters and updates are always float32, other values have type `autocast` if torch allows.

    In fp16, a `scaler` multiplies the loss by a factor, so that small gradients do not vanish, and skips updates whose
    gradients are not finite.
    """

    autocast: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None

    def apply(self, net: Net, *, compiled: bool = False) -> None:
        """Make a net run this way."""
        net.run_as(autocast=self.autocast, compiled=compiled)

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss."""
        scaled = self.scaler.scale(loss) if self.scaler is not None else loss
        scaled.backward()  # type: ignore[no-untyped-call]  # torch has no types for it

    def step(self, rule: UpdateRule) -> None:
        """Make one update with unscaled gradients; all processes that share them make it, or skip it, together."""
        if self.scaler is None:
            rule.update()
            return
        iteration = rule.iteration
        self.scaler.step(rule)
        self.scaler.update()
        rule.iteration = iteration + 1  # a skipped update counts too, as it does for the solver


def execution(precision: str, device: torch.device) -> Execution:
    """Return how to run on a device. Raises SolverError if it does not support the precision."""
    on_gpu = device.type == "cuda"
    if precision in ("fp16", "tf32") and not on_gpu:
        place = device.type.upper()
        raise SolverError(f"precision {precision} needs a GPU, and the net is on the {place}; use fp32 or bf16")
    if precision == "bf16" and on_gpu and not torch.cuda.is_bf16_supported():
        raise SolverError("this GPU does not support bf16; use --precision fp16")
    if on_gpu:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if precision not in _AUTOCAST:
        raise SolverError(f"unknown precision {precision!r}; it is one of {', '.join(_AUTOCAST)}")
    return Execution(_AUTOCAST[precision], torch.amp.GradScaler(device.type) if precision == "fp16" else None)
