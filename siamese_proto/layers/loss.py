"""ContrastiveLoss, EuclideanLoss and SigmoidCrossEntropyLoss."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Shape, exactly
from siamese_proto.layers.base import Layer, RunState, layer
from siamese_proto.layers.checks import check_batches
from siamese_proto.layers.label_indices import divisor, pair_divisor, read_ignored, read_normalization
from siamese_proto.layers.pair_labels import look_at_labels, nonzero
from siamese_proto.layers.torch_source import Source, call
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("ContrastiveLoss")
class ContrastiveLoss(Layer):
    """`1 / (2 N) sum of [y d^2 + (1 - y) max(margin - d, 0)^2]` with `d = |a - b|`.

    a and b (N, C) or (N, C, 1, 1), y (N) -> ()
    With `legacy_version` the second term is `(1 - y) max(margin - d^2, 0)`.
    The fraction of y is cut off: 0 means different, any other similar. Caffe's gradient is finite at d = 0.
    Not in Caffe: `label` DIFFERENT reverses the labels; `normalization` MEAN has 1 / N before the sum, SUM 1.
    Caffe: contrastive_loss_layer.cpp; Hadsell, Chopra, LeCun: Dimensionality Reduction by Learning an Invariant Mapping
    """

    bottoms = exactly(3)
    bottom_names = ("first features", "second features", "label")
    is_loss = True
    labels = (2,)

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.contrastive_loss_param
        self.margin = settings.margin
        self.legacy = settings.legacy_version
        self.label = schema.ContrastiveLossParameter.Label.Name(settings.label)
        self.normalization = schema.ContrastiveLossParameter.Normalization.Name(settings.normalization)

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        check_batches(bottoms, 1, 2)
        for index, bottom in enumerate(bottoms):
            if prod(bottom[1 if index == 2 else 2 :]) != 1:
                expected = "one label per pair: (N) or (N, 1, 1, 1)" if index == 2 else "(N, C) or (N, C, 1, 1)"
                raise GraphError(
                    f"bottom {index} has shape {bottom}, expected {expected}"
                    + ("" if index == 2 else "; flatten it first"),
                    field=f"bottom[{index}]",
                )
        first, second = (prod(bottom[1:]) for bottom in bottoms[:2])
        if first != second:
            raise GraphError(
                f"bottom 0 of shape {bottoms[0]} has {first} features and bottom 1 of shape {bottoms[1]} has {second}: "
                "they must be equal",
                field="bottom[1]",
            )
        return [()]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from siamese_proto.layers.functional.loss_rules import contrastive_loss

        rows = bottoms[0].shape[0]
        a, b = (bottom if bottom.dim() == 2 else bottom.reshape(rows, -1) for bottom in bottoms[:2])
        labels = bottoms[2].detach().reshape(rows)
        look_at_labels(labels, self, run, one_is_same=self.label == "SIMILAR")
        similar = nonzero(labels) if self.label == "SIMILAR" else ~nonzero(labels)
        loss = contrastive_loss(a, b, similar, margin=self.margin, legacy=self.legacy)
        if self.normalization != "HALF_MEAN":
            loss = loss * (2 * rows / pair_divisor(self.normalization, rows))
        return [loss]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        module = call("ContrastiveLoss", margin=(self.margin, None), legacy=(self.legacy, False))
        labels = "{2}" if self.label == "SIMILAR" else "({2}.abs() < 1).to({0}.dtype)"
        factor = {"HALF_MEAN": "", "MEAN": " * 2", "SUM": " * (2 * len({0}))"}[self.normalization]
        loss = f"{{module}}({{0}}, {{1}}, {labels}){factor}"
        return Source((loss,), module, helpers=("functional.losses.ContrastiveLoss",))

    def describe(self) -> str:
        reverse = " label 1 different" * (self.label == "DIFFERENT")
        return f"margin {self.margin:g}" + " legacy" * self.legacy + reverse


@layer("EuclideanLoss")
class EuclideanLoss(Layer):
    """`1 / (2 N) sum of (a - b)^2`, N the first dimension only.

    a and b (N, *S), or shapes with as many values per row -> ()
    Caffe: euclidean_loss_layer.cpp
    """

    bottoms = exactly(2)
    bottom_names = ("prediction", "target")
    is_loss = True

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        check_batches(bottoms, 1)
        _check_counts(bottoms)
        return [()]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        a, b = bottoms
        difference = a - (b if b.shape == a.shape else b.reshape(a.shape))
        return [difference.square().sum() / (2 * a.shape[0])]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        return Source(("{module}({0}, {1})",), "EuclideanLoss()", helpers=("functional.losses.EuclideanLoss",))


@layer("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(Layer):
    """`-sum of [t log p + (1 - t) log(1 - p)] / divisor`, with p the sigmoid of x.

    x and targets t (N, *S), or shapes with as many values per row -> ()
    Targets whose integer part equals `ignore_label` do not count. The divisor is N (BATCH_SIZE, the default), the count
    (VALID), N x prod S (FULL) or 1 (NONE), and at least 1.
    Caffe: sigmoid_cross_entropy_loss_layer.cpp
    """

    bottoms = exactly(2)
    bottom_names = ("scores", "target")
    is_loss = True
    labels = (1,)
    reads = ("loss_param",)

    def read(self, message: schema.LayerParameter) -> None:
        self.ignored = read_ignored(message)
        self.normalization = read_normalization(message, "BATCH_SIZE")

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        check_batches(bottoms, 1)
        _check_counts(bottoms)
        return [()]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from torch.nn import functional

        x = bottoms[0]
        targets = bottoms[1].detach().reshape(x.shape).to(x.dtype)
        counted = None if self.ignored is None else (targets.trunc() != self.ignored).to(x.dtype)
        total = functional.binary_cross_entropy_with_logits(x, targets, counted, reduction="sum")
        return [total / divisor(self.normalization, x.shape[0], x.numel(), counted)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        settings = {"ignore_label": (self.ignored, None), "normalization": (self.normalization, "BATCH_SIZE")}
        module = call("SigmoidCrossEntropyLoss", **settings)
        return Source(("{module}({0}, {1})",), module, helpers=("functional.losses.SigmoidCrossEntropyLoss",))

    def describe(self) -> str:
        return "" if self.ignored is None else f"ignore {self.ignored}"


def _check_counts(bottoms: Sequence[Shape]) -> None:
    first, second = (prod(bottom) for bottom in bottoms)
    if first != second:
        raise GraphError(
            f"bottom 0 of shape {bottoms[0]} holds {first} values and bottom 1 of shape {bottoms[1]} {second}: "
            "they must be equal",
            field="bottom[1]",
        )
