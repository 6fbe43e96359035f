"""The graph that every back end reads: what a net means, without protobuf and without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, Protocol

from siamese_proto.errors import GraphError, Location, NetError
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import RawField

Shape = tuple[int, ...]
Phase = Literal["TRAIN", "TEST"]
VarianceNorm = Literal["FAN_IN", "FAN_OUT", "AVERAGE"]


@dataclass(frozen=True)
class Arity:
    """How many bottoms or tops a layer takes: from `least` to `most` (None: any number)."""

    least: int
    most: int | None

    def __contains__(self, count: int) -> bool:
        return self.least <= count and (self.most is None or count <= self.most)

    def __str__(self) -> str:
        if self.most is None:
            return f"at least {self.least}"
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


def exactly(count: int) -> Arity:
    """The arity of layers that take just this many."""
    return Arity(count, count)


@dataclass(frozen=True)
class Filler:
    """How a parameter gets its first values (FillerParameter)."""

    type: str = "constant"
    value: float = 0.0
    min: float = 0.0
    max: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    sparse: int = -1
    variance_norm: VarianceNorm = "FAN_IN"


@dataclass(frozen=True)
class ParamRole:
    """A parameter blob that a layer declares: what it is to the layer and how it is filled.

    Statistics are changed by the forward pass, not by the solver (the three blobs of BatchNorm).
    """

    role: str
    filler: Filler = Filler()
    statistic: bool = False


@dataclass(frozen=True)
class LayerContext:
    """What a layer may know of the net around it."""

    phase: Phase
    folder: str | None = None  # of the file that describes the net: paths are tried from there too
    unknown: tuple[tuple[str, RawField], ...] = ()  # fields the schema does not know, as in proto.parsed.Source
    allow_python_layers: bool = False
    location: Location | None = None  # of the layer
    node_id: str = ""  # the layer's id in the graph


class LayerLike(Protocol):
    """What the graph asks of a configured layer; `layers.base.Layer` is the base class that has it all."""

    type: ClassVar[str]
    reads: ClassVar[Sequence[str]]  # the messages of settings that the type takes: `convolution_param`
    bottoms: Arity
    bottom_names: ClassVar[Sequence[str]]  # what the first bottoms are, for messages: `label`
    tops: Arity
    same_count: ClassVar[bool]  # as many tops as bottoms
    is_source: ClassVar[bool]  # its tops come from outside the net
    is_loss: ClassVar[bool]  # its first top counts with weight 1 unless loss_weight says otherwise
    labels: Sequence[int]  # bottoms that never take a gradient
    differentiable: ClassVar[bool]  # gradients flow through it

    def params(self) -> Sequence[ParamRole]: ...
    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]: ...
    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]: ...
    def tops_beside(self, first: Shape) -> Sequence[Shape | None]: ...
    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int: ...
    def describe(self) -> str: ...
    def unused_fields(self) -> Sequence[str]: ...


class SourceMissingError(NetError):
    """A data layer's database or list is not there. The net can be drawn all the same.

    `shapes` are those of the tops, where they are known from the settings.
    """

    shapes: Sequence[Shape] = ()


@dataclass(frozen=True)
class Finding:
    """A problem or an oddity of a file.

    `error`: a net cannot be made of it. `warning`: it can, but likely not as meant. `note`: something that could not be
    checked.
    """

    location: Location
    severity: Literal["error", "warning", "note"]
    code: str  # a short name of the kind of finding, `unknown-field`
    text: str

    def __str__(self) -> str:
        return f"{self.location}: {self.severity}[{self.code}]: {self.text}"


@dataclass(frozen=True)
class Blob:
    """A value. A layer that works in place makes a new version of the blob it changes."""

    name: str
    version: int = 0
    shape: Shape | None = None  # None: not known, because a database is missing or a layer type is unknown
    automatic: bool = False  # the loss of a layer that names no top

    @property
    def id(self) -> str:
        """`ip1`, and `ip1@1` once changed in place; unique in a graph, even where a file has a blob named `ip1@1`."""
        return f"{self.name}@{self.version}" if self.version or "@" in self.name else self.name


@dataclass(frozen=True)
class Param:
    """One tensor, known by the layer that owns it; the shared name is a label."""

    id: str  # unique in the graph, and a Python identifier
    owner: str  # id of the owning node
    owner_name: str  # name of the owning layer, as written
    index: int  # among the owner's blobs
    name: str  # shared name, "" when it has none
    role: str
    shape: Shape | None
    filler: Filler
    statistic: bool
    lr_mult: float
    decay_mult: float


@dataclass(frozen=True)
class ParamUse:
    """A layer's use of a parameter, with its own shape (where sharing is PERMISSIVE another than the owner's)."""

    param: Param
    role: str
    shape: Shape | None
    lr_mult: float  # this use's own: 0 means that it adds nothing to the gradient
    takes_gradient: bool
    is_owner: bool


@dataclass(frozen=True, eq=False)
class Node:
    """A layer in its net."""

    id: str  # unique in the graph, and a Python identifier
    name: str  # as written; real files repeat names
    type: str
    layer: LayerLike | None  # None: nobody knows the type
    bottoms: tuple[Blob, ...]
    tops: tuple[Blob, ...]
    params: tuple[ParamUse, ...]
    loss_weights: tuple[float, ...]  # one a top
    cut: tuple[bool, ...]  # bottoms that no gradient may pass: labels, and propagate_down: false
    location: Location
    message: schema.LayerParameter  # as read, for the writer of caffemodels; everybody else reads the fields above
    phases: tuple[Phase, ...] = ("TRAIN", "TEST")  # those the layer's rules admit it in

    @property
    def is_source(self) -> bool:
        """Whether the tops come from outside the net: from a data layer, or from the caller (Input)."""
        if self.layer is None:
            return self.type == "Input" or not (self.bottoms or self.params)
        return self.layer.is_source

    def __str__(self) -> str:
        tops = ", ".join(top.id for top in self.tops)
        bottoms = ", ".join(bottom.id for bottom in self.bottoms)
        shapes = ", ".join(str(top.shape) if top.shape is not None else "(?)" for top in self.tops)
        params = ", ".join(use.param.name or use.param.id for use in self.params)
        left = f"{tops} = " if tops else ""
        return f"{left}{self.type}({bottoms})" + (f"  [{params}]" if params else "") + (f"  {shapes}" if shapes else "")


@dataclass(frozen=True, eq=False)
class Graph:
    """A net for one phase: nodes in the order they run, parameters in the order they are owned."""

    name: str
    phase: Phase
    nodes: tuple[Node, ...]
    params: tuple[Param, ...]
    outputs: tuple[Blob, ...]  # those nobody reads, in alphabetical order as in Caffe
    force_backward: bool
    file: str
    notes: tuple[str, ...] = ()  # why shapes are not known, one line each
    problems: tuple[NetError, ...] = ()  # what is unknown or at fault: the net can be drawn and summarized, but not run
    debug_info: bool = False

    def __str__(self) -> str:
        return "\n".join([f"{self.name or 'net'} ({self.phase})", *(f"  {node}" for node in self.nodes)])

    def blobs(self) -> Mapping[str, Blob]:
        """Every blob by name, in the order they are made; of one changed in place the last version."""
        return self._blobs

    @cached_property
    def _blobs(self) -> Mapping[str, Blob]:
        return {top.name: top for node in self.nodes for top in node.tops}

    def weighted_tops(self) -> list[tuple[Blob, float]]:
        """Return the tops with a loss weight other than 0, and their weights."""
        return [pair for node in self.nodes for pair in zip(node.tops, node.loss_weights, strict=True) if pair[1]]

    def unknown_shapes(self, node: Node) -> NetError:
        """Return the problem of a node whose bottoms have unknown shapes: the missing source, if there is one."""
        if self.notes:
            return GraphError(self.notes[0])
        return GraphError("the shapes of its bottoms are not known", location=node.location, layer=node.name)

    def output_name(self, blob: Blob) -> str:
        """The blob's key among outputs: its name, and `ip1@0` for a version that a later layer changes in place."""
        if self._blobs[blob.name].version == blob.version:
            return blob.name
        name = f"{blob.name}@{blob.version}"
        while name in self._blobs:  # a file may have a blob of this name
            name += "_"
        return name
