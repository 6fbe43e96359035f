"""Class labels as indices into scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from siamese_proto.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


def labels_along(scores: Tensor, labels: Tensor, axis: int, ignored: int | None) -> tuple[Tensor, Tensor | None]:
    """Labels as indices for `gather` along `axis`, and which of them count.

    scores (*A, C, *B), labels of any shape with prod A x prod B values, which lose what follows the point as in C.
    Returns (*A, 1, *B) of whole numbers, with 0 for labels to be ignored, and a mask of the same shape and the type of
    the scores: 1 where a label counts, 0 where not; None where no label is ignored.
    """
    shape = (*scores.shape[:axis], 1, *scores.shape[axis + 1 :])
    indices = labels.detach().long().reshape(shape)
    if ignored is None:
        return indices, None
    counted = indices != ignored
    return indices * counted, counted.to(scores.dtype)


def explain_bad_labels(labels: Tensor, classes: int, layer: str) -> None:
    """DataError that names the first label outside 0 to classes - 1, if any; asked once indexing has failed."""
    if labels.device.type != "cpu":  # the device is in an error state: it can no longer be asked
        return
    bad = labels[(labels < 0) | (labels >= classes)]
    if len(bad):
        raise DataError(
            f"label {int(bad[0])} is outside the {classes} classes, 0 to {classes - 1}", layer=layer
        ) from None
