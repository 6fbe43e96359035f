"""The base class of layers, and the registry of layer types.

Modules in this folder import torch only for type checkers and inside the functions that compute, so that checking and
drawing a net need not wait for torch.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar, cast

from siamese_proto.errors import GraphError, did_you_mean, edits, quoted
from siamese_proto.graph.ir import Arity, Filler, LayerContext, ParamRole, Phase, Shape, VarianceNorm, exactly
from siamese_proto.graph.select import PHASES
from siamese_proto.layers.settings.user_settings import OwnSettings, own_settings
from siamese_proto.layers.torch_source import Source
from siamese_proto.proto import schema

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "Arity",
    "Coverage",
    "DataLayer",
    "Feeder",
    "Layer",
    "ParamRole",
    "RunState",
    "Shape",
    "exactly",
    "find_layer",
    "layer",
]


class Closable(Protocol):
    """A file that a layer writes."""

    def close(self) -> None:
        """Finish and close the file."""


@dataclass
class RunState:
    """State of a running net besides its blobs: the seed of random layers, and what layers remember.

    Attributes:
        seed: Seed of all random layers.
        iteration: Training iteration.
        draw: Index of the forward pass within the iteration, if gradients are accumulated.
        rank: Index of this process among those that train together on parts of a batch.
        ranks: Number of these processes.
        carried: State of recurrent layers for the next forward pass, by the layer's `key`; empty in a new net.
        files: Files that layers write, by `key`; closed with the net.
        writes_files: Whether layers write files. Off while a net is timed or its blobs are inspected.
        skip_bad_records: Whether data layers skip records that they cannot read.
        bad_records: The skipped records, by layer name.
        rand_skip: Whether data layers apply their `rand_skip` setting; if not, they begin with the first record.
        looked_at: Losses of pairs that have checked their first labels.
    """

    seed: int = 0
    iteration: int = 0
    draw: int = 0
    rank: int = 0
    ranks: int = 1
    carried: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)
    files: dict[str, Closable] = field(default_factory=dict)
    writes_files: bool = True
    skip_bad_records: bool = False
    bad_records: dict[str, set[str]] = field(default_factory=dict)
    rand_skip: bool = True
    looked_at: set[Layer] = field(default_factory=set)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, without open files, which stay with the original."""
        return {**vars(self), "files": {}}

    def generator(self, key: str, device: torch.device) -> torch.Generator:
        """Return a generator that depends only on seed, iteration, draw and `key` (the layer's name).

        A resumed run, joined towers, and several processes therefore draw the same numbers.
        """
        import torch

        text = f"{self.seed}/{self.iteration}/{self.draw}/{key}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return torch.Generator(device).manual_seed(int.from_bytes(digest, "little") >> 1)

    @contextlib.contextmanager
    def writing_nothing(self) -> Iterator[None]:
        """Return a context in which layers write no files."""
        before, self.writes_files = self.writes_files, False
        try:
            yield
        finally:
            self.writes_files = before


