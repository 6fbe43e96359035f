"""Any file of results as a picture, by what it is."""

from __future__ import annotations

from siamese_proto.errors import DataError, quoted
from siamese_proto.evaluation.features import plot_embedding, read_features
from siamese_proto.evaluation.plots.figures import plot_evaluation, plot_histogram, plot_roc
from siamese_proto.evaluation.plots.sheets import plot_pairs
from siamese_proto.evaluation.plots.training import plot_training
from siamese_proto.evaluation.report import read_evaluation
from siamese_proto.evaluation.training_log import read_training_log

OF_EVALUATION = ("all", "roc", "histogram", "pairs")


def draw_file(source: str, out: str, what: str | None = None, title: str = "") -> None:
    """Draw a training log, a .json of 'evaluate' or a .npz of 'embed'.

    `what` is one of `OF_EVALUATION`, "curves" or "features"; None: judged by the file's name. Raises NetError where the
    file is not of that kind.
    """
    suffix = source.lower().rpartition(".")[2]
    what = what or {"json": "all", "npz": "features", "npy": "features"}.get(suffix, "curves")
    if what == "curves":
        plot_training(read_training_log(source), out, title)
    elif what == "features":
        plot_embedding(read_features(source), out, title)
    elif what in OF_EVALUATION:
        _draw_evaluation(source, out, what, title)
    else:
        raise DataError(f"{quoted(what)} is nothing that can be drawn; say one of {', '.join(OF_EVALUATION)}")


def _draw_evaluation(source: str, out: str, what: str, title: str) -> None:
    found = read_evaluation(source)
    if what == "all":
        plot_evaluation(found, out, title)
    elif what == "roc":
        plot_roc(found, out, title)
    elif what == "histogram":
        plot_histogram(found, out, title)
    elif found.judgement is None or not found.hardest:
        raise DataError(f"{quoted(source)} holds no pairs with pictures; evaluate on pairs of images")
    else:
        plot_pairs(found.hardest, found.judgement.verdicts.threshold, out, title)
