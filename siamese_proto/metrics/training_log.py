"""What a training log tells, Caffe's or ours: losses, outputs of the nets and learning rates by iteration."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field

from siamese_proto.errors import DataError, quoted

Curve = dict[int, float]  # value by iteration; of an iteration told twice (a resumed run) the last value

# glog's prefix; old releases write the date with four digits, new ones with eight.
_PREFIX = re.compile(r"^[IWEF]\d{4}(?:\d{4})? \d\d:\d\d:\d\d\.\d+ +\d+ \S+?:\d+\] ?")
_NUMBER = r"([-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|nan|inf))"
_LOSS = re.compile(rf"Iteration (\d+)(?: \(.*?\))?, loss = {_NUMBER}")
_RATE = re.compile(rf"Iteration (\d+), lr = {_NUMBER}")
_TESTING = re.compile(r"Iteration (\d+), Testing net \(#(\d+)\)")
_OUTPUT = re.compile(rf"\s*(Train|Test) net output #(\d+): (.+?) = {_NUMBER}(?: \(\* .*)?$")


@dataclass(frozen=True)
class Output:
    """An output of a net, as a log names it: an output blob of several values has a position for each."""

    net: str  # `train`, or `test` and the number of the test net where there are several
    position: int
    name: str


@dataclass
class TrainingLog:
    """The curves of a run."""

    loss: Curve = field(default_factory=dict)  # averaged over average_loss iterations
    rate: Curve = field(default_factory=dict)
    train: dict[Output, Curve] = field(default_factory=dict)
    test: dict[Output, Curve] = field(default_factory=dict)


def read_training_log(path: str | os.PathLike[str]) -> TrainingLog:
    """Read a log file of real Caffe or of siamese_proto; lines about other things are passed over.

    Raises DataError where it cannot be read or holds no line of a training run.
    """
    name = os.fspath(path)
    try:
        with open(name, encoding="utf-8", errors="replace") as file:
            log = parse_training_log(file.read())
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
    if not (log.loss or log.train or log.test):
        raise DataError(f"{quoted(name)} holds no line of a training run, for example 'Iteration 100, loss = 0.05'")
    return log


def parse_training_log(text: str) -> TrainingLog:
    """The curves that the lines of a log tell."""
    log = TrainingLog()
    iteration, test_net = 0, 0
    for line in text.splitlines():
        told = _PREFIX.sub("", line)
        if found := _TESTING.match(told):
            iteration, test_net = int(found[1]), int(found[2])
        elif found := _LOSS.match(told):
            iteration = int(found[1])
            log.loss[iteration] = float(found[2])
        elif found := _RATE.match(told):
            log.rate[int(found[1])] = float(found[2])
        elif found := _OUTPUT.match(told):
            is_test = found[1] == "Test"
            output = Output(f"test {test_net}" if is_test else "train", int(found[2]), found[3])
            curves = log.test if is_test else log.train
            curves.setdefault(output, {})[iteration] = float(found[4])
    return log
