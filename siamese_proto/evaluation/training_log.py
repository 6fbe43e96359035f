"""Training logs, of Caffe or of siamese_proto: losses, outputs of the nets and learning rates by iteration."""

import codecs
import gzip
import os
import re
import warnings
import zlib
from dataclasses import dataclass, field

from siamese_proto.errors import DataError, Location, quoted

Curve = dict[int, float]  # value by iteration; if an iteration occurs twice (in a resumed run), the last value

# The prefix of glog, after whatever mpirun or docker added. Old releases write the date with four digits, new ones with
# eight. Forks that train on several machines add the process: `[0.0] `.
_PREFIX = re.compile(
    r"^(?:[^=]*?\b[IWEF][0-9]{4}(?:[0-9]{4})? [0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]+ +[0-9]+ \S+?:[0-9]+\] ?)?"
    r"(?:\[[0-9]+(?:\.[0-9]+)?\] ?)?"
)
# Programs built by Microsoft's compilers write `1.#QNAN`, `1.#INF` and `-nan(ind)` for NaN and infinity.
_NUMBER = (
    r"([-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
    r"|1\.#(?:QNAN|SNAN|IND|INF)|(?i:nan(?:\([a-z0-9]*\))?|inf(?:inity)?)))"
)
_ITERATION = r"Iteration ([0-9]{1,18})(?: \([^)]*\))?"  # the speed is in brackets
_MORE = r"(?:, .*| \(.*)?\s*$"  # further values, in logs of NVCaffe
_LOSS = re.compile(rf"{_ITERATION}(?:, [^,=]+)*?, loss = {_NUMBER}{_MORE}")  # NVCaffe writes epochs before the loss
_RATE = re.compile(rf"{_ITERATION}, lr = {_NUMBER}{_MORE}")
_TESTING = re.compile(rf"{_ITERATION}, Testing net(?: \(#([0-9]+)\))?\s*$")
_OUTPUT = re.compile(
    rf"\s*(Train|Test) net output #([0-9]{{1,9}}): (.+?) = {_NUMBER}(?: \(\* {_NUMBER} = {_NUMBER} loss\))?\s*$"
)
_SCORE = re.compile(rf"\s*Test score #([0-9]{{1,9}}): {_NUMBER}\s*$")  # Caffe until 2014
_TOTAL = re.compile(rf"Test loss: {_NUMBER}\s*$")  # with test_compute_loss
_LIKE_A_RESULT = re.compile(
    r"\bIteration\s+[0-9]+\b.*(?:\b(?:loss|lr)\s*[=:]|\bTesting net\b)"
    r"|\b(?:Train|Test) net output\s*#|\bTest (?:score\s*#|loss\s*:)"
)


@dataclass(frozen=True)
class Output:
    """An output of a net in a log: an output blob of several values has a position for each."""

    net: str  # `train`, or `test` and the number of the test net
    position: int
    name: str


@dataclass
class TrainingLog:
    """The curves of a run."""

    loss: Curve = field(default_factory=dict)  # averaged over average_loss iterations
    rate: Curve = field(default_factory=dict)
    train: dict[Output, Curve] = field(default_factory=dict)
    test: dict[Output, Curve] = field(default_factory=dict)
    not_understood: dict[int, str] = field(default_factory=dict)  # lines that look like results, by line number


