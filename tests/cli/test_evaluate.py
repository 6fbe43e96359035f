"""siamese-proto evaluate: scores, JSON and pictures of a net that was trained briefly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from siamese_proto.data.images.digits import load_digits
from siamese_proto.evaluation.plots.figures import plot_evaluation
from siamese_proto.evaluation.report import read_evaluation
from siamese_proto.net.net import Net
from siamese_proto.weights import read_weights

BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


@pytest.fixture(scope="module")
def results(_trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(_trained.folder)
        sources = (
            "--pairs",
            "images",
            "--count",
            "400",
            "--labelled",
            "digits:test",
            "--episodes",
            "200",
            "--way",
            "7",
        )
        files = ("--json", str(out / "r.json"), "--picture", str(out / "all.png"))
        done = _trained.run("evaluate", *sources, *files)
    assert done.exit_code == 0, done.output
    (out / "table.txt").write_text(done.output)
    return out


def test_the_nets_own_test_pairs_are_the_default(trained: Any) -> None:
    done = trained.run("evaluate", "--format", "json")
    assert done.exit_code == 0, done.output
    judged = json.loads(done.stdout)["judgement"]
    assert (judged["pairs"], judged["same"], judged["chosen_on"]) == (640, 320, 320)
    assert judged["auc"]["value"] > 0.85
    assert judged["verdicts"]["balanced_accuracy"] > 0.75

    net = Net("twin.prototxt", "TEST", "twin.caffemodel")
    distances, labels = [], []
    for _ in range(10):
        blobs = net.blobs(**net.pull())
        distances.append((blobs["feat"] - blobs["feat_p"]).norm(dim=1).detach().numpy())
        labels.append(blobs["same"].numpy())
    net.close()
    expected = roc_auc_score(np.concatenate(labels), -np.concatenate(distances))
    assert judged["auc"]["value"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_pairs_drawn_by_a_data_layer_depend_only_on_the_seed(trained: Any) -> None:
    text = Path("twin.prototxt").read_text().replace("tuples: 640 seed: 7", "")
    Path("unseeded.prototxt").write_text(text)
    options = ("--count", "100", "--format", "json")
    one, again, other = (
        json.loads(trained.run("evaluate", *options, "--seed", seed, model="unseeded.prototxt").stdout)["judgement"]
        for seed in ("3", "3", "4")
    )
    assert one == again
    assert one["auc"] != other["auc"]


@pytest.mark.slow
def test_the_table_describes_pairs_and_scores(results: Path) -> None:
    table = (results / "table.txt").read_text()
    for line in (
        "model     twin.prototxt with twin.caffemodel",
        "distance  euclidean, of 'feat' and 'feat_p'",
        "images    gray, resized to 28 x 28, times 0.00390625 (from layer 'pairs')",
        "356 pairs, 156 same and 200 different: pairs drawn from the 60 images of images, none twice, seed 0;",
        "at 0.001 false accepts: needs at least 1,000 different pairs",
        "labeled images: 360 of digits:test",
        "200 episodes over 10 classes; guessing gives 0.143",
        "360 queries against the 360 images of 10 classes",
    ):
        assert line in table
    for name in ("balanced accuracy", "AUC", "equal error rate", "7-way 1-shot accuracy", "recall@10", "mean average"):
        assert name in table


def test_the_json_file_reads_back_as_it_was_written(results: Path) -> None:
    content = json.loads((results / "r.json").read_text())
    back = read_evaluation(results / "r.json")
    assert back.verification is not None
    assert back.verification.auc.value == content["judgement"]["auc"]["value"]
    assert back.verification.roc.thresholds[0] == -np.inf
    assert content["judgement"]["roc"]["thresholds"][0] is None
    assert back.verification.same_counts.sum() == 156  # all pairs of 60 images
    assert back.few_shot is not None
    assert back.few_shot.way == 7
    assert back.retrieval is not None
    assert list(back.retrieval.recall) == [1, 5, 10]
    assert len(back.hardest) == 48
    assert back.hardest[0].pictures[0].shape == (28, 28)
    assert back.hardest[0].distance >= back.hardest[1].distance
    assert all(name.startswith("images/") for pair in back.hardest for name in pair.names)


def test_the_features_are_those_of_a_hand_written_net(trained: Any, results: Path) -> None:
    layers = {layer.name: layer.blobs for layer in read_weights("twin.caffemodel").layers}
    pixels = load_digits()[1][0].reshape(-1, 784) / 256
    hidden = np.maximum(pixels @ np.asarray(layers["ip1"][0]).T + layers["ip1"][1], 0)
    features = hidden @ np.asarray(layers["feat"][0]).reshape(6, 32).T + np.asarray(layers["feat"][1])
    labels = load_digits()[1][1]
    distances = np.sqrt(((features[:, None] - features) ** 2).sum(2))
    np.fill_diagonal(distances, np.inf)
    recall = (labels[distances.argmin(1)] == labels).mean()
    back = read_evaluation(results / "r.json")
    assert back.retrieval is not None
    assert back.retrieval.recall[1].value == pytest.approx(recall, abs=1e-9)


def test_the_picture_shows_both_kinds_of_pairs(results: Path, colors: Callable[[Path], Any]) -> None:
    assert {BLUE, VERMILION} <= colors(results / "all.png")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["all", "roc", "histogram", "pairs"])
def test_plot_draws_the_results(what: str, trained: Any, results: Path, colors: Callable[[Path], Any]) -> None:
    out = results / f"{what}.png"
    done = trained.run("plot", str(results / "r.json"), str(out), "--what", what)
    assert (done.exit_code, done.output) == (0, "")
    assert {BLUE, VERMILION} <= colors(out)


def test_one_tower_with_the_scale_has_the_results_of_the_twin(trained: Any, results: Path) -> None:
    done = trained.run(
        "evaluate",
        "--pairs",
        "images",
        "--count",
        "400",
        "--format",
        "json",
        "--scale",
        "0.00390625",
        model="tower.prototxt",
    )
    assert done.exit_code == 0, done.output
    twin = json.loads((results / "r.json").read_text())["judgement"]["auc"]["value"]
    assert json.loads(done.stdout)["judgement"]["auc"]["value"] == pytest.approx(twin, abs=1e-4)


def test_pairs_of_a_csv_are_evaluated(trained: Any) -> None:
    rows = [(trained.image(3, 0), trained.image(3, 1), 1), (trained.image(4, 0), trained.image(4, 1), 1)]
    rows += [(trained.image(3, 0), trained.image(4, 0), 0), (trained.image(5, 0), trained.image(6, 0), 0)]
    Path("pairs.csv").write_text("first,second,same\n" + "".join(f"{a},{b},{same}\n" for a, b, same in rows))
    done = trained.run("evaluate", "--pairs", "pairs.csv", "--threshold", "0.5", "--format", "json")
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert (content["judgement"]["pairs"], content["judgement"]["same"]) == (4, 2)
    assert content["judgement"]["verdicts"]["threshold"] == 0.5
    assert content["pairs"] == "pairs of pairs.csv, label 1 is same"
    reverse = trained.run(
        "evaluate", "--pairs", "pairs.csv", "--threshold", "0.5", "--format", "json", "--same-label", "0"
    )
    assert json.loads(reverse.stdout)["judgement"]["auc"]["value"] == pytest.approx(
        1 - content["judgement"]["auc"]["value"]
    )


def test_another_distance_can_be_specified(trained: Any) -> None:
    done = trained.run("evaluate", "--pairs", "images", "--count", "50", "--distance", "cosine", "--format", "json")
    content = json.loads(done.stdout)
    assert content["subject"]["distance"] == "COSINE"
    assert 0 <= content["judgement"]["edges"][-1] <= 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--pairs", "images", "--same-fraction", "1"),
            "0 of 156 pairs are of two classes: expected at least",
        ),
        (
            ("--pairs", "images", "--classes", "3"),
            "all images are of one class, so no pair can differ; give more classes",
        ),
        (
            ("--labelled", "images", "--way", "11"),
            "11-way 1-shot needs 11 classes of at least 2 images, but only 10 of the 10",
        ),
        (("--pairs", "gone"), "'gone' cannot be read"),
        (("--labelled", "gone"), "'gone' is not there in the working directory; check the path"),
        (("--picture", "x.bmp"), "picture 'x.bmp': its name must end in one of .png, .svg, .pdf"),
        (("--json", "no/r.json"), "cannot write 'no/r.json': there is no folder 'no'"),
        (("--label", "sum"), "the net has no blob 'sum'"),
        (("--distance", "learned"), "the net has no learned score of two features; choose another --distance"),
    ],
)
def test_sources_that_cannot_be_evaluated_are_one_line(arguments: tuple[str, ...], message: str, trained: Any) -> None:
    done = trained.run("evaluate", *arguments)
    assert done.exit_code == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert not Path("x.bmp").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "'r.json' is not JSON: Expecting value"),
        ("[1]", "'r.json' is not a result of 'siamese-proto evaluate'; make one with --json r.json"),
        (
            '{"format": "siamese_proto evaluation 1"}',
            "'r.json' is not a complete result of 'siamese-proto evaluate' (KeyError",
        ),
    ],
)
def test_a_file_without_results_is_refused(text: str, message: str, trained: Any, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        Path("r.json").write_text(text)
        done = trained.run("plot", "r.json", "r.png")
    assert done.exit_code == 1
    assert done.stderr.startswith(message)


@pytest.mark.slow
def test_titles_that_look_like_formulas_are_drawn(results: Path, tmp_path: Path) -> None:
    plot_evaluation(read_evaluation(results / "r.json"), tmp_path / "x.svg", r"$\frac{1$ \x")
    assert (tmp_path / "x.svg").stat().st_size > 10_000
