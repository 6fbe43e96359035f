"""Python layers written for pycaffe."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from siamese_proto.errors import DataError, GraphError, quoted
from siamese_proto.graph.ir import Arity, LayerContext, ParamRole, Phase, Shape, SourceMissingError
from siamese_proto.layers.base import DataLayer, Feeder, Layer, RunState, layer
from siamese_proto.layers.python.blobs import Blob
from siamese_proto.layers.python.worker import PythonSettings, Worker
from siamese_proto.proto import schema

if TYPE_CHECKING:
    from torch import Tensor

HOW_TO_ALLOW = "allow it with allow_python_layers=True, or --allow-python-layers, if you trust it"


@layer("Python")
class PythonLayer(Layer):
    """Runs the class `layer` of the Python module `module`, written for pycaffe.

    any shapes -> the shapes that its reshape gives the tops; without bottoms it is a data layer
    The class has setup, reshape, forward(bottom, top) and backward(top, propagate_down, bottom). `self` has
    `param_str`, `phase` (0 TRAIN, 1 TEST) and `blobs` (`self.blobs.add_blob(3, 5)` in setup adds a parameter). Bottoms
    and tops have `data`, `diff`, `shape` and `reshape(..)`. `phase` is set before every pass and follows `train()` and
    `eval()` of the net. The module is looked up in the working directory, then in the folder of the net. It is code and
    runs only if the caller allows it; otherwise the net can be inspected but not run.
    Caffe: python_layer.hpp
    """

    bottoms = Arity(0, None)
    tops = Arity(0, None)

    def __new__(cls, message: schema.LayerParameter | None = None, context: LayerContext | None = None) -> PythonLayer:
        """Create a data layer if there are no bottoms. Copying calls this without arguments."""
        return super().__new__(cls if message is None or message.bottom else PythonDataLayer)

    def read(self, message: schema.LayerParameter) -> None:
        settings = message.python_param
        self.module, self.kind, self.param_str = settings.module, settings.layer, settings.param_str
        for field in ("module", "layer"):
            if not getattr(settings, field):
                raise GraphError(
                    f"{field} is missing; give the name of a Python {field}", field=f"python_param.{field}"
                )
        self.param_count = len(message.param)
        self.in_place = tuple(bottom == top for bottom, top in zip(message.bottom, message.top, strict=False))
        self.unused = ["python_param.share_in_parallel"] if settings.share_in_parallel else []

    @cached_property
    def worker(self) -> Worker:
        """The object of the user's class, created at first use if the caller allows it."""
        self.prepare()
        settings = PythonSettings(
            self.name, self.module, self.kind, self.param_str, self.top_count, self.phase, self.context
        )
        return Worker(settings)

    def prepare(self) -> None:
        if not self.context.allow_python_layers:
            raise GraphError(f"{self._refusal()}; {HOW_TO_ALLOW}")

    def in_phase(self, phase: Phase, message: schema.LayerParameter) -> Layer:
        other = super().in_phase(phase, message)
        if other is not self:
            vars(other)["worker"] = self.worker  # both phases share one object of the user's class, with its state
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a copy or pickle, without the object of the user's class, which is created again."""
        return {name: value for name, value in vars(self).items() if name != "worker"}

    def params(self) -> Sequence[ParamRole]:
        if not self._is_set_up:  # the number is not known yet; use that of the file
            return [ParamRole(f"blob {index}") for index in range(self.param_count)]
        return [ParamRole(f"blob {index}") for index in range(len(self.worker.blobs))]

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if not self._is_set_up:
            # Not known, as for a missing database; the net cannot be run in this state.
            return cast(Sequence[Shape], [None] * self.param_count)
        return [blob.shape for blob in self.worker.blobs]

    def tops_beside(self, first: Shape) -> Sequence[Shape | None]:
        return [None] * self.top_count

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        if not self.context.allow_python_layers:
            raise SourceMissingError(f"{self._refusal()}; its shapes are unknown; {HOW_TO_ALLOW}")
        self._set_up(bottoms)
        self.worker.bottoms = [Blob(shape) for shape in bottoms]
        return self.worker.reshape()

    def first_values(self, index: int) -> Tensor | None:
        import torch

        return torch.from_numpy(self.worker.blobs[index].data.copy())

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        import torch

        from siamese_proto.layers.python.rule import call

        self._set_up([tuple(bottom.shape) for bottom in bottoms])
        if len(self.worker.blobs) != len(params):
            raise GraphError(
                f"its setup makes {len(self.worker.blobs)} blobs, but the net has {len(params)} parameters for it; "
                "give the shapes of the net's inputs",
                location=self.context.location,
                layer=self.name,
            )
        if torch.compiler.is_compiling():  # it cannot trace the user's code, so run that code uncompiled
            call = torch.compiler.disable(call)  # type: ignore[no-untyped-call]  # torch has no types for it
        return call(self.worker, self.phase, self.in_place, bottoms, params)

    def unused_fields(self) -> Sequence[str]:
        return self.unused

    def describe(self) -> str:
        return f"{self.module}.{self.kind}"

    @property
    def _is_set_up(self) -> bool:
        return "worker" in vars(self) and self.worker.is_set_up

    def _set_up(self, shapes: Sequence[Shape]) -> None:
        if not self._is_set_up:
            self.worker.set_up(shapes)

    def _refusal(self) -> str:
        return f"the Python layer {quoted(self.describe())} is user code, which does not run without permission"


class PythonDataLayer(DataLayer, PythonLayer):
    """A Python layer without bottoms. It provides batches like any other data layer."""

    type = "Python"
    reads = ("python_param",)
    bottoms = Arity(0, 0)

    def open(self, run: RunState) -> Feeder:
        self._set_up([])
        if self.worker.passes:  # already used: reopening starts again at the first record
            del self.worker
            self.worker.set_up([])
        return PythonFeeder(self.worker)


class PythonFeeder:
    """Batches from the forward passes of a Python layer."""

    def __init__(self, worker: Worker) -> None:
        self.batches = 0
        self.worker = worker

    def next_batch(self) -> Sequence[Tensor]:
        """Return one tensor for each top."""
        import torch

        self.worker.forward(self.worker.settings.phase)
        self.batches += 1
        return [torch.from_numpy(top.data.copy()) for top in self.worker.tops]

    def skip(self, batches: int) -> None:
        """Run the layer until it has delivered `batches` batches: only this reaches its state after them."""
        if batches < self.batches:
            raise DataError("a Python layer cannot return to an earlier batch", layer=self.worker.settings.name)
        while self.batches < batches:
            self.worker.forward(self.worker.settings.phase)
            self.batches += 1

    def close(self) -> None:
        """Do nothing: there are no resources to release."""
