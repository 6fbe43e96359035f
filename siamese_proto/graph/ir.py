"""The graph that every back end reads: what a net computes, independent of protobuf and torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, Protocol

from siamese_proto.errors import GraphError, Location, NetError, did_you_mean, quoted
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import RawField

Shape = tuple[int, ...]
Phase = Literal["TRAIN", "TEST"]
VarianceNorm = Literal["FAN_IN", "FAN_OUT", "AVERAGE"]


@dataclass(frozen=True)
class Arity:
    """The number of bottoms or tops of a layer: from `least` to `most` (None: any number)."""

    least: int
    most: int | None

    def __contains__(self, count: int) -> bool:
        return self.least <= count and (self.most is None or count <= self.most)

    def __str__(self) -> str:
        if self.most is None:
            return f"at least {self.least}"
        return str(self.least) if self.least == self.most else f"{self.least} to {self.most}"


def exactly(count: int) -> Arity:
    """Return the arity of exactly `count`."""
    return Arity(count, count)


@dataclass(frozen=True)
class Filler:
    """The settings of a parameter's first values (FillerParameter)."""

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
    """A parameter blob that a layer declares, its role and its filler.

    Statistics are updated by the forward pass, not by the solver (the three blobs of BatchNorm).
    """

    role: str
    filler: Filler = Filler()
    statistic: bool = False


@dataclass(frozen=True)
class LayerContext:
    """What a layer knows about the net."""

    phase: Phase
    folder: str | None = None  # of the net's file: relative paths are also resolved from it
    unknown: tuple[tuple[str, RawField], ...] = ()  # unknown fields, as in proto.parsed.Source
    allow_python_layers: bool = False
    location: Location | None = None  # of the layer
    node_id: str = ""  # the layer's id in the graph


