"""siamese-proto compare: distance, score and verdict of two images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from siamese_proto.evaluation.features import read_features
from siamese_proto.evaluation.verification import Distances, score_threshold


@pytest.mark.slow
def test_the_distance_is_that_of_the_embedded_features(trained: Any, tmp_path: Path) -> None:
    pair = (trained.image(3), trained.image(8))
    trained.run("embed", *pair, "-o", str(tmp_path / "f.npz"))
    features = read_features(tmp_path / "f.npz").features
    done = trained.run("compare", *pair, "--format", "json")
    result = json.loads(done.stdout)
    assert result["distance"] == pytest.approx(float(np.linalg.norm(features[0] - features[1])), rel=1e-4)
    assert result["score"] == pytest.approx(2 / (1 + math.exp(result["distance"])))
    assert result["verdict"] is None


@pytest.mark.slow
def test_the_verdict_and_the_score_come_from_the_evaluation(trained: Any, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    trained.run("evaluate", "--pairs", "images", "--count", "200", "--json", str(file))
    expected = json.loads(file.read_text())["judgement"]
    verdicts = set()
    for one, other in [(3, 3), (3, 8), (0, 7), (1, 1)]:
        pair = (trained.image(one, 0), trained.image(other, 1))
        result = json.loads(trained.run("compare", *pair, "--evaluated", str(file), "--format", "json").stdout)
        assert result["threshold"] == expected["verdicts"]["threshold"]
        assert result["verdict"] == ("same" if result["distance"] < result["threshold"] else "different")
        odds = expected["calibration"]["slope"] * result["distance"] + expected["calibration"]["intercept"]
        assert result["score"] == pytest.approx(1 / (1 + math.exp(-odds)))
        verdicts.add(result["verdict"])
    assert verdicts == {"same", "different"}
    text = trained.run("compare", trained.image(0), trained.image(7), "--evaluated", str(file)).stdout
    assert "verdict   different (distance >= " in text
    refused = trained.run("compare", trained.image(0), trained.image(7), "--evaluated", str(file), "--distance", "l1")
    assert refused.stderr == (
        "the result of 'evaluate' is for the euclidean distance, not for l1; give --distance euclidean\n"
    )
    content = json.loads(file.read_text())
    content["subject"]["digest"] = "another"
    file.write_text(json.dumps(content))
    refused = trained.run("compare", trained.image(0), trained.image(7), "--evaluated", str(file))
    assert (refused.exit_code, refused.stderr.split(";")[0]) == (1, "the result of 'evaluate' is for other weights")


def test_an_image_is_the_same_as_itself_and_is_shown(trained: Any, tmp_path: Path) -> None:
    out = tmp_path / "pair.png"
    done = trained.run("compare", trained.image(3), trained.image(3), "--threshold", "0.1", "--show", str(out))
    assert done.exit_code == 0, done.output
    assert "distance  0.0000 (euclidean)\nscore     1.0000" in done.stdout
    assert "verdict   same (distance < 0.1000)" in done.stdout
    with Image.open(out) as picture:
        assert picture.width > picture.height
        colors = {color for _, color in picture.convert("RGB").getcolors(1 << 22) or []}
    assert (0, 114, 178) in colors  # the verdict, in the color of "same"


@pytest.mark.parametrize(("one", "other"), [(3, 8), (3, 3)])
def test_images_exactly_at_the_threshold_are_different_as_in_the_evaluation(one: int, other: int, trained: Any) -> None:
    pair = (trained.image(one), trained.image(other))
    distance = json.loads(trained.run("compare", *pair, "--format", "json").stdout)["distance"]
    for threshold in (distance, math.nextafter(distance, math.inf)):
        done = trained.run("compare", *pair, "--format", "json", "--threshold", repr(threshold))
        expected = score_threshold(threshold, Distances(np.array([distance, distance]), np.array([True, False])))
        assert json.loads(done.stdout)["verdict"] == ("same" if expected.true_accepts else "different")
        assert expected.true_accepts == (threshold > distance)


def test_a_learned_metric_gives_its_own_score_and_verdict(trained: Any) -> None:
    text = Path("twin.prototxt").read_text()
    head = """
layer { name: "minus" type: "Eltwise" bottom: "feat" bottom: "feat_p" top: "d" eltwise_param { coeff: 1 coeff: -1 } }
layer { name: "abs" type: "AbsVal" bottom: "d" top: "e" }
layer { name: "sum" type: "InnerProduct" bottom: "e" top: "score" inner_product_param { num_output: 1
        weight_filler { value: -1 } bias_filler { value: 2 } } }
layer { name: "loss" type: "SigmoidCrossEntropyLoss" bottom: "score" bottom: "same" top: "loss" }
"""
    from siamese_proto.net.net import Net

    Path("learned.prototxt").write_text(text[: text.index('layer { name: "loss"')] + head)
    net = Net("learned.prototxt", "TEST")
    net.load_weights("twin.caffemodel")
    net.save_weights("learned.caffemodel")
    pair = (trained.image(3), trained.image(8))
    options = ("--model", "learned.prototxt", "--weights", "learned.caffemodel", "--format", "json")
    from click.testing import CliRunner

    from siamese_proto.cli import main

    result = json.loads(CliRunner().invoke(main, ["compare", *pair, *options]).stdout)
    l1 = json.loads(trained.run("compare", *pair, "--distance", "l1", "--format", "json").stdout)["distance"]
    assert result["metric"] == "learned"
    assert result["score"] == pytest.approx(1 / (1 + math.exp(l1 - 2)), abs=1e-5)
    assert result["verdict"] == ("same" if result["score"] > 0.5 else "different")


def test_missing_and_broken_images_are_one_line(trained: Any, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no image")
    for name, message in (
        ("gone.png", "No such file"),
        (str(tmp_path / "x.png"), "not an image file that Pillow can read"),
    ):
        done = trained.run("compare", trained.image(3), name)
        assert done.exit_code == 1
        assert done.stderr.startswith(f"image '{name}' cannot be read: ")
        assert message in done.stderr


def test_a_folder_instead_of_an_image_is_refused(trained: Any) -> None:
    for arguments in (("compare", trained.image(3), "images"), ("search", "images", "--in", "images")):
        done = trained.run(*arguments)
        assert (done.exit_code, done.stderr) == (1, "'images' is a folder: expected one image; give a file of it\n")
