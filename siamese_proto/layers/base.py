"""What a layer is: one small class that reads its settings once, states its shapes and computes.

Modules in this folder do not import torch when they are imported (only for type checkers, and inside the functions that
compute), so that nets can be checked and drawn at once.
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

    A subclass reads its part of the message in `read`, declares its parameters in `params` and `param_shapes`, its
    outputs in `top_shapes`, and computes in `forward`. A problem with a setting or a shape is a `GraphError` with the
    `field` at fault; who builds the graph adds file, line and layer name. The number of bottoms and tops has been
    checked against `bottoms` and `tops` before any method is called with shapes; `read` may set these two and `labels`
    where they depend on the settings. `reads` names the messages of settings that the type takes, where that is not
    just the one that bears its name: others have no effect, and that is reported. `parameters` holds the settings of a
    type registered with a dataclass of its own (see `layer`). A type that writes files sets `writes_files`; its
    `forward` writes them only where `run.writes_files` is set.

    `phase` is "TRAIN" or "TEST". A layer that does something else in training reads it wherever it needs it; `train()`
    and `eval()` of a net set it (see `in_phase`).
    """

    type: ClassVar[str] = ""  # set by @layer
    reads: ClassVar[Sequence[str]] = ()  # set by @layer unless given
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
        self.key = context.node_id or message.name  # what random draws depend on: layers of one name draw apart
        # A layer that says its own phase has it whatever net it stands in (net.cpp: Init), and in either mode.
        self.has_own_phase = message.HasField("phase")
        self.phase: Phase = PHASES[message.phase] if self.has_own_phase else context.phase
        self.context = context
        self.bottom_count = len(message.bottom)
        self.top_count = max(len(message.top), 1 if self.is_loss else 0)
        if self.own_settings is not None:
            self.parameters = self.own_settings.of(message)
        self.read(message)

    def read(self, message: schema.LayerParameter) -> None:
        """Take the settings from the message into plain attributes."""

    def in_phase(self, phase: Phase, message: schema.LayerParameter) -> Layer:
        """The layer as it acts in a phase: itself, or a copy that has read its settings again.

        A net in the mode of another phase than its own, set by `train()` or `eval()`, runs such copies.
        """
        if phase == self.phase or self.has_own_phase:
            return self
        other = copy.copy(self)
        other.phase, other.context = phase, replace(self.context, phase=phase)
        other.read(message)
        return other

    def params(self) -> Sequence[ParamRole]:
        """The parameter blobs, in Caffe's order; known from the settings alone."""
        return ()

    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        """One shape for each of `params()`."""
        return ()

    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]:
        """One shape a top; raises GraphError where the bottoms do not suit the layer."""
        raise NotImplementedError(f"layer type {self.type} has no top_shapes")

    def tops_beside(self, first: Shape) -> Sequence[Shape | None]:
        """One shape a top of a layer without bottoms whose first top has this shape; None where it is not known.

        What a layer that reads images delivers besides them is one number a record.
        """
        return [first[:1]] * self.top_count

    def forward(self, bottoms: Sequence[Tensor], params: Sequence[Tensor], run: RunState) -> Sequence[Tensor]:
        """One tensor a top; bottoms are not to be changed."""
        raise NotImplementedError(f"layer type {self.type} has no forward")

    def torch_source(self, bottoms: Sequence[Shape]) -> Source | None:
        """How the layer is written as PyTorch for bottoms of these shapes; None: it has no plain form there."""
        return None

    def first_values(self, index: int) -> Tensor | None:
        """What parameter `index` begins with; None for the numbers that its filler draws."""
        return None

    def laid_out(self, index: int, values: Tensor) -> Tensor:
        """Parameter `index` in the memory layout that the layer computes fastest with; of the same shape."""
        return values

    def prepare(self) -> None:
        """Called when a net that is to run is made of the graph; raises GraphError where this layer may not run."""

    def rows_independent(self) -> bool:
        """Whether row n of every top depends on row n of the bottoms alone, so that batches can be joined and split."""
        return False

    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        """Multiply-adds of one forward pass; 0 for layers that do next to none."""
        return 0

    def describe(self) -> str:
        """Settings in few words, for drawings and summaries: `20 x 5x5, stride 1`, `MAX 2x2/2`."""
        return ""

    def unused_fields(self) -> Sequence[str]:
        """Paths of fields that were written and have no effect with these settings: `data_param.scale`."""
        return ()


