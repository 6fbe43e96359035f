"""What our own rules of derivation cannot be put through."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def is_ordinary() -> bool:
    """Whether this is a pass like any other: not compiled, exported, under torch.func or forward-mode derivatives.

    These want more of a rule than a backward pass; where torch has one of its own, that is taken then.
    """
    is_transformed = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
    level: int = getattr(forward_ad, "_current_level", -1)
    return not torch.compiler.is_compiling() and level < 0 and not is_transformed()
