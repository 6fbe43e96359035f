"""Batches that a caller gives in place of a data layer: what they may be, and what is said where they are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from siamese_proto.errors import SolverError, did_you_mean, quoted
from siamese_proto.graph.ir import Node

Kind = tuple[torch.Size, torch.dtype, torch.layout]


def kind_of(tensor: Tensor) -> Kind:
    """All that is checked of a tensor."""
    return tensor.shape, tensor.dtype, tensor.layout


def as_batches(source: Any, node: Node) -> Iterable[Any]:
    """What to iterate over for the batches of a source layer, again and again.

    A torch Dataset, which has single items, is put into a DataLoader that takes them in their order, as many at once
    as the layer says. Anything else delivers batches as it is iterated.
    """
    if isinstance(source, Dataset):
        size = _batch_size(node)
        if not size:
            raise SolverError(
                f"data for {quoted(node.name)} is a Dataset, and the layer does not say how many of its items make a "
                "batch; give a DataLoader"
            )
        if not isinstance(source, IterableDataset) and hasattr(source, "__len__") and len(source) < size:
            raise SolverError(
                f"the Dataset given for {quoted(node.name)} has {len(source)} items, a batch takes {size}"
            )
        return DataLoader(source, batch_size=size, drop_last=True)
    if not isinstance(source, Iterable) and not hasattr(source, "__getitem__"):
        raise SolverError(
            f"data for {quoted(node.name)} is given as {type(source).__name__}; give a Dataset, a DataLoader, or "
            "anything else that can be iterated over, such as a list of batches"
        )
    batches: Iterable[Any] = source
    return batches


def by_top(layer: str, tops: Sequence[str], batch: Any) -> dict[str, Tensor]:
    """A batch as tensors by top: of a mapping by name, of a sequence in the order of the tops, or of an only top.

    Raises SolverError where its parts are not those of the layer, are no numbers, or differ in their number of rows.
    """
    if isinstance(batch, Mapping):
        found = {str(name): part for name, part in batch.items()}
        if set(found) != set(tops):
            wrong = [name for name in found if name not in tops]
            hint = did_you_mean(wrong[0], set(tops) - set(found)) if wrong else ""
            raise _misfit(layer, tops, f"it has {', '.join(map(quoted, found)) or 'none'}{hint}")
    else:
        parts = list(batch) if isinstance(batch, list | tuple) else [batch]
        if len(parts) != len(tops):
            raise _misfit(layer, tops, f"it has {len(parts)}")
        found = dict(zip(tops, parts, strict=True))
    tensors = {top: _as_tensor(layer, top, found[top]) for top in tops}
    rows = {top: tensor.shape[0] for top, tensor in tensors.items()}
    if len(set(rows.values())) > 1:
        told = ", ".join(f"{quoted(top)} {count}" for top, count in rows.items())
        raise SolverError(f"the tops of a batch given for layer {quoted(layer)} differ in their number of rows: {told}")
    return tensors


def is_like(batch: Any, first: Mapping[str, Kind]) -> bool:
    """Whether a batch is given as the first one came out, so that nothing is to be found out about it."""
    return (
        isinstance(batch, dict)
        and batch.keys() == first.keys()
        and all(isinstance(part, Tensor) and kind_of(part) == first[top] for top, part in batch.items())
    )


def check_shapes(layer: str, batch: Mapping[str, Tensor], first: Mapping[str, Kind]) -> None:
    """Raise SolverError where a batch differs from the first one in more than its number of rows."""
    for top, tensor in batch.items():
        shape = tuple(first[top][0])
        if tensor.shape[1:] != shape[1:]:
            raise SolverError(
                f"a batch given for layer {quoted(layer)} has shape {tuple(tensor.shape)} for top {quoted(top)}, but "
                f"the first one had {shape}: all but the number of rows must stay"
            )


def _misfit(layer: str, tops: Sequence[str], has: str) -> SolverError:
    return SolverError(
        f"a batch given for layer {quoted(layer)} does not have one array for each of its tops, "
        f"{', '.join(map(quoted, tops))}; {has}"
    )


def _as_tensor(layer: str, top: str, part: Any) -> Tensor:
    try:
        tensor = part if isinstance(part, Tensor) else torch.from_numpy(numpy.asarray(part))
    except (TypeError, ValueError):
        raise SolverError(
            f"top {quoted(top)} of a batch given for layer {quoted(layer)} is a {type(part).__name__}; give a tensor "
            "or an array of numbers"
        ) from None
    if tensor.is_complex() or tensor.layout != torch.strided:
        form = "complex numbers" if tensor.is_complex() else "a sparse tensor"
        raise SolverError(
            f"top {quoted(top)} of a batch given for layer {quoted(layer)} is {form}; give a dense one of real numbers"
        )
    if not tensor.dim():
        raise SolverError(
            f"top {quoted(top)} of a batch given for layer {quoted(layer)} is a single number, not one a row; is it an "
            "item and not a batch? a DataLoader makes batches of items"
        )
    if not tensor.shape[0]:
        raise SolverError(f"top {quoted(top)} of a batch given for layer {quoted(layer)} has no rows; leave it out")
    return tensor


def _batch_size(node: Node) -> int:
    """How many items the layer takes at once; 0 where it does not say."""
    size = getattr(node.layer, "batch_size", 0)
    shape = node.tops[0].shape
    return size or (shape[0] if shape else 0)
