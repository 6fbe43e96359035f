"""Data layers that read no files: DummyData makes values up, MemoryData is given them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from siamese_proto.errors import DataError, GraphError
from siamese_proto.graph.ir import Arity, Filler, Shape, exactly
from siamese_proto.layers.base import DataLayer, Feeder, RunState, layer, read_filler
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor

Setting = TypeVar("Setting")


@layer("DummyData")
class DummyData(DataLayer):
    """Tops of given shapes from fillers: constants are filled once, random ones anew for each batch.

    () -> one shape a top, or one for all. Caffe: dummy_data_layer.cpp
    """

    tops = Arity(1, None)

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.dummy_data_param
        self.shapes = self._each(_shapes(settings), "shape")
        self.fillers = self._each([read_filler(filler) for filler in settings.data_filler] or [Filler()], "data_filler")

    def _each(self, settings: Sequence[Setting], field: str) -> Sequence[Setting]:
        """One setting a top, where one was given for each or one for all."""
        if len(settings) not in (1, self.top_count):
            raise GraphError(
                f"{len(settings)} times {field} for {self.top_count} tops; write one, or one a top",
                field=f"dummy_data_param.{field}",
            )
        return settings if len(settings) == self.top_count else list(settings) * self.top_count

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return self.shapes

    def open(self, run: RunState) -> Feeder:
        return DummyFeeder(self.key, self.shapes, self.fillers, run.seed)


class DummyFeeder:
    """Fills tensors; what it draws depends on the seed, the layer and the number of the batch."""

    def __init__(self, name: str, shapes: Sequence[Shape], fillers: Sequence[Filler], seed: int) -> None:
        self.batches = 0
        self._name, self._shapes, self._fillers, self._seed = name, shapes, fillers, seed

    def next_batch(self) -> Sequence[Tensor]:
        """One tensor a top."""
        import torch

        from siamese_proto.net.fillers import fill

        run = RunState(self._seed, self.batches)
        tops = []
        for index, (shape, filler) in enumerate(zip(self._shapes, self._fillers, strict=True)):
            top = torch.empty(shape)
            fill(top, filler, run.generator(f"{self._name}/{index}", top.device))
            tops.append(top)
        self.batches += 1
        return tops

    def skip(self, batches: int) -> None:
        """Go on as if `batches` batches had been delivered."""
        self.batches = batches

    def close(self) -> None:
        """Nothing is held."""


@layer("MemoryData")
class MemoryData(DataLayer):
    """Data and labels that the program hands over: `net(data=..., label=...)`.

    () -> (batch_size, channels, height, width), (batch_size,). Caffe: memory_data_layer.cpp
    """

    tops = exactly(2)

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.memory_data_param
        self.size = (settings.batch_size, settings.channels, settings.height, settings.width)
        if min(self.size) < 1:
            raise GraphError(
                "batch_size, channels, height and width must all be given and above 0", field="memory_data_param"
            )

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return self.size, self.size[:1]

    def open(self, run: RunState) -> Feeder:
        raise DataError(
            "a MemoryData layer has no source of its own; give its tops to the net: net(data=..., label=...)"
        )


def _shapes(settings: schema.DummyDataParameter) -> Sequence[Shape]:
    """The shapes as written: today's `shape`, or the four numbers of old files."""
    written = (settings.num, settings.channels, settings.height, settings.width)
    if settings.shape:
        for name, sizes in zip(("num", "channels", "height", "width"), written, strict=True):
            if sizes:
                raise GraphError(f"both shape and {name} are given; keep shape", field=f"dummy_data_param.{name}[0]")
        return [tuple(shape.dim) for shape in settings.shape]
    count = max(map(len, written))
    if count == 0 or any(len(sizes) not in (1, count) for sizes in written):
        raise GraphError(
            "no shape is given; write shape { dim: ... } once, or once a top", field="dummy_data_param.shape"
        )
    columns = [list(sizes) if len(sizes) == count else list(sizes) * count for sizes in written]
    return list(zip(*columns, strict=True))
