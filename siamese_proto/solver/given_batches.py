"""Batches that a caller passes instead of a data layer: what they may be, and the errors where they do not fit."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from siamese_proto.errors import SolverError, did_you_mean, quoted
from siamese_proto.graph.ir import Graph, Node

Kind = tuple[torch.Size, torch.dtype, torch.layout]


class GivenBatches:
    """Batches from the caller for one data layer: any iterable, which starts again at its end.

    A batch is a mapping from top to array, a sequence of arrays (one per top), or one array for a layer with one top.
    A resumed run skips as many batches as were delivered. It continues exactly if the source yields the same batches
    each time it is iterated; a DataLoader that shuffles does so only with a seeded generator.
    """

    def __init__(self, layer: str, tops: Sequence[str], batches: Iterable[Any]) -> None:
        self.layer = layer
        self.tops = tops
        self.batches = 0  # delivered so far, to all processes
        self.rank, self.ranks = 0, 1  # of every `ranks` batches, batch number `rank` is delivered here
        self._source = batches
        self._iterator = iter(batches)
        self._peeked: list[dict[str, Any]] = []
        self._first: dict[str, Kind] = {}  # of the first batch
        self._last: list[dict[str, Any]] = []  # the batches that were delivered together

    def next_batch(self) -> dict[str, Any]:
        """Return the next batch, by top."""
        self._last = [self._next_named() for _ in range(self.ranks)]
        self.batches += self.ranks
        return self._last[self.rank]

    def delivered(self, number: int) -> dict[str, Any]:
        """Return a batch that was delivered before, by top: one of the last, or one of a list; else empty."""
        first = self.batches - len(self._last)
        if number >= first:
            return self._last[number - first]
        return self._named(self._source[number % len(self._source)]) if isinstance(self._source, list) else {}

    def skip(self, batches: int) -> None:
        """Continue as if `batches` batches had been delivered since the first."""
        if batches < self.batches:
            raise SolverError(f"the batches given for layer {quoted(self.layer)} have been used up to a later point")
        while self.batches < batches:
            self._next_named()
            self.batches += 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each top, from the next batch, which stays the next."""
        if not self._peeked:
            self._peeked.append(self._next_named())
        return {top: tuple(array.shape) for top, array in self._peeked[0].items()}

    def _next_named(self) -> dict[str, Any]:
        if self._peeked:
            return self._peeked.pop()
        for _ in range(2):
            for batch in self._iterator:
                return self._named(batch)
            self._iterator = iter(self._source)
        raise SolverError(
            f"the batches given for layer {quoted(self.layer)} are used up; give more, or an iterable that can be "
            "iterated again, such as a list"
        )

    def _named(self, batch: Any) -> dict[str, Any]:
        # The usual case, kept cheap for small nets: a batch in the form of the first one needs no checks.
        if (
            self._first
            and isinstance(batch, dict)
            and batch.keys() == self._first.keys()
            and all(isinstance(array, Tensor) and _kind(array) == self._first[top] for top, array in batch.items())
        ):
            return dict(batch)
        named = tensors_by_top(self.layer, self.tops, batch)
        self._first = self._first or {top: _kind(tensor) for top, tensor in named.items()}
        for top, tensor in named.items():
            shape = tuple(self._first[top][0])
            if tensor.shape[1:] != shape[1:]:
                raise SolverError(
                    f"a batch given for layer {quoted(self.layer)} has shape {tuple(tensor.shape)} for top "
                    f"{quoted(top)}, but the first one had {shape}: only the number of rows may change"
                )
        return named


def _kind(tensor: Tensor) -> Kind:
    return tensor.shape, tensor.dtype, tensor.layout


