"""What is known of a trained twin once it has been judged: as a table, and as a JSON file that can be read back."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from siamese_proto.errors import DataError, quoted
from siamese_proto.evaluation.pair_distances import HardPair
from siamese_proto.evaluation.plots.sheets import picture_from_text, picture_to_text
from siamese_proto.evaluation.retrieval import FewShot, Mean, Retrieval
from siamese_proto.evaluation.verification import Calibration, Judgement, Roc, Share, TrueAccepts, Verification
from siamese_proto.files import write_atomically
from siamese_proto.graph.comparison import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FORMAT = "siamese_proto evaluation 1"
_POINTS = 400  # of the ROC, spread evenly, and as many more towards few false accepts


@dataclass(frozen=True)
class Subject:
    """What was judged."""

    model: str
    weights: tuple[str, ...]
    digest: str  # of the weights files, to know them again
    distance: Metric
    features: tuple[str, ...]
    images: str  # how they were prepared


@dataclass(frozen=True)
class Evaluation:
    """A judged twin; parts that were not asked for are None."""

    subject: Subject
    pairs: str = ""  # which
    judgement: Judgement | None = None
    hardest: tuple[HardPair, ...] = ()
    labelled: str = ""  # which images
    few_shot: FewShot | None = None
    retrieval: Retrieval | None = None


def digest_of(weights: Sequence[str | os.PathLike[str]]) -> str:
    """A text by which weights files are known again."""
    digest = hashlib.sha256()
    for path in weights:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


# As a table

Row = tuple[str, str, str, str]


def as_table(found: Evaluation) -> str:
    """Lines for people: each figure with its interval or standard error, and what it is of."""
    subject = found.subject
    head = [
        ("model", f"{subject.model} with {', '.join(subject.weights)}"),
        ("distance", f"{subject.distance.lower()}, of {' and '.join(map(quoted, subject.features))}"),
    ]
    head += [("images", subject.images)] if subject.images else []
    blocks = ["\n".join(f"{name:<10}{text}" for name, text in head)]
    if found.judgement is not None:
        judged = found.judgement
        title = f"{judged.pairs} pairs, {judged.same} same and {judged.pairs - judged.same} different: {found.pairs}"
        if 0 < judged.distinct < judged.pairs:
            repeats = f"{judged.pairs - judged.distinct} of them repeat another one"
            title += f"\n{repeats}: the intervals are those of {judged.pairs} different pairs, so they are too narrow"
        blocks.append(_block(title, "95 % interval", _verification_rows(judged)))
    if found.few_shot or found.retrieval:
        blocks.append(_block(f"labelled images: {found.labelled}", "standard error", _labelled_rows(found)))
    return "\n\n".join(blocks)


def _block(title: str, column: str, rows: Iterator[Row]) -> str:
    lines = [("", "", column, ""), *rows]
    widths = [max(len(row[place]) for row in lines) for place in range(4)]
    cells = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in lines]
    return "\n".join([title, *cells])


def _verification_rows(judged: Judgement) -> Iterator[Row]:
    verdicts = judged.verdicts
    how = f"chosen on {judged.chosen_on} pairs, measured on {verdicts.pairs} others" if judged.chosen_on else "as given"
    at = f"same if closer than {verdicts.threshold:.4g}, {how}"
    yield "accuracy", f"{verdicts.accuracy.value:.4f}", _interval(verdicts.accuracy), at
    yield "balanced accuracy", f"{verdicts.balanced_accuracy:.4f}", "", "at that threshold"
    yield "AUC", f"{judged.auc.value:.4f}", _interval(judged.auc), "0.5 is guessing"
    yield "equal error rate", f"{judged.equal_error:.4f}", "", "as many false accepts as false rejects"
    for accepts in judged.accepts:
        of = f"at {accepts.at_most:.3g} false accepts"
        if accepts.share is None:
            yield "true accepts", "-", "", f"{of}: takes {math.ceil(1 / accepts.at_most):,} different pairs or more"
        else:
            closest = "" if accepts.threshold is None else f", up to a distance of {accepts.threshold:.4g}"
            yield "true accepts", f"{accepts.share.value:.4f}", _interval(accepts.share), of + closest


def _interval(share: Share) -> str:
    return f"{share.low:.4f} to {share.high:.4f}"


def _labelled_rows(found: Evaluation) -> Iterator[Row]:
    few, retrieval = found.few_shot, found.retrieval
    if few is not None:
        of = f"{few.episodes} episodes over {few.classes} classes; guessing gives {1 / few.way:.3g}"
        yield f"{few.way}-way {few.shot}-shot accuracy", f"{few.accuracy.value:.4f}", f"{few.accuracy.error:.4f}", of
    if retrieval is not None:
        of = f"{retrieval.queries} queries against the {retrieval.images} images of {retrieval.classes} classes"
        for count, value in retrieval.recall.items():
            yield f"recall@{count}", f"{value.value:.4f}", f"{value.error:.4f}", of
            of = ""
        precision = retrieval.mean_average_precision
        yield "mean average precision", f"{precision.value:.4f}", f"{precision.error:.4f}", ""


# As JSON


def as_json(found: Evaluation, *, with_pictures: bool = False) -> str:
    """Everything that was found, as JSON text; numbers that are not finite are null."""
    content = {"format": _FORMAT, **asdict(replace(found, hardest=()))}
    if found.judgement is not None:
        content["judgement"]["roc"] = asdict(_thinned(found.judgement.roc))
    content["hardest"] = [_hard_as_object(pair, with_pictures=with_pictures) for pair in found.hardest]
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _hard_as_object(pair: HardPair, *, with_pictures: bool) -> dict[str, Any]:
    made = {"distance": pair.distance, "same": pair.same, "names": list(pair.names)}
    return {**made, "pictures": [picture_to_text(picture) for picture in pair.pictures]} if with_pictures else made


def _thinned(curve: Roc) -> Roc:
    count = len(curve.thresholds)
    if count <= 2 * _POINTS:
        return curve
    wanted = [numpy.linspace(0, count - 1, _POINTS), numpy.geomspace(1, count - 1, _POINTS)]
    rows = numpy.unique(numpy.concatenate(wanted).round().astype(int))
    return Roc(curve.false_accepts[rows], curve.true_accepts[rows], curve.thresholds[rows])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, numpy.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def save_evaluation(found: Evaluation, path: str | os.PathLike[str]) -> None:
    """Write the JSON file, with small pictures of the hardest pairs. Raises NetError where it cannot be written."""
    write_atomically(path, as_json(found, with_pictures=True).encode())


def read_evaluation(path: str | os.PathLike[str]) -> Evaluation:
    """Read such a file again; DataError where it is none."""
    name = os.fspath(path)
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{quoted(name)} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DataError(f"{quoted(name)} is no result of 'siamese-proto evaluate'; make one with --json {name}")
    try:
        return _evaluation(content)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{quoted(name)} is no whole result of 'siamese-proto evaluate' ({error!r})") from error


def _evaluation(content: Mapping[str, Any]) -> Evaluation:
    subject = content["subject"]
    lists = {"weights": tuple(subject["weights"]), "features": tuple(subject["features"])}
    return Evaluation(
        Subject(**{**subject, **lists}),
        content["pairs"],
        _judgement(content["judgement"]) if content["judgement"] else None,
        tuple(_hard_pair(pair) for pair in content["hardest"] if "pictures" in pair),
        content["labelled"],
        _few_shot(content["few_shot"]) if content["few_shot"] else None,
        _retrieval(content["retrieval"]) if content["retrieval"] else None,
    )


def _judgement(content: Mapping[str, Any]) -> Judgement:
    verdicts = {**content["verdicts"], "accuracy": Share(**content["verdicts"]["accuracy"])}
    thresholds = [-math.inf if value is None else value for value in content["roc"]["thresholds"]]
    curve = {name: numpy.array(values) for name, values in {**content["roc"], "thresholds": thresholds}.items()}
    accepts = [
        TrueAccepts(part["at_most"], Share(**part["share"]) if part["share"] else None, part["threshold"])
        for part in content["accepts"]
    ]
    counts: dict[str, NDArray[Any]] = {
        name: numpy.array(content[name]) for name in ("edges", "same_counts", "different_counts")
    }
    return Judgement(
        **{
            **content,
            **counts,
            "verdicts": Verification(**verdicts),
            "auc": Share(**content["auc"]),
            "accepts": tuple(accepts),
            "roc": Roc(**curve),
            "calibration": Calibration(**content["calibration"]),
        }
    )


def _hard_pair(content: Mapping[str, Any]) -> HardPair:
    first, second = (picture_from_text(text) for text in content["pictures"])
    names = (content["names"][0], content["names"][1])
    return HardPair(content["distance"], content["same"], names, (first, second))


def _few_shot(content: Mapping[str, Any]) -> FewShot:
    return FewShot(**{**content, "accuracy": Mean(**content["accuracy"])})


def _retrieval(content: Mapping[str, Any]) -> Retrieval:
    recall = {int(count): Mean(**value) for count, value in content["recall"].items()}
    precision = Mean(**content["mean_average_precision"])
    return Retrieval(**{**content, "recall": recall, "mean_average_precision": precision})
