"""Accuracy of class scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import Arity, Shape, exactly
from siamese_proto.layers.base import Layer, RunState, canonical_axis, layer
from siamese_proto.layers.checks import check_labels_fit
from siamese_proto.layers.label_indices import explain_bad_labels, labels_along
from siamese_proto.layers.torch_source import Source, call
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


@layer("Accuracy")
class Accuracy(Layer):
    """The share of labels whose class is among the `top_k` highest scores; ties count against the label.

    scores (N, C, *S), N x prod S integer labels -> (), and optionally the accuracy of each class (C,)
    Labels equal to `ignore_label` do not count; if none counts, the result is 0. There is no gradient.
    On the CPU, raises DataError for labels outside the classes.
    Caffe: accuracy_layer.cpp
    """

    bottoms = exactly(2)
    bottom_names = ("scores", "label")
    tops = Arity(1, 2)
    labels = (1,)
    differentiable = False

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.accuracy_param
        self.axis = settings.axis
        self.top_k = settings.top_k
        self.ignored = settings.ignore_label if settings.HasField("ignore_label") else None

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        axis = check_labels_fit(bottoms[0], bottoms[1], self.axis, "accuracy_param.axis")
        classes = bottoms[0][axis]
        if self.top_k > classes:
            raise GraphError(
                f"top_k {self.top_k} is more than the {classes} classes of bottom shape {bottoms[0]}",
                field="accuracy_param.top_k",
            )
        return [(), (classes,)][: self.top_count]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        scores = bottoms[0].detach()
        axis = canonical_axis(self.axis, scores.shape)
        labels, counted = labels_along(scores, bottoms[1], axis, self.ignored)
        try:
            of_label = scores.gather(axis, labels)
        except (IndexError, RuntimeError):
            explain_bad_labels(labels, scores.shape[axis], self.name)
            raise
        # The label's own score is among those that reach it, so up to top_k may.
        hit = ((scores >= of_label).sum(axis, keepdim=True) <= self.top_k).to(scores.dtype)  # (*A, 1, *B)
        if counted is None:
            counted = scores.new_ones(labels.shape)
        hit = hit * counted
        accuracy = hit.sum() / counted.sum().clamp(min=1)
        if self.top_count == 1:
            return [accuracy]
        hits, counts = (
            scores.new_zeros(scores.shape[axis]).scatter_add_(0, labels.reshape(-1), values.reshape(-1))
            for values in (hit, counted)
        )
        return [accuracy, hits / counts.clamp(min=1)]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        settings = {"top_k": (self.top_k, 1), "axis": (self.axis, 1), "ignore_label": (self.ignored, None)}
        module = call("Accuracy", **settings, per_class=(self.top_count > 1, False))
        return Source(("{module}({0}, {1})",), module, helpers=("functional.losses.Accuracy",))

    def describe(self) -> str:
        return f"top {self.top_k}" if self.top_k > 1 else ""