class LayerLike(Protocol):
    """What the graph needs of a configured layer; `layers.base.Layer` is the base class."""

    type: ClassVar[str]
    reads: ClassVar[Sequence[str]]  # the names of its messages of settings: `convolution_param`
    bottoms: Arity
    bottom_names: ClassVar[Sequence[str]]  # names of the first bottoms for messages: `label`
    tops: Arity
    same_count: ClassVar[bool]  # as many tops as bottoms
    is_source: ClassVar[bool]  # its tops come from outside the net
    is_loss: ClassVar[bool]  # the default loss_weight of its first top is 1
    labels: Sequence[int]  # indices of bottoms that never have a gradient
    differentiable: ClassVar[bool]  # gradients flow through it

    def params(self) -> Sequence[ParamRole]: ...
    def param_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]: ...
    def top_shapes(self, bottoms: Sequence[Shape]) -> Sequence[Shape]: ...
    def tops_beside(self, first: Shape) -> Sequence[Shape | None]: ...
    def multiply_adds(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int: ...
    def describe(self) -> str: ...
    def unused_fields(self) -> Sequence[str]: ...


class SourceMissingError(NetError):
    """The database or list of a data layer does not exist. The net can still be drawn.

    `shapes` are those of the tops, if the settings determine them.
    """

    shapes: Sequence[Shape] = ()


@dataclass(frozen=True)
class Finding:
    """A problem or a likely mistake in a file.

    `error`: the net cannot be built. `warning`: it can, but probably not as intended. `note`: something could not be
    checked.
    """

    location: Location
    severity: Literal["error", "warning", "note"]
    code: str  # the kind of finding, `unknown-field`
    text: str

    def __str__(self) -> str:
        return f"{self.location}: {self.severity}[{self.code}]: {self.text}"


@dataclass(frozen=True)
class Blob:
    """A value. A layer that works in place creates a new version of its bottom."""

    name: str
    version: int = 0
    shape: Shape | None = None  # None: unknown, as a database is missing or a layer type is unknown
    automatic: bool = False  # the loss of a layer without a top

    @property
    def id(self) -> str:
        """`ip1`, or `ip1@1` after an in-place layer; unique in a graph, even if a file has a blob named `ip1@1`."""
        return f"{self.name}@{self.version}" if self.version or "@" in self.name else self.name


@dataclass(frozen=True)
class Param:
    """One tensor, identified by the layer that owns it; the shared name is only a label."""

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
    """A layer's use of a parameter, in the shape that it has there (with PERMISSIVE it may differ from the owner's)."""

    param: Param
    role: str
    shape: Shape | None
    lr_mult: float  # of this use; 0: it adds nothing to the gradient
    takes_gradient: bool
    is_owner: bool


@dataclass(frozen=True, eq=False)
class Node:
    """A layer in its net."""

    id: str  # unique in the graph, and a Python identifier
    name: str  # as written; real files repeat names
    type: str
    layer: LayerLike | None  # None: the type is unknown
    bottoms: tuple[Blob, ...]
    tops: tuple[Blob, ...]
    params: tuple[ParamUse, ...]
    loss_weights: tuple[float, ...]  # one a top
    cut: tuple[bool, ...]  # bottoms without a gradient: labels, and those with propagate_down: false
    location: Location
    message: schema.LayerParameter  # as read; for settings that only one layer type has, and for caffemodel files
    phases: tuple[Phase, ...] = ("TRAIN", "TEST")  # those that the layer's rules include it in

    @property
    def is_source(self) -> bool:
        """Whether the tops come from outside the net: from a data layer, or from the caller (Input)."""
        if self.layer is None:
            return self.type == "Input" or not (self.bottoms or self.params)
        return self.layer.is_source

    @property
    def is_loss(self) -> bool:
        """Whether the layer is a loss; False for unknown types."""
        return self.layer is not None and self.layer.is_loss

    @property
    def labels(self) -> Sequence[int]:
        """Indices of the bottoms that are labels; empty for unknown types."""
        return self.layer.labels if self.layer is not None else ()

    def __str__(self) -> str:
        tops = ", ".join(top.id for top in self.tops)
        bottoms = ", ".join(bottom.id for bottom in self.bottoms)
        shapes = ", ".join(str(top.shape) if top.shape is not None else "(?)" for top in self.tops)
        params = ", ".join(use.param.name or use.param.id for use in self.params)
        target = f"{tops} = " if tops else ""
        return (
            f"{target}{self.type}({bottoms})" + (f"  [{params}]" if params else "") + (f"  {shapes}" if shapes else "")
        )


@dataclass(frozen=True, eq=False)
class Graph:
    """A net for one phase: nodes in the order they run, parameters in the order they are owned."""

    name: str
    phase: Phase
    nodes: tuple[Node, ...]
    params: tuple[Param, ...]
    outputs: tuple[Blob, ...]  # blobs that no node reads, in alphabetical order as in Caffe
    force_backward: bool
    file: str
    notes: tuple[str, ...] = ()  # why shapes are unknown, one line each
    problems: tuple[NetError, ...] = ()  # with problems a net can be drawn and summarized, but not run
    debug_info: bool = False

    def __str__(self) -> str:
        return "\n".join([f"{self.name or 'net'} ({self.phase})", *(f"  {node}" for node in self.nodes)])

    def blobs(self) -> Mapping[str, Blob]:
        """Return every blob by name, in the order they are computed; the last version of one changed in place."""
        return self._blobs

    def blob(self, name: str) -> Blob:
        """Return the last version of a blob. Raises GraphError, with a hint, if the net has no such blob."""
        if name not in self._blobs:
            raise GraphError(f"the net has no blob {quoted(name)}{did_you_mean(name, self._blobs)}")
        return self._blobs[name]

    @cached_property
    def order(self) -> Mapping[str, int]:
        """The place of each node among `nodes`, by id."""
        return {node.id: index for index, node in enumerate(self.nodes)}

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
        """Return the blob's key among outputs: its name, or `ip1@0` if a later layer changes it in place."""
        if self._blobs[blob.name].version == blob.version:
            return blob.name
        name = f"{blob.name}@{blob.version}"
        while name in self._blobs:  # a file may have a blob of this name
            name += "_"
        return name
