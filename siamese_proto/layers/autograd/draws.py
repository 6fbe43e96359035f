"""Random numbers that torch.compile takes as one step of its graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from siamese_proto.layers.base import RunState


def uniform(like: Tensor, shape: Sequence[int], run: RunState, key: str) -> Tensor:
    """Numbers from [0, 1) in a shape, filled in the order of rows; of the type and on the device of `like`.

    They depend on seed, iteration and `key` alone, as those of `RunState.generator` do.
    """
    if torch.compiler.is_compiling():
        return cast(Tensor, _uniform(like, shape, str(run.seed), run.iteration, run.draw, key))
    # The first call of an operator of one's own takes torch seconds.
    return _drawn(like, shape, run, key)


# The seed is text because it may have 64 bits, one more than a torch operator's numbers.
@torch.library.custom_op("siamese_proto::uniform", mutates_args=())
def _uniform(like: Tensor, shape: Sequence[int], seed: str, iteration: int, draw: int, key: str) -> Tensor:
    return _drawn(like, shape, RunState(int(seed), iteration, draw), key)


@_uniform.register_fake
def _(like: Tensor, shape: Sequence[int], seed: str, iteration: int, draw: int, key: str) -> Tensor:
    return like.new_empty(shape)


def _drawn(like: Tensor, shape: Sequence[int], run: RunState, key: str) -> Tensor:
    return torch.rand(shape, generator=run.generator(key, like.device), dtype=like.dtype, device=like.device)
