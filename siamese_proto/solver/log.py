"""Log lines as Caffe writes them, so that the log parsers people have can read them.

Records go to the logger `siamese_proto.solver`; each carries the place in Caffe's source that the same line comes from
(`solver.cpp:239`), which parsers look for in the prefix.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from siamese_proto.errors import escaped

if TYPE_CHECKING:
    from torch import Tensor

    from siamese_proto.graph.ir import Graph

logger = logging.getLogger("siamese_proto.solver")

_LETTERS = {logging.WARNING: "W", logging.ERROR: "E", logging.CRITICAL: "F"}


class CaffeFormatter(logging.Formatter):
    """`I1121 19:42:55.959322 12345 solver.cpp:239] Iteration 100, loss = 0.05`: the prefix of Google's glog.

    Level, month and day, time to the microsecond, thread, place. Records without a place get the file and line they
    come from. As in Caffe only the first line of a record has the prefix.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record's message behind the prefix, with its traceback if it has one."""
        time = datetime.datetime.fromtimestamp(record.created)
        place = getattr(record, "place", f"{record.filename}:{record.lineno}")
        prefix = f"{_LETTERS.get(record.levelno, 'I')}{time:%m%d %H:%M:%S.%f} {record.process:>5} {place}] "
        text = prefix + record.getMessage()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def log(place: str, message: str, *, level: int = logging.INFO) -> None:
    """Write one line for a place in Caffe's source; control characters in names are escapes."""
    logger.log(level, "%s", escaped(message), extra={"place": place})


def log_lines(place: str, text: str) -> None:
    """Write several lines, of which the first has the prefix, as in Caffe."""
    logger.info("%s", text, extra={"place": place})


def number(value: float) -> str:
    """A number as C++ streams print it: six significant digits."""
    return f"{value:g}"


def output_lines(graph: Graph, outputs: Mapping[str, Tensor]) -> list[str]:
    """Every number in the net's outputs, in Caffe's order: `loss = 0.25 (* 2 = 0.5 loss)`.

    The part in brackets only for blobs with a loss weight.
    """
    weights = {top.id: weight for node in graph.nodes for top, weight in zip(node.tops, node.loss_weights, strict=True)}
    return [
        output_line(blob.name, value, weights[blob.id])
        for blob in graph.outputs
        if blob.name in outputs
        for value in outputs[blob.name].detach().flatten().tolist()
    ]


def log_outputs(place: str, kind: str, graph: Graph, outputs: Mapping[str, Tensor]) -> None:
    """Log every number in the net's outputs; `kind` is `Train` or `Test`."""
    for position, text in enumerate(output_lines(graph, outputs)):
        log(place, f"    {kind} net output #{position}: {text}")


def output_line(name: str, value: float, weight: float) -> str:
    """One number of an output blob and what it adds to the loss."""
    weighted = f" (* {number(weight)} = {number(weight * value)} loss)" if weight else ""
    return f"{escaped(name)} = {number(value)}{weighted}"
