"""What is asked before a rule of our own takes the place of torch's."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd import forward_ad


def is_ordinary() -> bool:
    """Whether this is a pass like any other: not compiled, exported, under torch.func or forward-mode derivatives.

    These want more of a rule than a backward pass; where torch has one of its own, that is taken then.
    """
    is_transformed = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
    level: int = getattr(forward_ad, "_current_level", -1)
    return not torch.compiler.is_compiling() and level < 0 and not is_transformed()


def is_hooked() -> bool:
    """Whether somebody has hooks on what autograd keeps here, checkpointing say, or has forbidden them."""
    hooks: Any = torch._C._autograd
    return not hooks._saved_tensors_hooks_is_enabled() or hooks._top_saved_tensors_default_hooks(False) is not None
