"""Logs read back: what real Caffe printed, old and new prefixes, runs that were resumed, and files that are no logs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese_proto.errors import NetError
from siamese_proto.metrics.plots import plot_training
from siamese_proto.metrics.training_log import Output, parse_training_log, read_training_log

CAFFE = Path(__file__).parents[1] / "golden" / "logs" / "caffe_train.log"
OLD = """\
I0305 12:00:01.000001  7 solver.cpp:228] Iteration 0, loss = 2.5
I0305 12:00:01.000002  7 solver.cpp:244]     Train net output #0: loss = 2.5 (* 1 = 2.5 loss)
I0305 12:00:01.000003  7 sgd_solver.cpp:106] Iteration 0, lr = 1e-05
I0305 12:00:02.000001  7 solver.cpp:337] Iteration 100, Testing net (#1)
I0305 12:00:02.000002  7 solver.cpp:404]     Test net output #0: acc = top = 0.25
I0305 12:00:02.000002  7 solver.cpp:404]     Test net output #1: acc = top = 0.75
I0305 12:00:02.000003  7 solver.cpp:228] Iteration 100, loss = -nan
I0305 12:00:03.000003  7 solver.cpp:228] Iteration 100 (5.1 iter/s, 19s/100 iters), loss = 1.5
"""


def test_every_figure_of_caffes_log_is_read() -> None:
    log = read_training_log(CAFFE)
    assert list(log.loss) == [*range(0, 500, 50), 500]
    assert (log.loss[0], log.loss[250], log.loss[500]) == (0.259982, 0.0854777, 0.0387045)
    assert len(log.rate) == 10
    assert log.rate[450] == 0.00967526
    assert log.test == {Output("test 0", 0, "loss"): {0: 0.271671, 500: 0.0378504}}
    assert log.train[Output("train", 0, "loss")][50] == 0.052621


def test_old_prefixes_names_with_signs_and_resumed_runs_are_read() -> None:
    log = parse_training_log(OLD)
    assert log.loss == {0: 2.5, 100: 1.5}
    assert log.rate == {0: 1e-5}
    assert log.test == {Output("test 1", 0, "acc = top"): {100: 0.25}, Output("test 1", 1, "acc = top"): {100: 0.75}}


def test_a_loss_that_is_no_number_is_read_as_such() -> None:
    assert np.isnan(parse_training_log("Iteration 7, loss = -nan").loss[7])
    assert parse_training_log("Iteration 7, loss = inf").loss == {7: float("inf")}


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_curves_are_drawn(ending: str, tmp_path: Path) -> None:
    plot_training(read_training_log(CAFFE), tmp_path / f"run.{ending}", "run")
    picture = (tmp_path / f"run.{ending}").read_bytes()
    assert picture.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending])
    if ending == "png":
        with Image.open(tmp_path / "run.png") as image:
            colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []}
        assert {(31, 119, 180), (255, 127, 14)} <= colours  # the loss and the test output


@pytest.mark.parametrize(
    ("name", "out", "message"),
    [
        ("net.prototxt", "a.png", "'net.prototxt' holds no line of a training run, for example 'Iteration 100, loss"),
        ("gone.log", "a.png", "gone.log: cannot be read: No such file or directory"),
        ("caffe.log", "a.bmp", "picture 'a.bmp': its name must end in one of .png, .svg, .pdf"),
        ("caffe.log", "no/a.png", "cannot write 'no/a.png': there is no folder 'no'"),
    ],
)
def test_what_cannot_be_drawn_is_told(
    name: str, out: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text('name: "n"')
    Path("caffe.log").write_text(CAFFE.read_text())
    with pytest.raises(NetError) as caught:
        plot_training(read_training_log(name), out)
    assert str(caught.value).startswith(message)
