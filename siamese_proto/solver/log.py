"""Log lines as Caffe writes them, so that existing log parsers can read them.

Records go to the logger `siamese_proto.solver`. Each has an `event`: what it reports.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING

from siamese_proto.errors import escaped

if TYPE_CHECKING:
    from torch import Tensor

    from siamese_proto.graph.ir import Graph

logger = logging.getLogger("siamese_proto.solver")

_LETTERS = {logging.WARNING: "W", logging.ERROR: "E", logging.CRITICAL: "F"}


class Event(Enum):
    """What a log line reports. The value is the file and line of Caffe's source that log parsers expect in the prefix.

    Lines that Caffe does not print have the place of the lines next to them.
    """

    SETTINGS = "solver.cpp:45"
    SOLVER_READY = "solver.cpp:57"
    TRAIN_NET = "solver.cpp:102"
    TEST_NET = "solver.cpp:190"
    TRAINING_LOSS = "solver.cpp:239"
    TRAINING_OUTPUT = "solver.cpp:258"
    SOLVING = "solver.cpp:289"
    RATE_POLICY = "solver.cpp:290"
    STOPPED = "solver.cpp:306"
    FINAL_LOSS = "solver.cpp:327"
    SOLVED = "solver.cpp:332"
    TEST = "solver.cpp:347"
    TEST_STOPPED = "solver.cpp:391"
    TEST_LOSS = "solver.cpp:396"
    TEST_OUTPUT = "solver.cpp:414"
    SNAPSHOT = "solver.cpp:464"
    RATE_STEP = "sgd_solver.cpp:48"
    LEARNING_RATE = "sgd_solver.cpp:112"
    STATE_SNAPSHOT = "sgd_solver.cpp:284"
    HISTORY_RESTORED = "sgd_solver.cpp:341"
    FINE_TUNING = "caffe.cpp:160"
    GPU = "caffe.cpp:205"
    RESUMING = "caffe.cpp:232"
    TRAIN_STARTED = "caffe.cpp:239"
    TRAIN_FINISHED = "caffe.cpp:250"
    TEST_BATCHES = "caffe.cpp:281"
    BATCH_OUTPUT = "caffe.cpp:304"
    MEAN_LOSS = "caffe.cpp:309"
    MEAN_OUTPUT = "caffe.cpp:321"
    TOP_DATA = "net.cpp:663"
    PARAM_DATA = "net.cpp:675"
    BOTTOM_DIFF = "net.cpp:691"
    PARAM_DIFF = "net.cpp:702"
    PARAM_NORMS = "net.cpp:751"
    WEIGHTS_LOADED = "net.cpp:758"
    NO_STATISTICS = "batch_norm_layer.cpp:118"
    BAD_RECORDS = "data_layer.cpp:46"


class CaffeFormatter(logging.Formatter):
    """`I1121 19:42:55.959322 12345 solver.cpp:239] Iteration 100, loss = 0.05`: the prefix of Google's glog.

    The prefix has the level, month and day, time in microseconds, process id and place. The place of a record without
    an event is its own file and line. As in Caffe, only the first line of a record has the prefix.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format a record, with its traceback if it has one."""
        time = datetime.datetime.fromtimestamp(record.created)
        event = getattr(record, "event", None)
        place = event.value if event is not None else f"{record.filename}:{record.lineno}"
        prefix = f"{_LETTERS.get(record.levelno, 'I')}{time:%m%d %H:%M:%S.%f} {record.process:>5} {place}] "
        text = prefix + record.getMessage()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def log(event: Event, message: str, *, level: int = logging.INFO) -> None:
    """Write one line. Control characters in names are escaped."""
    logger.log(level, "%s", escaped(message), extra={"event": event})


def log_lines(event: Event, text: str) -> None:
    """Write several lines. As in Caffe, only the first has the prefix."""
    logger.info("%s", text, extra={"event": event})


def number(value: float) -> str:
    """Format a number as C++ streams print it: with six significant digits."""
    return f"{value:g}"


def output_lines(graph: Graph, outputs: Mapping[str, Tensor]) -> list[str]:
    """Format every number in the outputs of a net, in Caffe's order.

    Returns:
        Lines such as `loss = 0.25 (* 2 = 0.5 loss)`. The part in brackets is for blobs with a loss weight.
    """
    weights = {top.id: weight for top, weight in graph.weighted_tops()}
    lines = []
    for blob in graph.outputs:
        values = outputs[blob.name].detach().flatten().tolist() if blob.name in outputs else ()
        lines += [output_line(blob.name, value, weights.get(blob.id, 0.0)) for value in values]
    return lines


def log_outputs(event: Event, phase: str, graph: Graph, outputs: Mapping[str, Tensor]) -> None:
    """Log every number in the outputs of a net; `phase` is `Train` or `Test`."""
    for position, text in enumerate(output_lines(graph, outputs)):
        log(event, f"    {phase} net output #{position}: {text}")


def output_line(name: str, value: float, weight: float) -> str:
    """Format one number of an output blob, with its contribution to the loss if the blob has a loss weight."""
    weighted = f" (* {number(weight)} = {number(weight * value)} loss)" if weight else ""
    return f"{escaped(name)} = {number(value)}{weighted}"
