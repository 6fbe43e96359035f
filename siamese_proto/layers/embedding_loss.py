"""Losses of embeddings: TripletLoss and CenterLoss."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from siamese_proto.errors import GraphError, quoted
from siamese_proto.graph.ir import ParamRole, Shape, exactly
from siamese_proto.layers.base import Layer, RunState, canonical_axis, layer, read_filler
from siamese_proto.layers.checks import check_batches, check_equal_features, check_positive
from siamese_proto.layers.distance import measure
from siamese_proto.layers.label_indices import explain_bad_labels, pair_divisor
from siamese_proto.layers.settings.user_settings import binary_settings
from siamese_proto.layers.torch_source import Source, call
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


# Fields that forks have in triplet_loss_param, and the layers that they belong to.
OTHER_MEANINGS = {
    "losstype": "the one of (features, label) whose batch is sets of a reference, a positive and negatives",
    "num_triplets": "the one of (features, label) whose batch is sets of a reference, a positive and negatives",
    "num_negatives": "the one of (features, label) whose batch is sets of a reference, a positive and negatives",
    "use_pair": "the one of (features, label) whose batch is sets of a reference, a positive and negatives",
    "alpha": "the sum over all triplets of a batch, made of (features, label)",
    "separate": "the sum over all triplets of a batch, made of (features, label)",
    "ids_per_batch": "the sum over all triplets of a batch, made of (features, label)",
    "num_per_id": "the sum over all triplets of a batch, made of (features, label)",
    "sim_type": "the ranking of a batch by similarities",
    "mu": "the ranking of a batch by similarities",
    "sample": "the ranking of a batch by similarities",
}
SAME_NUMBER = 203  # the fork with the same layer; its only field is margin = 1
OTHER_NUMBERS = {137: "losstype", 140: "alpha", 201: "sim_type"}  # other forks, with a field of each
CHOICES = (
    "Several layers are called TripletLoss; this one takes (anchor, positive, negative), with form HINGE, RATIO or "
    "SOFTMAX, distance SQUARED or EUCLIDEAN and normalization HALF_MEAN, MEAN or SUM in triplet_loss_param. Cut the "
    "batch in three with Slice and use one of these, or register a custom class: "
    '@sp.layer("TripletLoss", replace=True)'
)


@layer("TripletLoss")
class TripletLoss(Layer):
    """`1 / (2 N) sum of max(0, margin + d(a, p) - d(a, n))` with `d(a, b) = |a - b|^2`.

    anchor a, positive p, negative n (N, *K) each -> ()
    `distance`: SQUARED, or EUCLIDEAN, d = |a - b|, whose gradient at 0 is 0.
    `form`: HINGE as above; RATIO: max(0, 1 - d(a, n) / (d(a, p) + margin)); SOFTMAX: s^2 + (1 - t)^2 with
    (s, t) = softmax(d(a, p), d(a, n)), which has no margin.
    `normalization`: HALF_MEAN 1 / (2 N), MEAN 1 / N, SUM 1.
    Not in BVLC Caffe. Schroff, Kalenichenko, Philbin: FaceNet; Hoffer, Ailon: Deep Metric Learning Using Triplet
    Network (SOFTMAX)
    """

    bottoms = exactly(3)
    bottom_names = ("anchor", "positive", "negative")
    is_loss = True

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.triplet_loss_param
        self._refuse_other_meanings(message)
        same = binary_settings(message, SAME_NUMBER)
        if same is not None and not message.HasField("triplet_loss_param"):
            settings = schema.TripletLossParameter.FromString(same)
        self.margin = settings.margin
        self.form = schema.TripletLossParameter.Form.Name(settings.form)
        self.distance = schema.TripletLossParameter.Distance.Name(settings.distance)
        self.normalization = schema.TripletLossParameter.Normalization.Name(settings.normalization)
        self.unused = ["triplet_loss_param.margin"] if self.form == "SOFTMAX" and settings.HasField("margin") else []

    def _refuse_other_meanings(self, message: schema.LayerParameter) -> None:
        for path, raw in self.context.unknown:
            if path == "triplet_loss_param" and raw.name in OTHER_MEANINGS:
                text = f"{quoted(raw.name)} belongs to another TripletLoss: {OTHER_MEANINGS[raw.name]}. {CHOICES}"
                raise GraphError(text, field=f"{path}.{raw.name}")
        for number, field in OTHER_NUMBERS.items():
            if binary_settings(message, number) is not None:
                text = f"field {number} holds the settings of another TripletLoss: {OTHER_MEANINGS[field]}. {CHOICES}"
                raise GraphError(text, field="type")
        if self.bottom_count != 3:
            raise GraphError(f"TripletLoss has {self.bottom_count} bottoms, expected 3. {CHOICES}", field="type")

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        check_batches(bottoms, 1, 2)
        check_equal_features(bottoms)
        return [()]

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        anchor, positive, negative = (bottom.reshape(bottom.shape[0], -1) for bottom in bottoms)  # (N, K)
        near = measure(self.distance, anchor, positive)  # (N,)
        far = measure(self.distance, anchor, negative)
        if self.form == "SOFTMAX":
            losses = 2 * (near - far).sigmoid().square()  # s is that sigmoid, and 1 - t = s
        elif self.form == "RATIO":
            losses = (1 - far / (near + self.margin)).relu()
        else:
            losses = (self.margin + near - far).relu()
        return [losses.sum() / pair_divisor(self.normalization, anchor.shape[0])]

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        words = {"form": (self.form, "HINGE"), "distance": (self.distance, "SQUARED")}
        module = call("TripletLoss", self.margin, **words, normalization=(self.normalization, "HALF_MEAN"))
        return Source(("{module}({0}, {1}, {2})",), module, helpers=("functional.losses.TripletLoss",))

    def unused_fields(self) -> Sequence[str]:
        return self.unused

    def describe(self) -> str:
        margin = "" if self.form == "SOFTMAX" else f"margin {self.margin:g}"
        words = [
            margin,
            self.form.lower() * (self.form != "HINGE"),
            self.distance.lower() * (self.distance != "SQUARED"),
        ]
        return " ".join(filter(None, words))


@layer("CenterLoss")
class CenterLoss(Layer):
    """`1 / (2 N) sum of |x_n - c_y(n)|^2`, c_k the center of class k.

    x (N, *K), flattened from `axis` on, N integers y below num_output -> ();  centers (num_output, prod K)
    The gradient of a center does not depend on the loss weight. It is
    `sum over the n of class k of (c_k - x_n) / (1 + number of these n)`, so that only lr_mult sets how fast it moves.
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
        from siamese_proto.layers.functional.loss_rules import center_loss

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
        return Source(apart=(loss,), helpers=("functional.loss_rules.center_loss",))

    def describe(self) -> str:
        return f"{self.classes} centres"

    def _axis(self, shape: Shape) -> int:
        return canonical_axis(self.axis, shape, "center_loss_param.axis")
