"""Judge a trained twin in one call: on pairs, on labelled images, or on both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from siamese_proto.errors import DataError
from siamese_proto.evaluation.features import Embedding, as_made_by
from siamese_proto.evaluation.pair_distances import Measured, measure_own, measure_pairs
from siamese_proto.evaluation.pair_sources import labelled_images, open_pair_images
from siamese_proto.evaluation.report import Evaluation, Subject
from siamese_proto.evaluation.retrieval import few_shot, retrieve
from siamese_proto.evaluation.twin import Twin
from siamese_proto.evaluation.verification import judge
from siamese_proto.layers.pair_labels import read_pair_labels

Progress = Callable[[int], None]


@dataclass(frozen=True)
class JudgingSettings:
    """What to judge a twin on. `pairs` and `labelled` are sources of images; without either the net's own pairs."""

    pairs: str | None = None
    labelled: str | None = None
    count: int | None = None  # pairs, at most; None: all there are, or 2000 where they are drawn
    same_fraction: float = 0.5  # of pairs that are drawn
    threshold: float | None = None  # None: chosen on half of the pairs
    way: int = 5
    shot: int = 1
    episodes: int = 1000
    queries: int = 1000
    classes: str = ""  # of labelled images only these, as `data.class_choice.choose_classes` takes them
    labels: str = ""
    root_folder: str = ""
    seed: int = 0
    pair_labels: str = ""  # what labels of pairs mean, `same=1,different=-1`; empty: as the net's loss has it


def judge_twin(
    twin: Twin, subject: Subject, settings: JudgingSettings, progress: Progress = lambda done: None
) -> tuple[Evaluation, Embedding | None]:
    """All there is to find out, and the features of the labelled images. Raises NetError for what cannot be judged."""
    found = Evaluation(subject)
    embedding = None
    if settings.pairs is not None or settings.labelled is None:
        measured = _measured(twin, settings, progress)
        judgement = judge(measured.distances, threshold=settings.threshold, seed=settings.seed)
        found = replace(found, pairs=measured.told, judgement=judgement, hardest=measured.hardest)
        if settings.pairs is not None:
            found = replace(found, subject=replace(subject, images=str(twin.preparation())))
    if settings.labelled is not None:
        found = replace(found, subject=replace(subject, images=str(twin.preparation())))
        found, embedding = _labelled(twin, found, settings, progress)
    return found, embedding


def _measured(twin: Twin, settings: JudgingSettings, progress: Progress) -> Measured:
    pair_labels = read_pair_labels(settings.pair_labels) if settings.pair_labels else None
    if settings.pairs is None:
        return measure_own(twin, settings.count, pair_labels=pair_labels, progress=progress)
    pairs = open_pair_images(
        settings.pairs,
        twin.preparation(),
        one_is_same=twin.choice.one_is_same is not False,
        pair_labels=pair_labels,
        count=settings.count,
        seed=settings.seed,
        same_fraction=settings.same_fraction,
        labels=settings.labels,
        root_folder=settings.root_folder,
        classes=settings.classes,
    )
    try:
        return measure_pairs(twin, pairs, progress=progress)
    finally:
        pairs.close()


def _labelled(
    twin: Twin, found: Evaluation, settings: JudgingSettings, progress: Progress
) -> tuple[Evaluation, Embedding]:
    if settings.labelled is None:
        raise DataError("no labelled images are given")
    images = labelled_images(
        settings.labelled,
        twin.preparation(),
        labels=settings.labels,
        root_folder=settings.root_folder,
        classes=settings.classes,
    )
    with images:
        queries = twin.embed_images(images, progress=progress)
        examples = twin.embed_images(images, side=1) if twin.towers_differ else queries
        labels, names = images.labels, list(images.names)
        classes = dict(images.class_names)
    shots = few_shot(
        queries,
        examples,
        labels,
        twin.metric,
        way=settings.way,
        shot=settings.shot,
        episodes=settings.episodes,
        seed=settings.seed,
        progress=progress,
    )
    retrieval = retrieve(
        queries, examples, labels, twin.metric, most=settings.queries, seed=settings.seed, progress=progress
    )
    told = f"{len(labels)} of {settings.labelled}" + (f", classes {settings.classes}" if settings.classes else "")
    found = replace(found, labelled=told, few_shot=shots, retrieval=retrieval)
    return found, Embedding(queries, labels, names, classes, as_made_by(found.subject))
