"""Rows of a table, picked by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import DataError
from siamese_proto.graph.ir import ParamRole, Shape
from siamese_proto.layers.base import Layer, RunState, layer, read_filler
from siamese_proto.layers.checks import check_positive
from siamese_proto.layers.torch_source import Source, call
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("Embed")
class Embed(Layer):
    """`y[m] = w[x[m]] + b`: row x[m] of a table.

    (*M) integers from 0 to input_dim - 1 -> (*M, num_output);  weight (input_dim, num_output), bias (num_output,)
    Fractions are cut off, as in C; the indices get no gradient. On the CPU, raises DataError for indices outside the
    table.
    Caffe: embed_layer.cpp
    """

    labels = (0,)

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.embed_param
        self.rows, self.columns = settings.input_dim, settings.num_output
        for name in ("num_output", "input_dim"):
            check_positive(settings, name, "embed_param")
        self.roles = [ParamRole("weight", read_filler(settings.weight_filler))]
        if settings.bias_term:
            self.roles.append(ParamRole("bias", read_filler(settings.bias_filler)))

    def params(self) -> Sequence[ParamRole]:
        return self.roles

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        shapes: list[Shape] = [(self.rows, self.columns), (self.columns,)]
        return shapes[: len(self.roles)]

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [(*bottoms[0], self.columns)]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from torch.nn import functional

        numbers = bottoms[0].detach().long()
        try:
            picked = functional.embedding(numbers, params[0])
        except IndexError:
            self._explain(numbers)
            raise
        return [picked + params[1] if len(params) > 1 else picked]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        if len(self.roles) > 1:
            return Source(apart=("functional.embedding({0}.long(), {p0}) + {p1}",))
        module = call("nn.Embedding", self.rows, self.columns)
        return Source(("{module}({0}.long())",), module, ("weight",), ("functional.embedding({0}.long(), {p0})",))

    def rows_independent(self) -> bool:
        return True

    def describe(self) -> str:
        return f"{self.rows} to {self.columns}"

    def _explain(self, numbers: Tensor) -> None:
        """DataError that names the first number outside the table."""
        bad = numbers[(numbers < 0) | (numbers >= self.rows)]
        if len(bad):
            raise DataError(
                f"number {int(bad[0])} is outside the table of {self.rows} rows, 0 to {self.rows - 1}", layer=self.name
            ) from None
