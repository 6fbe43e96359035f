"""The results of `evaluate`: as a table, and as a JSON file that can be read back."""

import base64
import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy
from PIL import Image

from siamese_proto.errors import DataError, quoted
from siamese_proto.evaluation.pair_distances import HardPair
from siamese_proto.evaluation.preprocess import Picture
from siamese_proto.evaluation.retrieval import FewShot, Mean, Retrieval
from siamese_proto.evaluation.twin import Subject
from siamese_proto.evaluation.verification import Estimate, VerificationResults
from siamese_proto.files import write_atomically

_FORMAT = "siamese_proto evaluation 1"
_JSON_NAMES = {"verification": "judgement", "at_threshold": "verdicts"}  # of the fields with another name in the file
_PICTURE_SIDE = 64  # pixels of the pictures in a file


@dataclass(frozen=True)
class Evaluation:
    """The results for a model; parts that were not requested are None or empty."""

    subject: Subject
    pairs: str = ""  # a description
    verification: VerificationResults | None = None
    hardest: tuple[HardPair, ...] = ()
    labelled: str = ""  # a description of the labeled images
    few_shot: FewShot | None = None
    retrieval: Retrieval | None = None

    def results_for(self, subject: Subject) -> VerificationResults:
        """Return the verification results. Raises DataError if there are none, or if they are for another model."""
        if self.verification is None:
            raise DataError("the result of 'evaluate' has no pairs, so it has no threshold; evaluate on pairs")
        distance = self.subject.distance.lower()
        if self.subject.distance != subject.distance:
            raise DataError(
                f"the result of 'evaluate' is for the {distance} distance, not for {subject.distance.lower()}; give "
                f"--distance {distance}"
            )
        if self.subject.digest != subject.digest:
            raise DataError(
                "the result of 'evaluate' is for other weights; evaluate these weights and give that result"
            )
        return self.verification


# As a table

Row = tuple[str, ...]


