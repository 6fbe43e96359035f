"""Random numbers as one operator, so that torch.compile can trace them."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from siamese_proto.layers.base import RunState


def uniform(like: Tensor, shape: Sequence[int], run: RunState, key: str) -> Tensor:
    """Draw uniform numbers from [0, 1), row by row, with the type and device of `like`.

    They depend only on seed, iteration and `key`, like those of `RunState.generator`. If several processes train
    together, each returns its rows of the numbers that a single process would draw for all.
    """
    if torch.compiler.is_compiling():
        return cast(Tensor, _uniform(like, shape, str(run.seed), run.iteration, run.draw, run.rank, run.ranks, key))
    # Not through the custom operator, whose first call takes seconds.
    return _draw(like, shape, run, key)


# The seed is text because it may need 64 bits, and integers of torch operators are signed.
@torch.library.custom_op("siamese_proto::uniform", mutates_args=())
def _uniform(
    like: Tensor, shape: Sequence[int], seed: str, iteration: int, draw: int, rank: int, ranks: int, key: str
) -> Tensor:
    return _draw(like, shape, RunState(int(seed), iteration, draw, rank, ranks), key)


@_uniform.register_fake
def _(
    like: Tensor, shape: Sequence[int], seed: str, iteration: int, draw: int, rank: int, ranks: int, key: str
) -> Tensor:
    return like.new_empty(shape)


def _draw(like: Tensor, shape: Sequence[int], run: RunState, key: str) -> Tensor:
    rows, *row = shape
    numbers = torch.rand(
        (run.ranks * rows, *row), generator=run.generator(key, like.device), dtype=like.dtype, device=like.device
    )
    return numbers[run.rank * rows : (run.rank + 1) * rows].clone() if run.ranks > 1 else numbers
