"""Softmax, and losses of class scores."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt, prod
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from siamese_proto.errors import DataError, GraphError, quoted
from siamese_proto.files import control_hint, find_path
from siamese_proto.graph.ir import Arity, Shape, SourceMissingError, exactly
from siamese_proto.layers.base import Layer, RunState, canonical_axis, layer
from siamese_proto.layers.checks import check_batches, check_labels_fit
from siamese_proto.layers.label_indices import (
    divisor,
    explain_bad_labels,
    labels_along,
    read_ignored,
    read_normalization,
)
from siamese_proto.layers.torch_source import Source, by_module, call, shown
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

    scores (N, C, *S), N x prod S integer labels from 0 to C - 1 -> (), and p (N, C, *S) without gradient
    Labels equal to `ignore_label` do not count. The divisor is the count (VALID), N (BATCH_SIZE), N x prod S (FULL) or
    1 (NONE), and at least 1. On the CPU, raises DataError for labels outside the classes.
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
        from siamese_proto.layers.functional.loss_rules import softmax_loss

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


_MOST_CLASSES = 32  # largest matrix written into PyTorch source


class RowLoss(Layer):
    """A loss of rows of scores (N, *C) with one label per row."""

    bottoms = exactly(2)
    bottom_names = ("scores", "label")
    is_loss = True
    labels = (1,)

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        check_batches(bottoms, 1)
        if prod(bottoms[1][1:]) != 1:
            raise GraphError(
                f"bottom 1 has shape {bottoms[1]}, expected one label per row: (N) or (N, 1, 1, 1)", field="bottom[1]"
            )
        return [()]

    def _checked(self, labels: Tensor, classes: int) -> None:
        """Called where indexing by the labels has failed."""
        explain_bad_labels(labels.reshape(-1), classes, self.name)


@layer("HingeLoss")
class HingeLoss(RowLoss):
    """`sum of max(0, 1 - s x)^p / N`, s being 1 for the label's score and -1 for the others; p 1 (L1) or 2 (L2).

    scores (N, *C), N integer labels from 0 to prod C - 1 -> ()
    On the CPU, raises DataError for labels outside the classes.
    Caffe: hinge_loss_layer.cpp
    """

    def read(self, message: schema.LayerParameter) -> None:
        self.norm = schema.HingeLossParameter.Norm.Name(message.hinge_loss_param.norm)

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        scores = bottoms[0].flatten(1) if bottoms[0].dim() > 1 else bottoms[0].unsqueeze(1)  # (N, C)
        labels = bottoms[1].detach().long().reshape(-1, 1)
        try:
            signs = scores.new_ones(scores.shape).scatter_(1, labels, -1.0)
        except (IndexError, RuntimeError):
            self._checked(labels, scores.shape[1])
            raise
        hinge = (1 + scores * signs).relu()
        return [(hinge.square() if self.norm == "L2" else hinge).sum() / scores.shape[0]]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        module = call("HingeLoss", power=(2 if self.norm == "L2" else 1, 1))
        return Source(("{module}({0}, {1})",), module, helpers=("functional.losses.HingeLoss",))

    def describe(self) -> str:
        return self.norm


@layer("MultinomialLogisticLoss")
class MultinomialLogisticLoss(RowLoss):
    """`-sum of log(max(p[label], 1e-20)) / N`; below that floor the gradient is the one at the floor.

    probabilities p (N, *C), N integer labels from 0 to prod C - 1 -> ()
    On the CPU, raises DataError for labels outside the classes.
    Caffe: multinomial_logistic_loss_layer.cpp
    """

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from siamese_proto.layers.functional.loss_rules import floored_log

        probabilities = bottoms[0].flatten(1) if bottoms[0].dim() > 1 else bottoms[0].unsqueeze(1)  # (N, C)
        labels = bottoms[1].detach().long().reshape(-1, 1)
        try:
            picked = probabilities.gather(1, labels)
        except (IndexError, RuntimeError):
            self._checked(labels, probabilities.shape[1])
            raise
        return [-floored_log(picked).sum() / probabilities.shape[0]]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        helper = "functional.losses.MultinomialLogisticLoss"
        return Source(("{module}({0}, {1})",), "MultinomialLogisticLoss()", helpers=(helper,))


@layer("InfogainLoss")
class InfogainLoss(Layer):
    """`-sum over labels and classes l of H[label, l] log(max(p_l, 1e-20)) / divisor`, p the softmax along `axis`.

    scores (N, C, *S), N x prod S integer labels from 0 to C - 1, H with C x C values, from a third bottom or the
    BlobProto file `source` -> (), and p (N, C, *S) without gradient
    Labels equal to `ignore_label` do not count. The divisor is the count (VALID), N (BATCH_SIZE), N x prod S (FULL) or
    1 (NONE), and at least 1. On the CPU, raises DataError for labels outside the classes.
    Caffe: infogain_loss_layer.cpp
    """

    bottoms = Arity(2, 3)
    bottom_names = ("scores", "label", "infogain matrix")
    tops = Arity(1, 2)
    is_loss = True
    reads = ("infogain_loss_param", "loss_param")

    def read(self, message: schema.LayerParameter) -> None:
        self.axis = message.infogain_loss_param.axis
        self.source = message.infogain_loss_param.source
        self.ignored = read_ignored(message)
        self.normalization = read_normalization(message, "VALID")
        self.labels = (1, 2)[: self.bottom_count - 1]
        self._gains: list[float] | None = None
        self._placed: Tensor | None = None  # the same as a tensor of the last type and device
        if message.loss_param.HasField("normalize"):
            raise GraphError(
                "InfogainLoss does not support normalize: write normalization: "
                + ("VALID" if message.loss_param.normalize else "BATCH_SIZE"),
                field="loss_param.normalize",
            )
        if self.bottom_count == 2 and not self.source:
            raise GraphError(
                "the matrix H is missing: add it as a third bottom, or set source to the path of a BlobProto",
                field="infogain_loss_param",
            )

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        check_batches(bottoms, 1)
        axis = check_labels_fit(bottoms[0], bottoms[1], self.axis, "infogain_loss_param.axis")
        classes = bottoms[0][axis]
        values = prod(bottoms[2]) if len(bottoms) > 2 else len(self._read_gains())
        if values != classes**2:
            where = f"bottom 2 of shape {bottoms[2]}" if len(bottoms) > 2 else f"source {quoted(self.source)}"
            raise GraphError(
                f"{where} holds {values} values, but H of {classes} classes (axis {axis} of bottom shape {bottoms[0]}) "
                f"has {classes} x {classes} = {classes**2}",
                field="bottom[2]" if len(bottoms) > 2 else "infogain_loss_param.source",
            )
        return [(), bottoms[0]][: self.top_count]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        from siamese_proto.layers.functional.loss_rules import infogain_loss

        scores = bottoms[0]
        axis = canonical_axis(self.axis, scores.shape)
        classes = scores.shape[axis]
        gains = bottoms[2].detach() if len(bottoms) > 2 else self._gains_like(scores)
        labels, counted = labels_along(scores, bottoms[1], axis, self.ignored)
        try:
            total, probabilities = infogain_loss(scores, labels, counted, gains.reshape(classes, classes), axis)
        except (IndexError, RuntimeError):
            explain_bad_labels(labels, classes, self.name)
            raise
        outer = scores.shape[:axis].numel()
        return [total / divisor(self.normalization, outer, labels.numel(), counted), probabilities][: self.top_count]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        gains = "{2}" if len(bottoms) > 2 else f"{{0}}.new_tensor({self._gains_source()})"
        labels = {"axis": (self.axis, 1), "ignore_label": (self.ignored, None)}
        settings = {"normalization": (self.normalization, "VALID"), "with_probabilities": (self.top_count > 1, False)}
        module = call("InfogainLoss", **labels, **settings)
        return Source((f"{{module}}({{0}}, {{1}}, {gains})",), module, helpers=("functional.losses.InfogainLoss",))

    def _gains_source(self) -> str:
        """Return H of the file as a literal. Raises GraphError if it is too large."""
        gains = self._read_gains()
        classes = isqrt(len(gains))
        if classes > _MOST_CLASSES:
            raise GraphError(
                f"H of {classes} x {classes} numbers in source {quoted(self.source)} is too large for PyTorch "
                "source: use a third bottom",
                field="infogain_loss_param.source",
            )
        return shown(tuple(tuple(gains[row * classes : (row + 1) * classes]) for row in range(classes)))

    def unused_fields(self) -> Sequence[str]:
        return ["infogain_loss_param.source"] if self.source and self.bottom_count > 2 else []

    def describe(self) -> str:
        words = [f"axis {self.axis}"] if self.axis != 1 else []
        words += [] if self.ignored is None else [f"ignore {self.ignored}"]
        return " ".join(words + ([f"H {quoted(self.source)}"] if self.bottom_count == 2 else []))

    def _gains_like(self, scores: Tensor) -> Tensor:
        if self._placed is None or (self._placed.device, self._placed.dtype) != (scores.device, scores.dtype):
            try:
                self._placed = scores.new_tensor(self._read_gains())
            except SourceMissingError as missing:
                raise DataError(missing.message, layer=self.name, field=missing.field) from None
        return self._placed

    def _read_gains(self) -> list[float]:
        """Return the values of H in the file `source`, which is read once."""
        if self._gains is None:
            path = find_path(self.source, self.context.folder)
            field = "infogain_loss_param.source"
            if path is None:
                raise SourceMissingError(
                    f"source {quoted(self.source)} does not exist{control_hint(self.source)}; write H as a BlobProto",
                    field=field,
                )
            try:
                blob = schema.BlobProto.FromString(Path(path).read_bytes())
            except (OSError, DecodeError):
                raise GraphError(f"source {quoted(self.source)} is damaged or not a BlobProto", field=field) from None
            self._gains = list(blob.data) or list(blob.double_data)
        return self._gains
