"""Logs read back: what real Caffe printed, old and new prefixes, runs that were resumed, and files that are no logs."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import paths
import pytest
from PIL import Image

from siamese_proto.errors import NetError
from siamese_proto.evaluation.plots.training import plot_training
from siamese_proto.evaluation.training_log import Output, parse_training_log, read_training_log

CAFFE = paths.GOLDEN / "logs" / "caffe_train.log"
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


def test_every_number_in_a_log_of_caffe_is_read() -> None:
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


def test_losses_that_are_not_finite_are_read() -> None:
    assert np.isnan(parse_training_log("Iteration 7, loss = -nan").loss[7])
    assert parse_training_log("Iteration 7, loss = inf").loss == {7: float("inf")}


# line, what it says of iteration 100: the loss and the learning rate
LINES = [
    ("Iteration 100 (12.5 iter/s, 8s/100 iter), 1.0/4ep, loss = 1.75", 1.75, None),  # NVCaffe
    ("Iteration 100, lr = 0.02, m = 0.9, lrm = 0.1, wd = 0.0001, gs = 1", None, 0.02),
    ("[0.0] Iteration 100 (241.1/s), loss = 3e-05", 3e-5, None),
    ("Iteration 100 (241.1/s), lr = 1e-005", None, 1e-5),
    ("[1,0]<stderr>:I0312 10:00:00.120000  4711 solver.cpp:218] [0] Iteration 100, loss = .5", 0.5, None),
    ("I20240312 10:00:00.120000  4711 solver.cpp:218] Iteration 100, loss = 2.", 2.0, None),
    ("Iteration 100, loss = 1.#QNAN", float("nan"), None),  # Microsoft's compilers
    ("Iteration 100, loss = -1.#IND", float("nan"), None),
    ("Iteration 100, loss = -nan(ind)", float("nan"), None),
    ("Iteration 100, loss = 1.#INF", float("inf"), None),
    ("Iteration 100, loss = -1.#INF", -float("inf"), None),
]


@pytest.mark.parametrize(("line", "loss", "rate"), LINES)
def test_lines_of_forks_old_releases_and_windows_are_read(line: str, loss: float | None, rate: float | None) -> None:
    log = parse_training_log(line)
    np.testing.assert_equal(log.loss, {} if loss is None else {100: loss})
    np.testing.assert_equal(log.rate, {} if rate is None else {100: rate})
    assert log.not_understood == {}


def test_a_train_output_that_is_not_finite_stays_so() -> None:
    text = "Iteration 200, loss = 3\n    Train net output #0: loss = 1.#QNAN (* 1 = 1.#QNAN loss)\n"
    np.testing.assert_equal(parse_training_log(text).train, {Output("train", 0, "loss"): {200: float("nan")}})


def test_test_scores_of_2014_and_the_total_loss_of_a_test_are_read() -> None:
    text = (
        "Iteration 0, Testing net\nTest score #0: 0.1\nTest score #1: 2.3\nIteration 0, loss = 2.31\n"
        "Iteration 400, Testing net (#0)\nTest loss: 7.5\nTest score #0: 0.4\nTest score #1: 1.5\n"
    )
    assert parse_training_log(text).test == {
        Output("test 0", 0, "score #0"): {0: 0.1, 400: 0.4},
        Output("test 0", 1, "score #1"): {0: 2.3, 400: 1.5},
        Output("test 0", 0, "total loss"): {400: 7.5},
    }


NOT_UNDERSTOOD = [
    "Iteration 100, loss = 0.0.0",
    "Iteration 100, loss = 1,75",
    "Iteration 100, loss = 1.#QUAX",
    "Iteration 100, loss = 2I0312 10:00:12.120000  4711 solver.cpp:237] Iteration 100, lr = 1",
    f"Iteration {'1' * 5000}, loss = 2",
    "Iteration 100, lr = fast",
    "    Train net output #0: loss = 1.2.3",
    "    Test net output #0: accuracy",
    "Test score #0: high",
    "Iteration 100, Testing net (#one)",
]


@pytest.mark.parametrize("line", NOT_UNDERSTOOD)
def test_a_line_that_looks_like_a_result_but_cannot_be_read_is_reported(line: str, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(
        f"Solving n\nIteration 0, Testing net (#0)\nIteration 0, loss = 4\n{line}\n{line}\n"
    )
    with pytest.warns(UserWarning, match="a.log:4: '.*' looks like a result but cannot be read; .* left out: 2$"):
        log = read_training_log(tmp_path / "a.log")
    assert (log.loss, log.rate, log.train, log.test) == ({0: 4.0}, {}, {}, {})
    assert log.not_understood == {4: line, 5: line}


def test_outputs_after_an_unreadable_loss_take_the_iteration_of_the_learning_rate() -> None:
    log = parse_training_log(
        "Iteration 0, loss = 3\nIteration 50, loss = ?\n    Train net output #0: l = 2\nIteration 50, lr = 0.1\n"
    )
    assert log.train == {Output("train", 0, "l"): {50: 2.0}}
    assert list(log.not_understood) == [2]


def test_a_log_cut_at_its_start_has_no_point_at_iteration_zero() -> None:
    tail = (
        "    Test net output #0: acc = 0.5\n    Train net output #0: l = 1.75\nIteration 100, lr = 0.01\n"
        "    Test net output #0: acc = 0.6\nIteration 200, loss = 1.5\n    Train net output #0: l = 1.25\n"
    )
    log = parse_training_log(tail)
    assert (log.loss, log.rate) == ({200: 1.5}, {100: 0.01})
    assert log.train == {Output("train", 0, "l"): {100: 1.75, 200: 1.25}}
    assert log.test == {}
    assert list(log.not_understood) == [1, 4]
    assert list(parse_training_log("    Train net output #0: l = 1\nIteration 200, loss = 1\n").not_understood) == [1]


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: text.encode("utf-16-be"),
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: gzip.compress(text.encode()),
        lambda text: gzip.compress(text.replace("\n", "\r\n").encode("utf-16")),
    ],
    ids=["utf-16", "le without mark", "be", "be without mark", "utf-8 with mark", "crlf", "gzip", "gzip of utf-16"],
)
def test_logs_of_all_encodings_are_read(encode: Callable[[str], bytes], tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(encode(CAFFE.read_text()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_training_log(tmp_path / "a.log") == read_training_log(CAFFE)


def test_a_log_whose_end_is_cut_off_in_its_gzip_file_is_refused(tmp_path: Path) -> None:
    packed = gzip.compress(CAFFE.read_bytes())
    for damaged in (packed[:-9], packed[:9], packed[:40] + b"\xff\xff\xff" + packed[43:]):
        (tmp_path / "a.log.gz").write_bytes(damaged)
        with pytest.raises(NetError, match=r"a\.log\.gz. is a damaged gzip file: "):
            read_training_log(tmp_path / "a.log.gz")


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_curves_are_drawn(ending: str, tmp_path: Path) -> None:
    plot_training(read_training_log(CAFFE), tmp_path / f"run.{ending}", "run")
    picture = (tmp_path / f"run.{ending}").read_bytes()
    assert picture.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[ending])
    if ending == "png":
        with Image.open(tmp_path / "run.png") as image:
            colors = {color for _, color in image.convert("RGB").getcolors(1 << 20) or []}
        assert {(31, 119, 180), (255, 127, 14)} <= colors  # the loss and the test output


@pytest.mark.parametrize(
    ("name", "out", "message"),
    [
        ("net.prototxt", "a.png", "'net.prototxt' is not a training log: expected lines such as 'Iteration 100, loss"),
        ("gone.log", "a.png", "gone.log: cannot be read: No such file or directory"),
        ("caffe.log", "a.bmp", "picture 'a.bmp': its name must end in one of .png, .svg, .pdf"),
        ("caffe.log", "no/a.png", "cannot write 'no/a.png': there is no folder 'no'"),
    ],
)
def test_files_that_cannot_be_drawn_are_one_line(
    name: str, out: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text('name: "n"')
    Path("caffe.log").write_text(CAFFE.read_text())
    with pytest.raises(NetError) as caught:
        plot_training(read_training_log(name), out)
    assert str(caught.value).startswith(message)
