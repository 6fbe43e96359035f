"""Caffe-style network files, compiled to PyTorch: parse, build, run, train and draw nets written as prototxt."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import siamese_proto._interrupt  # before slow imports
import siamese_proto.data  # noqa: F401  # registers the data layers, which the compiler does not import
from siamese_proto.compiler import build_graph
from siamese_proto.errors import NetError
from siamese_proto.layers.base import Layer, layer
from siamese_proto.proto.reader import parse_net, parse_solver

if TYPE_CHECKING:
    from siamese_proto.export.drawing import draw
    from siamese_proto.export.source import emit
    from siamese_proto.net.net import Net
    from siamese_proto.solver import Solver

__all__ = ["Layer", "Net", "NetError", "Solver", "build_graph", "draw", "emit", "layer", "parse_net", "parse_solver"]
__version__ = "0.2.0"

# torch takes two seconds to import, so it is imported when one of these names is used.
_LAZY = {
    "Net": "siamese_proto.net.net",
    "Solver": "siamese_proto.solver",
    "draw": "siamese_proto.export.drawing",
    "emit": "siamese_proto.export.source",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
