import datetime
import logging
import math
import re

import paths
import pytest
import torch

from siamese_proto.solver import Solver
from siamese_proto.solver.log import CaffeFormatter, Event, number, output_line

CAFFE_LOG = paths.GOLDEN / "logs" / "caffe_train.log"
# What existing log parsers search for.
PREFIX = re.compile(r"^[IWEF](\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{6}) +(\d+) ([\w.]+):(\d+)\] ")
ITERATION = re.compile(r"Iteration (\d+)")
RATE = re.compile(r"lr = ([-+]?[0-9]*\.?[0-9]+([eE]?[-+]?[0-9]+)?)")
OUTPUT = {kind: re.compile(kind + r" net output #(\d+): (\S+) = ([\.\deE+-]+)") for kind in ("Train", "Test")}


def record(message: str, **more: object) -> logging.LogRecord:
    result = logging.LogRecord("siamese_proto.solver", logging.INFO, "/x/loop.py", 7, message, (), None)
    result.created = datetime.datetime(2026, 11, 2, 9, 4, 5, 60789).timestamp()
    result.process = 123
    result.__dict__.update(more)
    return result


def test_a_line_has_the_prefix_of_glog() -> None:
    line = CaffeFormatter().format(record("Iteration 5, lr = 0.1", event=Event.LEARNING_RATE))
    assert line == "I1102 09:04:05.060789   123 sgd_solver.cpp:112] Iteration 5, lr = 0.1"


def test_a_record_without_an_event_shows_its_own_file_and_line() -> None:
    line = CaffeFormatter().format(record("careful", levelno=logging.WARNING))
    assert line == "W1102 09:04:05.060789   123 loop.py:7] careful"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1.0, "1"),
        (0.000012345678, "1.23457e-05"),
        (1234567.0, "1.23457e+06"),
        (123456.0, "123456"),
        (-0.0625, "-0.0625"),
        (math.nan, "nan"),
        (math.inf, "inf"),
    ],
)
def test_numbers_are_written_as_c_plus_plus_writes_them(value: float, text: str) -> None:
    assert number(value) == text


def test_an_output_shows_its_loss_weight_if_it_has_one() -> None:
    assert output_line("loss", 0.5, 3.0) == "loss = 0.5 (* 3 = 1.5 loss)"
    assert output_line("accuracy", 0.5, 0.0) == "accuracy = 0.5"


def shape_of(line: str) -> str:
    """A log line without its numbers."""

    return re.sub(r"-?\d+(\.\d+)?(e[-+]\d+)?", "N", PREFIX.sub("", line))


def lines_of(log: str) -> list[str]:
    return [re.sub(r"^I2026", "I", line) for line in log.splitlines()]


def test_the_lines_of_a_run_are_those_of_caffe(write_run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    solver = Solver(write_run(max_iter=4, snapshot=4, test_interval=4, stepvalue=1, iter_size=1))
    solver.solve()
    solver.close()
    formatter = CaffeFormatter()
    ours = [formatter.format(one) for one in caplog.records if one.name == "siamese_proto.solver"]
    caffes = {(PREFIX.match(line)[8] + ":" + PREFIX.match(line)[9], shape_of(line)) for line in lines_of(read_caffe())}
    begin = next(index for index, line in enumerate(ours) if "Solving" in line)
    places = [PREFIX.match(line) for line in ours[begin:]]
    lines = [(f"{place[8]}:{place[9]}", shape_of(line)) for place, line in zip(places, ours[begin:], strict=True)]
    own_words = {"small_twin": "mnist_siamese_train_test", "multistep": "inv", "snap_": "siamese/snap_"}
    for place, line in lines:
        if "MultiStep" in line:
            continue  # the recorded run had another policy
        for ours_word, caffes_word in own_words.items():
            line = line.replace(ours_word, caffes_word)
        assert (place, line) in caffes
    assert [line for _, line in lines if "est" in line] == [
        "Iteration N, Testing net (#N)",
        "    Test net output #N: loss = N (* N = N loss)",
        "Iteration N, Testing net (#N)",
        "    Test net output #N: loss = N (* N = N loss)",
    ]


def read_caffe() -> str:
    return "\n".join(line for line in CAFFE_LOG.read_text().splitlines() if re.match(r"^[IWEF]\d{8} ", line))


def test_log_parsers_find_the_losses_and_rates_of_a_run(write_run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    solver = Solver(write_run(max_iter=5, iter_size=1, average_loss=1, snapshot=0, snapshot_after_train="false"))
    solver.solve()
    solver.close()
    formatter = CaffeFormatter()
    text = "\n".join(formatter.format(one) for one in caplog.records)
    begun, trained, tested, rates, iteration = False, {}, {}, {}, -1
    for line in text.splitlines():
        begun = begun or "Solving" in line
        if not begun:
            continue
        month, day, *_ = (int(part) for part in PREFIX.match(line).groups()[:6])
        datetime.date(2024, month, day)  # parsers read a date in every line
        if match := ITERATION.search(line):
            iteration = int(match[1])
        if match := RATE.search(line):
            rates[iteration] = float(match[1])
        for kind, where in (("Train", trained), ("Test", tested)):
            if match := OUTPUT[kind].search(line):
                where[iteration] = (match[2], float(match[3]))
    assert rates == {0: 0.01, 2: 0.01, 4: 0.005}
    assert sorted(tested) == [0, 4]
    assert {name for name, _ in [*trained.values(), *tested.values()]} == {"loss"}
    assert [trained[i][1] for i in (0, 2, 4)] == pytest.approx([solver.losses[i] for i in (0, 2, 4)], rel=1e-5)


def test_the_displayed_loss_is_the_mean_of_the_last_ones(write_run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    solver = Solver(write_run(max_iter=5, average_loss=3, display=1, snapshot=0, snapshot_after_train="false"))
    solver.solve()
    solver.close()
    displayed = [float(match[1]) for one in caplog.records if (match := re.search(r"loss = (\S+)$", one.getMessage()))]
    losses = solver.losses
    expected = [sum(losses[max(0, i - 2) : i + 1]) / min(i + 1, 3) for i in range(5)]
    assert displayed[:5] == pytest.approx(expected, rel=1e-5)
    assert len(displayed) == 6  # and again at the end
    assert not torch.is_tensor(losses[0])
