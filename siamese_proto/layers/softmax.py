"""Softmax, and its logistic loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.graph.ir import Arity, Shape, exactly
from siamese_proto.layers.base import Layer, RunState, canonical_axis, layer
from siamese_proto.layers.checks import check_batches, check_labels_fit
from siamese_proto.layers.label_indices import explain_bad_labels, labels_along
from siamese_proto.layers.loss import read_ignored, read_normalization
from siamese_proto.layers.torch_source import Source, by_module, call
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("Softmax")
class Softmax(Layer):
    """`y_c = exp(x_c) / sum over k of exp(x_k)` along `axis`.

    (.., C, ..) -> (.., C, ..)
    Caffe: softmax_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        self.axis = message.softmax_param.axis

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        canonical_axis(self.axis, bottoms[0], "softmax_param.axis")
        return [bottoms[0]]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        return [bottoms[0].softmax(self.axis)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        return by_module(call("nn.Softmax", dim=(self.axis, None)))

    def rows_independent(self) -> bool:
        return self.axis > 0


@layer("SoftmaxWithLoss")
class SoftmaxWithLoss(Layer):
    """`-sum of log(max(p[label], FLT_MIN)) / divisor`, with p the softmax of the scores along `axis`.

    scores (N, C, *S), labels of N x prod S whole numbers from 0 to C - 1 -> (), and p (N, C, *S) without gradient
    Labels equal to `ignore_label` do not count. The divisor is the count (VALID), N (BATCH_SIZE), N x prod S (FULL) or
    1 (NONE), and at least 1. Raises DataError for labels outside the classes, where that costs nothing: on the CPU.
    Caffe: softmax_loss_layer.cpp
    """

    bottoms = exactly(2)
    bottom_names = ("scores", "label")
    tops = Arity(1, 2)
    is_loss = True
    labels = (1,)
    reads = ("softmax_param", "loss_param")

    def read(self, message: schema.LayerParameter) -> None:
        self.axis = message.softmax_param.axis
        self.ignored = read_ignored(message)
        self.normalization = read_normalization(message, "VALID")

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        check_batches(bottoms, 1)
        check_labels_fit(bottoms[0], bottoms[1], self.axis, "softmax_param.axis")
        return [(), bottoms[0]][: self.top_count]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from siamese_proto.layers.functional.softmax_loss import softmax_loss

        scores = bottoms[0]
        axis = canonical_axis(self.axis, scores.shape)
        try:
            loss = softmax_loss(scores, bottoms[1], axis, self.ignored, self.normalization)
        except (IndexError, RuntimeError):
            labels, _ = labels_along(scores, bottoms[1], axis, self.ignored)
            explain_bad_labels(labels, scores.shape[axis], self.name)
            raise
        return [loss] if self.top_count == 1 else [loss, scores.detach().softmax(axis)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        labels = {"axis": (self.axis, 1), "ignore_label": (self.ignored, None)}
        settings = {"normalization": (self.normalization, "VALID"), "with_probabilities": (self.top_count > 1, False)}
        module = call("SoftmaxWithLoss", **labels, **settings)
        return Source(("{module}({0}, {1})",), module, helpers=("functional.losses.SoftmaxWithLoss",))

    def describe(self) -> str:
        return "" if self.ignored is None else f"ignore {self.ignored}"
