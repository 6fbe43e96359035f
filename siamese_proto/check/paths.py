"""Paths that hold control characters, because a backslash in quotes begins an escape."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from siamese_proto.errors import quoted
from siamese_proto.files import control_hint
from siamese_proto.graph.ir import Finding
from siamese_proto.proto.parsed import ParsedNet, ParsedSolver, Source

# The fields that hold paths, in layers and in solver files.
_PATHS = {"source", "labels", "mean_file", "root_folder", "file_name"}
_SOLVER_PATHS = {"net", "train_net", "test_net", "snapshot_prefix", "weights"}


def odd_paths(parsed: ParsedNet | ParsedSolver) -> Iterator[Finding]:
    """Yield a warning for each path with a control character in it."""
    if isinstance(parsed, ParsedSolver):
        yield from _odd(parsed.message, parsed.source, "", _SOLVER_PATHS)
        return
    for layer, source in zip(parsed.message.layer, parsed.layers, strict=True):
        yield from _odd(layer, source, f"layer {quoted(layer.name)}: ", _PATHS)


def _odd(message: Message, source: Source, where: str, names: set[str], prefix: str = "") -> Iterator[Finding]:
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if isinstance(value, Message):
            if not prefix and field.name.endswith("_param"):
                yield from _odd(value, source, where, names, f"{path}.")
        elif field.name in names:
            for index, text in [(None, value)] if isinstance(value, str) else enumerate(value):
                if hint := control_hint(text):
                    place = source.find(path if index is None else f"{path}[{index}]")
                    yield Finding(place, "warning", "odd-path", f"{where}{path} {quoted(text)}{hint}")
