"""What chooses one value of many, with Caffe's rules for equal ones."""

from __future__ import annotations

import torch
from torch import Tensor


def largest(*bottoms: Tensor) -> Tensor:
    """The maximum of several tensors; the gradient goes to one of equal ones, as Caffe's does.

    To the second rather than the first, to these rather than later ones, of later ones to the earliest.
    """
    y = bottoms[0].where(bottoms[0] > bottoms[1], bottoms[1])
    for bottom in bottoms[2:]:
        y = bottom.where(bottom > y, y)
    return y


def highest(x: Tensor, top_k: int, axis: int | None = None, *, with_values: bool = False) -> Tensor:
    """Where the `top_k` highest values are, the highest first; of equal ones the later counts as higher.

    Without `axis` among all values of a row: (N, *K) -> (N, 1, top_k), or (N, 2, top_k): the places, then the values.
    With `axis` (.., C, ..) -> (.., top_k, ..), the places, or the values instead.
    """
    along = -1 if axis is None else axis
    flat = x.detach().reshape(x.shape[0], -1) if axis is None else x.detach()
    values, places = flat.flip(along).sort(dim=along, descending=True, stable=True)
    values = values.narrow(along, 0, top_k)
    places = (flat.shape[along] - 1 - places.narrow(along, 0, top_k)).to(x.dtype)
    if axis is not None:
        return values if with_values else places
    found = torch.stack((places, values) if with_values else (places,), 1)  # (N, 1 or 2, top_k)
    return found.reshape(*found.shape, *(1,) * (x.dim() - 3))