def read_training_log(path: str | os.PathLike[str]) -> TrainingLog:
    """Read a log file of Caffe or of siamese_proto. Lines without results are skipped.

    The text is UTF-8 or UTF-16, with or without a byte order mark, and may be compressed by gzip. Warns about lines
    that look like results but cannot be read. Raises DataError if the file cannot be read or has no results.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            data = file.read()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{quoted(name)} is a damaged gzip file: {error}") from error
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}") from error
    log = parse_training_log(_decode(data))
    if log.not_understood:
        number, line = next(iter(log.not_understood.items()))
        warnings.warn(
            f"{Location(name, number)}: {quoted(line[:200])} looks like a result but cannot be "
            f"read; lines of this kind that are left out: {len(log.not_understood)}",
            stacklevel=2,
        )
    if not (log.loss or log.rate or log.train or log.test):
        raise DataError(f"{quoted(name)} is not a training log: expected lines such as 'Iteration 100, loss = 0.05'")
    return log


def parse_training_log(text: str) -> TrainingLog:
    """Read the curves from the lines of a log."""
    reader = _Reader()
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        reader.read(number, line)
    reader.drop_waiting()
    reader.log.not_understood = dict(sorted(reader.log.not_understood.items()))
    return reader.log


class _Reader:
    """Reads a log line by line.

    A line of outputs has no iteration. It belongs to the loss or the test in the lines before it. If that line is
    missing or cannot be read, train outputs wait for the learning rate, which Caffe writes after them.
    """

    def __init__(self) -> None:
        self.log = TrainingLog()
        self.trained: int | None = None  # the iteration that train outputs belong to
        self.tested: tuple[int, str] | None = None  # the iteration and the net that test outputs belong to
        self.waiting: dict[int, tuple[str, Output, float]] = {}  # train outputs without an iteration, by line number

    def read(self, number: int, line: str) -> None:
        text = _PREFIX.sub("", line)
        if match := _TESTING.match(text):
            self.drop_waiting()
            self.trained, self.tested = None, (int(match[1]), f"test {int(match[2] or 0)}")
        elif match := _LOSS.match(text):
            self.drop_waiting()
            self.trained, self.tested = int(match[1]), None
            self.log.loss[self.trained] = _value(match[2])
        elif match := _RATE.match(text):
            self.log.rate[int(match[1])] = _value(match[2])
            for _, output, value in self.waiting.values():
                self.log.train.setdefault(output, {})[int(match[1])] = value
            self.waiting.clear()
        elif match := _OUTPUT.match(text):
            self._add(number, line, match[1], int(match[2]), match[3], _value(match[4]))
        elif match := _SCORE.match(text):
            self._add(number, line, "Test", int(match[1]), f"score #{int(match[1])}", _value(match[2]))
        elif match := _TOTAL.match(text):
            self._add(number, line, "Test", 0, "total loss", _value(match[1]))
        elif _LIKE_A_RESULT.search(line):
            self.log.not_understood[number] = line
            if "Iteration" in line:
                self.drop_waiting()
                self.trained = self.tested = None

    def drop_waiting(self) -> None:
        """Give up the train outputs that wait for an iteration."""
        self.log.not_understood.update({number: line for number, (line, _, _) in self.waiting.items()})
        self.waiting.clear()

    def _add(self, number: int, line: str, kind: str, position: int, name: str, value: float) -> None:
        if kind == "Train":
            output = Output("train", position, name)
            if self.trained is None:
                self.waiting[number] = (line, output, value)
            else:
                self.log.train.setdefault(output, {})[self.trained] = value
        elif self.tested is None:
            self.log.not_understood[number] = line
        else:
            iteration, net = self.tested
            self.log.test.setdefault(Output(net, position, name), {})[iteration] = value


def _value(text: str) -> float:
    sign, number = text[:1] if text[0] in "+-" else "", text.lstrip("+-").lower()
    if "#" in number or "(" in number:
        number = "inf" if number.endswith("#inf") else "nan"
    return float(sign + number)


def _decode(data: bytes) -> str:
    """Decode a log; PowerShell on Windows writes UTF-16."""
    head = data[:4096]
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif 4 * head[1::2].count(0) > len(head):  # every other byte of ASCII text is zero
        encoding = "utf-16-le"
    elif 4 * head[0::2].count(0) > len(head):
        encoding = "utf-16-be"
    else:
        encoding = "utf-8-sig"
    return data.decode(encoding, errors="replace")