def align(rows: Sequence[Row]) -> str:
    """Render rows of cells as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_table(evaluation: Evaluation) -> str:
    """Render results as text: each score with its confidence interval or standard error, and what it is computed on."""
    subject, verification = evaluation.subject, evaluation.verification
    head = [
        ("model", f"{subject.model} with {', '.join(subject.weights)}"),
        ("distance", f"{subject.distance.lower()}, of {' and '.join(map(quoted, subject.features))}"),
    ]
    blocks = [align([*head, ("images", subject.images)] if subject.images else head)]
    if verification is not None:
        pairs, same = verification.pairs, verification.same
        title = f"{pairs} pairs, {same} same and {pairs - same} different: {evaluation.pairs}"
        if 0 < verification.distinct < pairs:
            title += (
                f"\n{pairs - verification.distinct} of them repeat another one: the intervals are those of {pairs} "
                "different pairs, so they are too narrow"
            )
        rows = [("", "", "95 % interval", ""), *_verification_rows(verification)]
        blocks.append(f"{title}\n{align(rows)}")
    if evaluation.few_shot or evaluation.retrieval:
        rows = [("", "", "standard error", ""), *_class_rows(evaluation.few_shot, evaluation.retrieval)]
        blocks.append(f"labeled images: {evaluation.labelled}\n{align(rows)}")
    return "\n\n".join(blocks)


def _verification_rows(results: VerificationResults) -> Iterator[Row]:
    def row(name: str, estimate: Estimate, note: str) -> Row:
        return name, f"{estimate.value:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}", note

    scores = results.at_threshold
    how = f"chosen on {results.chosen_on} pairs, scored on {scores.pairs} others" if results.chosen_on else "as given"
    yield row("accuracy", scores.accuracy, f"same if closer than {scores.threshold:.4g}, {how}")
    yield "balanced accuracy", f"{scores.balanced_accuracy:.4f}", "", "at that threshold"
    yield row("AUC", results.auc, "0.5 is guessing")
    yield "equal error rate", f"{results.equal_error:.4f}", "", "where the rates of false accepts and rejects are equal"
    for accepts in results.accepts:
        note = f"at {accepts.at_most:.3g} false accepts"
        if accepts.share is None:
            needed = math.ceil(1 / accepts.at_most)
            yield "true accepts", "-", "", f"{note}: needs at least {needed:,} different pairs"
        else:
            limit = "" if accepts.threshold is None else f", up to a distance of {accepts.threshold:.4g}"
            yield row("true accepts", accepts.share, note + limit)


def _class_rows(few_shot: FewShot | None, retrieval: Retrieval | None) -> Iterator[Row]:
    def row(name: str, score: Mean, note: str) -> Row:
        return name, f"{score.value:.4f}", f"{score.error:.4f}", note

    if few_shot is not None:
        way, classes = few_shot.way, few_shot.classes
        note = f"{few_shot.episodes} episodes over {classes} classes; guessing gives {1 / way:.3g}"
        yield row(f"{way}-way {few_shot.shot}-shot accuracy", few_shot.accuracy, note)
    if retrieval is not None:
        note = f"{retrieval.queries} queries against the {retrieval.images} images of {retrieval.classes} classes"
        for count, value in retrieval.recall.items():
            yield row(f"recall@{count}", value, note)
            note = ""
        yield row("mean average precision", retrieval.mean_average_precision, "")


# As JSON


def to_json(value: Any) -> str:
    """Render dataclasses, and lists of them, as JSON text; numbers that are not finite are null."""
    return json.dumps(_to_plain(value), indent=2, ensure_ascii=False, allow_nan=False)


def as_json(evaluation: Evaluation, *, with_pictures: bool = False) -> str:
    """Render results as JSON text, with the ROC curve reduced to at most 800 points."""
    if evaluation.verification is not None:
        curve = evaluation.verification.roc.thinned()
        evaluation = replace(evaluation, verification=replace(evaluation.verification, roc=curve))
    content = {"format": _FORMAT, **_to_plain(evaluation)}
    for pair in () if with_pictures else content["hardest"]:
        del pair["pictures"]
    return to_json(content)


def _to_plain(value: Any) -> Any:
    """Convert dataclasses and arrays to values that JSON has; arrays of bytes are pictures."""
    if is_dataclass(value):
        return {_JSON_NAMES.get(item.name, item.name): _to_plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _to_plain(part) for key, part in value.items()}
    if isinstance(value, numpy.ndarray):
        return picture_to_text(value) if value.dtype == numpy.uint8 else _to_plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_to_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _from_plain(kind: Any, content: Any) -> Any:
    """Convert values of JSON back to a type. Raises KeyError, TypeError, ValueError or AttributeError."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return None if content is None else _from_plain(arguments[0], content)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind)
        keys = {item.name: _JSON_NAMES.get(item.name, item.name) for item in fields(kind)}
        optional = {item.name for item in fields(kind) if item.default is not MISSING}
        present = {name: key for name, key in keys.items() if key in content or name not in optional}
        return kind(**{name: _from_plain(hints[name], content[key]) for name, key in present.items()})
    if origin is tuple:
        return tuple(_from_plain(arguments[0], part) for part in content)
    if origin is dict:
        return {int(key): _from_plain(arguments[1], part) for key, part in content.items()}
    if origin is numpy.ndarray:
        if isinstance(content, str):
            return picture_from_text(content)
        return numpy.array([-math.inf if number is None else number for number in content])
    return content


def picture_to_text(picture: Picture) -> str:
    """Encode a picture as a small PNG in base64."""
    image = Image.fromarray(picture)
    image.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return base64.b64encode(content.getvalue()).decode("ascii")


def picture_from_text(text: str) -> Picture:
    """Decode a picture of `picture_to_text`. Raises ValueError for other texts."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as image:
            return numpy.asarray(image if image.mode == "L" else image.convert("RGB"))
    except OSError as error:
        raise ValueError(str(error)) from error


def save_evaluation(evaluation: Evaluation, path: str | os.PathLike[str]) -> None:
    """Write results to a JSON file, with small pictures of the hardest pairs. Raises NetError if it cannot."""
    write_atomically(path, f"{as_json(evaluation, with_pictures=True)}\n".encode())


def read_evaluation(path: str | os.PathLike[str]) -> Evaluation:
    """Read results from a file of `save_evaluation`. Raises DataError for other files."""
    name = os.fspath(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{quoted(name)} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DataError(f"{quoted(name)} is not a result of 'siamese-proto evaluate'; make one with --json {name}")
    try:
        pairs = [pair for pair in content["hardest"] if "pictures" in pair]
        evaluation: Evaluation = _from_plain(Evaluation, {**content, "hardest": pairs})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{quoted(name)} is not a complete result of 'siamese-proto evaluate' ({error!r})") from error
    return evaluation
