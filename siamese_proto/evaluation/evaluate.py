"""Evaluate a trained twin in one call: on pairs, on labeled images, or on both."""

from contextlib import closing
from dataclasses import dataclass, replace

from siamese_proto.data.images.labeled_source import LabeledSource
from siamese_proto.evaluation.features import Embedding, embed_images
from siamese_proto.evaluation.pair_distances import MeasuredPairs, measure_data_layers, measure_pairs
from siamese_proto.evaluation.pair_sources import labeled_images, open_pair_images
from siamese_proto.evaluation.report import Evaluation
from siamese_proto.evaluation.retrieval import few_shot, retrieve
from siamese_proto.evaluation.twin import Twin
from siamese_proto.evaluation.verification import verify
from siamese_proto.layers.pair_labels import read_pair_labels


@dataclass(frozen=True)
class EvaluationSettings:
    """What to evaluate a twin on; without `pairs` and `labeled`, the pairs of its own data layers."""

    pairs: LabeledSource | None = None  # source of pairs
    labeled: LabeledSource | None = None
    count: int | None = None  # number of pairs at most; None: all, or 2000 if they are drawn
    same_fraction: float = 0.5  # of pairs that are drawn
    threshold: float | None = None  # None: chosen on half of the pairs
    way: int = 5
    shot: int = 1
    episodes: int = 1000
    queries: int = 1000
    seed: int = 0
    pair_labels: str = ""  # meaning of the labels of pairs, `same=1,different=-1`; empty: that of the net's loss


def evaluate_twin(twin: Twin, settings: EvaluationSettings) -> tuple[Evaluation, Embedding | None]:
    """Evaluate a twin on pairs and labeled images.

    Returns:
        The results, and the features of the labeled images if there are any.

    Raises:
        NetError: the sources cannot be read, or have too few pairs or classes.
    """
    uses_images = settings.pairs is not None or settings.labeled is not None
    evaluation = Evaluation(twin.subject(str(twin.preprocessing()) if uses_images else ""))
    embedding = None
    if settings.pairs is not None or settings.labeled is None:
        measured = _measure(twin, settings)
        results = verify(measured.distances, threshold=settings.threshold, seed=settings.seed)
        evaluation = replace(evaluation, pairs=measured.description, verification=results, hardest=measured.hardest)
    if settings.labeled is not None:
        evaluation, embedding = _evaluate_classes(twin, evaluation, settings.labeled, settings)
    return evaluation, embedding


def _measure(twin: Twin, settings: EvaluationSettings) -> MeasuredPairs:
    pair_labels = read_pair_labels(settings.pair_labels) if settings.pair_labels else None
    if settings.pairs is None:
        return measure_data_layers(twin, settings.count, pair_labels=pair_labels)
    pairs = open_pair_images(
        settings.pairs,
        twin.preprocessing(),
        one_is_same=twin.settings.one_is_same is not False,
        pair_labels=pair_labels,
        count=settings.count,
        seed=settings.seed,
        same_fraction=settings.same_fraction,
    )
    with closing(pairs):
        return measure_pairs(twin, pairs)


def _evaluate_classes(
    twin: Twin, evaluation: Evaluation, source: LabeledSource, settings: EvaluationSettings
) -> tuple[Evaluation, Embedding]:
    with labeled_images(source, twin.preprocessing()) as images:
        embedding = embed_images(twin, images)
        examples = twin.embed_images(images, side=1) if twin.towers_differ else embedding.features
    queries, labels = embedding.features, embedding.labels
    shots = few_shot(
        queries,
        examples,
        labels,
        twin.metric,
        way=settings.way,
        shot=settings.shot,
        episodes=settings.episodes,
        seed=settings.seed,
    )
    retrieval = retrieve(queries, examples, labels, twin.metric, most=settings.queries, seed=settings.seed)
    description = f"{len(labels)} of {source.path}" + (f", classes {source.classes}" if source.classes else "")
    return replace(evaluation, labelled=description, few_shot=shots, retrieval=retrieval), embedding