class Layer:
    """Base class of all layers.

    A subclass reads its settings in `read`, declares its parameters in `params` and `param_shapes` and its outputs in
    `top_shapes`, and computes in `forward`. It raises `GraphError` with the `field` of an invalid setting or
    shape; the graph builder adds file, line and layer name. The number of bottoms and tops is checked against `bottoms`
    and `tops` before any method is called with shapes; `read` may set these two and `labels` if they depend on the
    settings.

    `reads` names the messages of settings that the type reads, by default the one named after the type; a warning is
    reported for others. `parameters` holds the settings of a type registered with a dataclass (see `layer`). A type
    that writes files sets `writes_files`; its `forward` writes them only if `run.writes_files` is set.

    `phase` is "TRAIN" or "TEST". A layer that behaves differently in training reads it; `train()` and `eval()` of a net
    set it (see `in_phase`).
    """

    type: ClassVar[str] = ""  # set by @layer
    reads: ClassVar[Sequence[str]] = ()  # set by @layer if not defined
    bottoms: Arity = exactly(1)
    bottom_names: ClassVar[Sequence[str]] = ()
    tops: Arity = exactly(1)
    same_count: ClassVar[bool] = False
    is_source: ClassVar[bool] = False
    is_loss: ClassVar[bool] = False
    labels: Sequence[int] = ()
    differentiable: ClassVar[bool] = True
    writes_files: ClassVar[bool] = False
    value_bottoms: ClassVar[int | None] = None  # number of bottoms whose values are read; later ones give only shapes
    own_settings: ClassVar[OwnSettings | None] = None  # set by @layer
    parameters: Any = None

    def __init__(self, message: schema.LayerParameter, context: LayerContext) -> None:
        self.name: str = message.name
        self.key = (
            context.node_id or message.name
        )  # random numbers depend on it, so that layers of the same name differ
        # A layer whose message sets `phase` keeps it in any net (net.cpp: Init) and in both modes.
        self.has_own_phase = message.HasField("phase")
        self.phase: Phase = PHASES[message.phase] if self.has_own_phase else context.phase
        self.context = context
        self.bottom_count = len(message.bottom)
        self.top_count = max(len(message.top), 1 if self.is_loss else 0)
        if self.own_settings is not None:
            self.parameters = self.own_settings.of(message)
        self.read(message)

    def read(self, message: schema.LayerParameter) -> None:
        """Store the settings of the message in plain attributes."""

    def in_phase(self, phase: Phase, message: schema.LayerParameter) -> Layer:
        """Return the layer for a phase: itself, or a copy that has read its settings again.

        After `train()` or `eval()` selects another phase than the net was built for, the net runs these copies.
        """
        if phase == self.phase or self.has_own_phase:
            return self
        other = copy.copy(self)
        other.phase, other.context = phase, replace(self.context, phase=phase)
        other.read(message)
        return other

    def params(self) -> Sequence[ParamRole]:
        """Return the parameter blobs in Caffe's order; they depend on the settings only."""
        return ()

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        """Return one shape for each of `params()`."""
        return ()

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        """Return one shape per top. Raises GraphError for bottoms that do not fit the layer."""
        raise NotImplementedError(f"layer type {self.type} has no top_shapes")

    def tops_beside(self, first: Shape) -> Sequence[Shape | None]:
        """Return one shape per top of a layer without bottoms from the shape of its first top; None for unknown ones.

        By default each top is (N,): data layers return one number per image.
        """
        return [first[:1]] * self.top_count

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        """Return one tensor per top. The bottoms must not be changed."""
        raise NotImplementedError(f"layer type {self.type} has no forward")

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        """Return the layer as PyTorch source for bottoms of these shapes; None if it cannot be written as such."""
        return None

    def first_values(self, index: int) -> Tensor | None:
        """Return the initial values of parameter `index`; None to use its filler."""
        return None

    def laid_out(self, index: int, values: Tensor) -> Tensor:
        """Return parameter `index`, of the same shape, in the memory layout that is fastest for this layer."""
        return values

    def prepare(self) -> None:
        """Check that this layer may run, when a net is built from the graph. Raises GraphError if it may not."""

    def rows_independent(self) -> bool:
        """Whether row n of every top depends on row n of the bottoms only, so that batches can be joined and split."""
        return False

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """Return the multiply-adds of one forward pass; 0 for layers with hardly any."""
        return 0

    def describe(self) -> str:
        """Return a short text of the settings for drawings and summaries: `20 x 5x5, stride 1`, `MAX 2x2/2`."""
        return ""

    def unused_fields(self) -> Sequence[str]:
        """Return the paths of fields in the file that have no effect with these settings: `data_param.scale`."""
        return ()


class Feeder(Protocol):
    """Returns the batches of a data layer one after the other."""

    batches: int  # number of batches returned so far

    def next_batch(self) -> Sequence[Tensor]:
        """Return one tensor per top of the data layer."""

    def skip(self, batches: int) -> None:
        """Continue as if `batches` batches had been returned since the first record."""

    def close(self) -> None:
        """Stop reading ahead, and close files and threads."""


class Coverage(NamedTuple):
    """The number of records that a data layer reads before it starts again, and the batch size."""

    source: str
    records: int
    batch_size: int

    @property
    def batches(self) -> Fraction:
        """The number of batches that read every record once."""
        return Fraction(self.records, self.batch_size)