def given_batches(graph: Graph, data: Mapping[str, Iterable[Any]]) -> list[GivenBatches]:
    """Check the caller's batches, which are by the name of their data or Input layer. Raises SolverError."""
    sources = {node.name: node for node in graph.nodes if node.is_source}
    for name in data:
        if name not in sources:
            names = ", ".join(map(quoted, sources)) or "none"
            hint = did_you_mean(name, sources)
            raise SolverError(f"data for {quoted(name)}, which is no data layer of the training net ({names}){hint}")
    return [
        GivenBatches(name, [top.name for top in sources[name].tops], _as_batches(batches, sources[name]))
        for name, batches in data.items()
    ]


def _as_batches(source: Any, node: Node) -> Iterable[Any]:
    """An iterable of batches: a torch Dataset, which has single items, is wrapped in a DataLoader."""
    if isinstance(source, Dataset):
        shape = node.tops[0].shape
        size = getattr(node.layer, "batch_size", 0) or (shape[0] if shape else 0)
        if not size:
            raise SolverError(
                f"data for {quoted(node.name)} is a Dataset, but the layer has no batch size; give a DataLoader"
            )
        if not isinstance(source, IterableDataset) and hasattr(source, "__len__") and len(source) < size:
            raise SolverError(
                f"the Dataset given for {quoted(node.name)} has {len(source)} items, but a batch takes {size}"
            )
        return DataLoader(source, batch_size=size, drop_last=True)
    if not isinstance(source, Iterable) and not hasattr(source, "__getitem__"):
        raise SolverError(
            f"data for {quoted(node.name)} is given as {type(source).__name__}; give a Dataset, a DataLoader, or "
            "another iterable of batches, such as a list"
        )
    batches: Iterable[Any] = source
    return batches


def tensors_by_top(layer: str, tops: Sequence[str], batch: Any) -> dict[str, Tensor]:
    """Return the arrays of a batch as tensors by top: of a mapping, a sequence in the order of the tops, or one array.

    Raises:
        SolverError: The arrays do not match the tops, are not numbers, or differ in their number of rows.
    """
    if isinstance(batch, Mapping):
        arrays = {str(name): array for name, array in batch.items()}
        wrong = [name for name in arrays if name not in tops]
        hint = did_you_mean(wrong[0], set(tops) - set(arrays)) if wrong else ""
        summary = f"{', '.join(map(quoted, arrays)) or 'none'}{hint}"
    else:
        parts = list(batch) if isinstance(batch, list | tuple) else [batch]
        arrays = dict(zip(tops, parts, strict=False)) if len(parts) == len(tops) else {}
        summary = str(len(parts))
    if set(arrays) != set(tops):
        raise SolverError(
            f"a batch given for layer {quoted(layer)} does not have one array for each of its tops, "
            f"{', '.join(map(quoted, tops))}; it has {summary}"
        )
    tensors = {top: _as_tensor(layer, top, arrays[top]) for top in tops}
    if len({len(tensor) for tensor in tensors.values()}) > 1:
        rows = ", ".join(f"{quoted(top)} {len(tensor)}" for top, tensor in tensors.items())
        raise SolverError(f"the tops of a batch given for layer {quoted(layer)} differ in their number of rows: {rows}")
    return tensors


def _as_tensor(layer: str, top: str, array: Any) -> Tensor:
    place = f"top {quoted(top)} of a batch given for layer {quoted(layer)}"
    try:
        tensor = array if isinstance(array, Tensor) else torch.from_numpy(numpy.asarray(array))
    except (TypeError, ValueError):
        raise SolverError(f"{place} is a {type(array).__name__}; give a tensor or an array of numbers") from None
    if tensor.is_complex() or tensor.layout != torch.strided:
        form = "complex numbers" if tensor.is_complex() else "a sparse tensor"
        raise SolverError(f"{place} is {form}; give a dense tensor of real numbers")
    if not tensor.dim():
        raise SolverError(
            f"{place} is a single number, but a batch has one per row; if it is an item of a dataset, give a "
            "DataLoader, which makes batches of items"
        )
    if not tensor.shape[0]:
        raise SolverError(f"{place} has no rows; leave the batch out")
    return tensor
