"""Helpers of losses: labels as indices into scores, and the divisor of a sum over labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siamese_proto.errors import DataError
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor


def labels_along(scores: Tensor, labels: Tensor, axis: int, ignored: int | None) -> tuple[Tensor, Tensor | None]:
    """Return labels as indices for `gather` along `axis`, and a mask of those that count.

    scores (*A, C, *B), labels of any shape with prod A x prod B values, whose fractions are cut off as in C.
    Returns integers (*A, 1, *B), 0 for ignored labels, and a mask of the same shape and the type of the scores: 1 for
    labels that count, 0 for others; None if all count.
    """
    shape = (*scores.shape[:axis], 1, *scores.shape[axis + 1 :])
    indices = labels.detach().long().reshape(shape)
    if ignored is None:
        return indices, None
    counted = indices != ignored
    return indices * counted, counted.to(scores.dtype)


def explain_bad_labels(labels: Tensor, classes: int, layer: str) -> None:
    """Raise DataError with the first label outside 0 to classes - 1, if any. Call it after indexing has failed."""
    if labels.device.type != "cpu":  # the device is in an error state and cannot be read
        return
    bad = labels[(labels < 0) | (labels >= classes)]
    if len(bad):
        raise DataError(
            f"label {int(bad[0])} is outside the {classes} classes, 0 to {classes - 1}", layer=layer
        ) from None


def read_ignored(message: schema.LayerParameter) -> int | None:
    """Return the label to ignore; None if every label counts."""
    return message.loss_param.ignore_label if message.loss_param.HasField("ignore_label") else None


def read_normalization(message: schema.LayerParameter, default: str) -> str:
    """Return FULL, VALID, BATCH_SIZE or NONE. If it is unset, the old flag `normalize` selects VALID or BATCH_SIZE."""
    settings = message.loss_param
    if settings.HasField("normalization"):
        return schema.LossParameter.NormalizationMode.Name(settings.normalization)
    if settings.HasField("normalize"):
        return "VALID" if settings.normalize else "BATCH_SIZE"
    return default


def divisor(normalization: str, outer: int, total: int, counted: Tensor | None) -> Tensor | int:
    """Return what a sum over labels is divided by, at least 1.

    `outer` rows hold `total` labels; `counted` is 1 for labels that count and 0 for the others, None if all count.
    """
    if normalization == "VALID" and counted is not None:
        return counted.sum().clamp(min=1)
    return max(1, {"FULL": total, "VALID": total, "BATCH_SIZE": outer, "NONE": 1}[normalization])


def pair_divisor(normalization: str, pairs: int) -> int:
    """Return what a sum over N pairs or triplets is divided by: 2 N (HALF_MEAN), N (MEAN) or 1 (SUM)."""
    return {"HALF_MEAN": 2 * pairs, "MEAN": pairs, "SUM": 1}[normalization]
