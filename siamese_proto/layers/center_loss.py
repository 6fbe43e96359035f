"""The center loss: embeddings are drawn to a centre of their class that is learned beside them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import ParamRole, Shape, exactly
from siamese_proto.layers.base import Layer, RunState, canonical_axis, layer, read_filler
from siamese_proto.layers.checks import check_positive
from siamese_proto.layers.label_indices import explain_bad_labels
from siamese_proto.layers.torch_source import Source
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("CenterLoss")
class CenterLoss(Layer):
    """`1 / (2 N) sum of |x_n - c_y(n)|^2`, c_k the centre of class k.

    x (N, *K), flattened from `axis` on, y of N whole numbers below num_output -> ();  centres (num_output, prod K)
    The centres learn by a rule of their own, whatever the loss weight: the gradient of c_k is
    `sum over the n of class k of (c_k - x_n) / (1 + their number)`, so that lr_mult alone says how fast they move.
    Not in BVLC Caffe. Wen, Zhang, Li, Qiao: A Discriminative Feature Learning Approach for Deep Face Recognition
    """

    bottoms = exactly(2)
    bottom_names = ("features", "label")
    is_loss = True
    labels = (1,)

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.center_loss_param
        check_positive(settings, "num_output", "center_loss_param")
        self.classes, self.axis = settings.num_output, settings.axis
        self.filler = read_filler(settings.center_filler)

    def params(self) -> Sequence[ParamRole]:
        return [ParamRole("centres", self.filler)]

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        return [(self.classes, prod(bottoms[0][self._axis(bottoms[0]) :]))]

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        rows = prod(bottoms[0][: self._axis(bottoms[0])])
        if prod(bottoms[1]) != rows:
            raise GraphError(
                f"bottom 0 of shape {bottoms[0]} holds {rows} embeddings, but bottom 1 of shape {bottoms[1]} "
                f"{prod(bottoms[1])} labels",
                field="bottom[1]",
            )
        return [()]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from siamese_proto.layers.functional.centers import center_loss

        labels = bottoms[1].detach().long().reshape(-1)  # (N,)
        x = bottoms[0].reshape(len(labels), -1)  # (N, K)
        try:
            return [center_loss(x, labels, params[0])]
        except (IndexError, RuntimeError):
            explain_bad_labels(labels, self.classes, self.name)
            raise

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        x = "{0}" if len(bottoms[0]) == 2 and self._axis(bottoms[0]) == 1 else "{0}.reshape({1}.numel(), -1)"
        loss = f"center_loss({x}, {{1}}.reshape(-1).long(), {{p0}})"
        return Source(apart=(loss,), helpers=("functional.centers.center_loss",))

    def describe(self) -> str:
        return f"{self.classes} centres"

    def _axis(self, shape: Shape) -> int:
        return canonical_axis(self.axis, shape, "center_loss_param.axis")