class Feeder(Protocol):
    """What delivers the batches of a data layer."""

    batches: int  # delivered so far

    def next_batch(self) -> Sequence[Tensor]:
        """One tensor a top of the data layer."""

    def skip(self, batches: int) -> None:
        """Go on as if `batches` batches had been delivered since the first record."""

    def close(self) -> None:
        """Stop reading ahead and give files and threads back."""


class Coverage(NamedTuple):
    """The records that a data layer reads, each once, before it begins again, and how many make a batch."""

    source: str
    records: int
    batch_size: int

    @property
    def batches(self) -> Fraction:
        """How many batches it takes to read every record once."""
        return Fraction(self.records, self.batch_size)


class DataLayer(Layer):
    """A layer whose tops come from outside the net."""

    is_source = True
    bottoms = exactly(0)

    def coverage(self, most: int | None = None) -> Coverage | None:
        """The records of the source; None where it has no end, or is missing. Raises DataError.

        With `most`, a source whose records have to be counted may stop where there are more than that.
        """
        return None

    def label_values(self, top: int) -> NDArray[Any] | None:
        """The values of a top that has one number a row, (n,): all, or those of the first rows; None: unknown yet."""
        return None

    def in_phase(self, phase: Phase, message: schema.LayerParameter) -> Layer:
        """Itself: what is read, and how it is cropped, does not depend on the mode of a net."""
        return self

    def bad_values(self) -> str:
        """Say where the source has NaN or infinity, as far as that is quick to see; empty where it has not."""
        return ""

    def open(self, run: RunState) -> Feeder:
        """Begin to read; raises DataError where the source cannot be read."""
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
    """Class decorator that registers a layer type. A name already taken is refused unless `replace` is given.

    `parameters` is a frozen dataclass of the settings that files write in `field`, `my_layer_param { ... }`; a layer
    finds its own in `self.parameters`. `number` is that field's number in binary files, above those of Caffe; left out,
    one is made of the name. What can stand in the dataclass: `parameters.own_settings`.
    Raises ValueError for a name, field or number that is taken.
    """
    if (parameters is None) != (field is None):
        raise ValueError(f"layer type {name!r}: give parameters and field, the name of the message, together")
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
    """The message of settings that bears the name of a layer type, if there is one: `LRN` has `lrn_param`."""
    return tuple(
        field.name
        for field in schema.LayerParameter.DESCRIPTOR.fields
        if field.name.replace("_", "") == f"{name.lower()}param"
    )


def find_layer(name: str) -> type[Layer]:
    """The class of a layer type; GraphError with the nearest known name where there is none."""
    if name not in _REGISTERED:
        close = (known for known in _REGISTERED if _is_close(name.casefold(), known.casefold()))
        raise GraphError(f"unknown layer type {quoted(name)}{did_you_mean(name, close)}", field="type")
    return _REGISTERED[name]


@functools.lru_cache(maxsize=4096)  # files repeat their types
def _is_close(name: str, known: str) -> bool:
    """Whether a name is likely a misspelt type: ROIPooling and Convolution3D are other types, Convolutional is not."""
    if name == known:
        return True
    if name.endswith(known) or re.findall(r"\d", name) != re.findall(r"\d", known):
        return False
    same = _equal_letters(name, known) + _equal_letters(name[::-1], known[::-1])
    if same >= len(name):
        return True  # a word is left out: SoftmaxLoss
    return name[:1] == known[:1] and edits(name, known) <= 2


def _equal_letters(one: str, other: str) -> int:
    """How many letters two texts begin with alike."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def registered() -> dict[str, type[Layer]]:
    """Every layer type and its class, in alphabetical order."""
    return dict(sorted(_REGISTERED.items()))


def read_filler(message: schema.FillerParameter) -> Filler:
    """The plain form of a FillerParameter."""
    norm = cast(VarianceNorm, schema.FillerParameter.VarianceNorm.Name(message.variance_norm))
    return Filler(
        message.type, message.value, message.min, message.max, message.mean, message.std, message.sparse, norm
    )


def canonical_axis(axis: int, shape: Shape, field: str | None = None) -> int:
    """`axis` counted from the front; negative ones count from the end, as Blob::CanonicalAxisIndex does."""
    if not -len(shape) <= axis < len(shape):
        raise GraphError(f"axis {axis} does not exist in a bottom of shape {shape}", field=field)
    return axis % len(shape)