class DataLayer(Layer):
    """A layer whose tops come from outside the net."""

    is_source = True
    bottoms = exactly(0)

    def coverage(self, most: int | None = None) -> Coverage | None:
        """Return the records of the source; None if it is endless or missing. Raises DataError.

        With `most`, a source that has to count its records may stop after more than that.
        """
        return None

    def label_values(self, top: int) -> NDArray[Any] | None:
        """Return the values of a top with one number per row, (n,): all or the first ones; None if not known yet."""
        return None

    def in_phase(self, phase: Phase, message: schema.LayerParameter) -> Layer:
        """Return the layer itself: reading and cropping do not depend on the mode of the net."""
        return self

    def bad_values(self) -> str:
        """Describe where the source has NaN or infinity, if that is quick to find; empty if it has none."""
        return ""

    def open(self, run: RunState) -> Feeder:
        """Start reading. Raises DataError if the source cannot be read."""
        raise NotImplementedError(f"layer type {self.type} has no open")


_REGISTERED: dict[str, type[Layer]] = {}
AnyLayer = TypeVar("AnyLayer", bound=type[Layer])


def layer(
    name: str,
    *,
    replace: bool = False,
    parameters: type | None = None,
    field: str | None = None,
    number: int | None = None,
) -> Callable[[AnyLayer], AnyLayer]:
    """Register a class as a layer type (class decorator).

    Args:
        name: The `type` in prototxt files.
        replace: Replace a registered type of this name.
        parameters: Frozen dataclass of the settings, which the layer finds in `self.parameters`; see `own_settings` for
            the types of its fields.
        field: Name of the message that holds the settings in files: `my_layer_param { ... }`.
        number: Number of that field in binary files, not one of Caffe's; by default computed from `field`.

    Raises:
        ValueError: The name, field or number is already in use.
    """
    if (parameters is None) != (field is None):
        raise ValueError(f"layer type {name!r}: parameters and field (the name of the message) must be given together")
    own = own_settings(parameters, field, number) if parameters is not None and field is not None else None

    def register(cls: AnyLayer) -> AnyLayer:
        if name in _REGISTERED and not replace:
            raise ValueError(
                f"layer type {name!r} is already {_REGISTERED[name].__qualname__}; to replace it: replace=True"
            )
        cls.type = name
        if "reads" not in vars(cls):
            cls.reads = settings_named(name) or cls.reads
        cls.own_settings = own or cls.own_settings
        _REGISTERED[name] = cls
        return cls

    return register


def settings_named(name: str) -> Sequence[str]:
    """Return the message of settings named after a layer type, if it exists: `lrn_param` for `LRN`."""
    return tuple(
        field.name
        for field in schema.LayerParameter.DESCRIPTOR.fields
        if field.name.replace("_", "") == f"{name.lower()}param"
    )


def find_layer(name: str) -> type[Layer]:
    """Return the class of a layer type. Raises GraphError, with the closest name, for an unknown type."""
    if name not in _REGISTERED:
        close = (other for other in _REGISTERED if _is_close(name.casefold(), other.casefold()))
        raise GraphError(f"unknown layer type {quoted(name)}{did_you_mean(name, close)}", field="type")
    return _REGISTERED[name]


@functools.lru_cache(maxsize=4096)  # files use the same types again and again
def _is_close(name: str, other: str) -> bool:
    """Whether a name is probably a misspelled type: Convolutional is, ROIPooling and Convolution3D are other types."""
    if name == other:
        return True
    if name.endswith(other) or re.findall(r"\d", name) != re.findall(r"\d", other):
        return False
    if _equal_letters(name, other) + _equal_letters(name[::-1], other[::-1]) >= len(name):
        return True  # a word is left out: SoftmaxLoss
    return name[:1] == other[:1] and edits(name, other) <= 2


def _equal_letters(one: str, other: str) -> int:
    """Return the length of the common prefix."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def registered() -> dict[str, type[Layer]]:
    """Return every layer type and its class, in alphabetical order."""
    return dict(sorted(_REGISTERED.items()))


def read_filler(message: schema.FillerParameter) -> Filler:
    """Convert a FillerParameter to a Filler."""
    norm = cast(VarianceNorm, schema.FillerParameter.VarianceNorm.Name(message.variance_norm))
    return Filler(
        message.type, message.value, message.min, message.max, message.mean, message.std, message.sparse, norm
    )


def canonical_axis(axis: int, shape: Shape, field: str | None = None) -> int:
    """Return `axis` counted from the front; negative axes count from the end (Blob::CanonicalAxisIndex)."""
    if not -len(shape) <= axis < len(shape):
        raise GraphError(f"axis {axis} does not exist in a bottom of shape {shape}", field=field)
    return axis % len(shape)
