"""Random numbers that torch.compile takes as one step of its graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from siamese_proto.layers.base import RunState


def uniform(like: Tensor, shape: Sequence[int], run: RunState, key: str) -> Tensor:
    """Numbers from [0, 1) in a shape, filled in the order of rows; of the type and on the device of `like`.

    They depend on seed, iteration and `key` alone, as those of `RunState.generator` do. Where several processes train
    together, each gets the rows that are its own of what one process would draw for all.
    """
    if torch.compiler.is_compiling():
        return cast(Tensor, _uniform(like, shape, str(run.seed), run.iteration, run.draw, run.rank, run.ranks, key))
    # The first call of an operator of one's own takes torch seconds.
    return _drawn(like, shape, run, key)


# The seed is text because it may have 64 bits, one more than a torch operator's numbers.
@torch.library.custom_op("siamese_proto::uniform", mutates_args=())
def _uniform(
    like: Tensor, shape: Sequence[int], seed: str, iteration: int, draw: int, rank: int, ranks: int, key: str
) -> Tensor:
    return _drawn(like, shape, RunState(int(seed), iteration, draw, rank, ranks), key)


@_uniform.register_fake
def _(
    like: Tensor, shape: Sequence[int], seed: str, iteration: int, draw: int, rank: int, ranks: int, key: str
) -> Tensor:
    return like.new_empty(shape)


def _drawn(like: Tensor, shape: Sequence[int], run: RunState, key: str) -> Tensor:
    rows, *row = shape
    drawn = torch.rand(
        (run.ranks * rows, *row), generator=run.generator(key, like.device), dtype=like.dtype, device=like.device
    )
    return drawn[run.rank * rows : (run.rank + 1) * rows].clone() if run.ranks > 1 else drawn
