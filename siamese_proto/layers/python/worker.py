"""The object of a user's class with setup, reshape, forward and backward, and its blobs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from siamese_proto.errors import GraphError, quoted
from siamese_proto.graph.ir import LayerContext, Phase, Shape
from siamese_proto.graph.select import PHASES
from siamese_proto.layers.python.blobs import Blob, Blobs
from siamese_proto.layers.python.user_code import import_module, importing, running


@dataclass(frozen=True)
class PythonSettings:
    """The settings of a Python layer."""

    name: str  # of the layer
    module: str
    kind: str  # name of the class
    param_str: str
    top_count: int
    phase: Phase
    context: LayerContext


class Worker:
    """An object of the user's class and its blobs."""

    def __init__(self, settings: PythonSettings) -> None:
        self.settings = settings
        self.blobs = Blobs()
        self.bottoms: list[Blob] = []
        self.tops = [Blob() for _ in range(settings.top_count)]
        self.is_set_up = False
        self.passes = 0  # number of forward passes; backward needs the state of its own forward pass
        module = import_module(settings.module, settings.context.folder)
        self.file = os.path.realpath(module.__file__) if module.__file__ else None
        kind = getattr(module, settings.kind, None)
        if not isinstance(kind, type):
            raise GraphError(
                f"module {quoted(settings.module)} has no class {quoted(settings.kind)}", field="python_param.layer"
            )
        with self.running("construction"):
            self.object = _instance(kind)
            self.object.param_str = self.object.param_str_ = settings.param_str  # the second is its name in old Caffe
            self.object.phase = PHASES.index(settings.phase)
            self.object.blobs = self.blobs

    def running(self, what: str) -> running:
        """Return a context for the user's code."""
        settings = self.settings
        name = f"{what} of the Python layer {quoted(f'{settings.module}.{settings.kind}')}"
        return running(name, self.file, location=settings.context.location, layer=settings.name)

    def set_up(self, shapes: Sequence[Shape]) -> None:
        """Call the user's setup with bottoms of these shapes."""
        self.bottoms = [Blob(shape) for shape in shapes]
        folder = self.settings.context.folder
        with self.running("setup"), importing([os.getcwd(), *([folder] if folder is not None else [])]):
            self.object.setup(self.bottoms, self.tops)
        self.is_set_up = True

    def reshape(self) -> list[Shape]:
        """Call the user's reshape and return the shapes of the tops."""
        with self.running("reshape"):
            self.object.reshape(self.bottoms, self.tops)
        return [top.shape for top in self.tops]

    def forward(self, phase: Phase) -> None:
        """Reshape, as Caffe does before every pass, and compute the tops."""
        self.object.phase = PHASES.index(phase)
        self.reshape()
        with self.running("forward"):
            self.object.forward(self.bottoms, self.tops)
        self.passes += 1

    def backward(self, propagate_down: Sequence[bool]) -> None:
        """Compute the gradients of the bottoms and of the layer's blobs from the gradients of the tops."""
        with self.running("backward"):
            self.object.backward(self.tops, list(propagate_down), self.bottoms)


def _instance(kind: type) -> Any:
    """Return an object of the user's class. If its base is a real caffe.Layer, skip what only Caffe can initialize."""
    real = [base for base in kind.__mro__ if base.__module__.partition(".")[0] in ("caffe", "_caffe")]
    if not real:
        return kind()
    # Its `blobs` is a property that cannot be set, and its __init__ takes a message of Caffe.
    derived: Any = type(kind.__name__, (kind,), {"blobs": None, "phase": 0, "param_str": ""})
    return derived.__new__(derived)
