"""From a net that trains to the net that is used: one tower of a twin, both with their distance, or a plain net.

Data layers become Input layers; losses, accuracies and whatever needs labels is left out. Layers keep their names, so
trained weights are found by them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from google.protobuf import text_format
from google.protobuf.message import Message

from siamese_proto.compiler import build_graph
from siamese_proto.errors import GraphError, NetError, did_you_mean, quoted
from siamese_proto.graph.features import predictions, tower_difference, twin_features, whole_towers
from siamese_proto.graph.ir import Blob, Graph, Node, Shape
from siamese_proto.graph.select import PHASES
from siamese_proto.graph.traversal import Ancestry
from siamese_proto.layers.base import Layer
from siamese_proto.layers.element_wise import ElementWise
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedNet, Source
from siamese_proto.proto.writer import write_net

# What a loss does to the scores before it compares them, as a layer of its own.
_PROBABILITIES = {"SoftmaxWithLoss": "Softmax", "SigmoidCrossEntropyLoss": "Sigmoid"}

_FEATURES = {"ContrastiveLoss": 2, "TripletLoss": 3}  # how many of its first bottoms a loss compares


@dataclass(frozen=True)
class Deployment:
    """The inference net, and what its users have to know of its inputs: one line each, written above it as comments.

    `notes` says how the towers differ where the net holds one of several that do not compute the same.
    """

    net: ParsedNet
    comments: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The prototxt."""
        return "".join(f"# {line}\n" for line in self.comments) + write_net(self.net)


def deploy(
    parsed: ParsedNet,
    *,
    both: bool = False,
    tower: int | None = None,
    outputs: Sequence[str] = (),
    shapes: Mapping[str, Shape] | None = None,
    level: int = 0,
    stages: Sequence[str] = (),
) -> Deployment:
    """The net to use after training.

    Of a twin one tower, up to what its loss reads: `tower` is its number, from 1 on, by default the first. `both`: all
    towers and the Euclidean distances of the first one's features from the others'. Of a net without towers all that
    needs no labels. `outputs` names blobs to compute instead of these. `shapes` gives shapes, of inputs of the new net
    or of the old one, that the data layers cannot tell. The batch becomes 1 where all layers go row by row.
    Raises GraphError where no such net can be made.
    """
    if tower is not None and (both or outputs):
        raise GraphError(f"a tower is chosen together with {'both' if both else 'outputs'}; choose one of the two")
    given = dict(shapes or {})
    notes: tuple[str, ...] = ()
    graph = _graph(parsed, given, level, tuple(stages))
    ancestry = Ancestry(graph.nodes)
    features = (twin_features(graph) or _compared(graph)) if not outputs else ()
    if tower is not None and not 1 <= tower <= len(features):
        raise GraphError(f"the net has {_towers(len(features))}, got tower {tower}")
    if outputs:
        draft = _Draft(graph, ancestry, given)
        draft.take([graph.blob(name) for name in outputs])
    elif features and not both:
        place = (tower or 1) - 1
        others = [blob for index, blobs in enumerate(features) if index != place for blob in blobs]
        draft = _Draft(graph, ancestry, given, common=ancestry.before(*others))
        draft.take(features[place])
        towers = whole_towers(graph, ancestry, features)
        difference = tower_difference(graph, towers)
        if difference:
            longer = any(tower - ancestry.before(*blobs) for tower, blobs in zip(towers, features, strict=True))
            end = f", up to {', '.join(quoted(blob.name) for blob in features[place])}" if longer else ""
            notes = (f"the towers differ: {difference}; the net holds tower {place + 1} of {len(features)}{end}",)
    elif features and _only_compared(graph, features):
        draft = _Draft(graph, ancestry, given, common=_parted(graph, ancestry, features))
        draft.take([blob for tower in features for blob in tower])
        draft.add_distances([tower[0] for tower in features])
    elif both and not features:
        raise GraphError("the net has no towers; leave out --both")
    else:
        draft = _Draft(graph, ancestry, given)
        draft.take([blob for blob, _ in predictions(graph, ancestry)])
        draft.add_probabilities(predictions(graph, ancestry))
    return draft.finished(parsed, notes)


def _towers(count: int) -> str:
    return f"{count} towers, numbered from 1" if count else "no towers"


def _graph(parsed: ParsedNet, shapes: dict[str, Shape], level: int, stages: tuple[str, ...]) -> Graph:
    """The net as it is tested, or as it is trained where the file has no test net."""
    made_outside = {top for layer in parsed.message.layer if not layer.bottom for top in layer.top}
    problems: list[NetError] = []
    for phase in reversed(PHASES):
        try:
            return build_graph(parsed, phase, level, stages, {k: v for k, v in shapes.items() if k in made_outside})
        except NetError as problem:
            problems.append(problem)
    raise problems[-1]


def _compared(graph: Graph) -> Sequence[Sequence[Blob]]:
    """What a loss of pairs or triplets compares where the towers are built differently, as one list a tower."""
    for node in reversed(graph.nodes):
        if node.type in _FEATURES and node.layer is not None:
            features = node.bottoms[: _FEATURES[node.type]]
            makers = {blob.id for blob in features}
            return [[blob] for blob in features] if len(makers) == len(features) else ()
    return ()


def _only_compared(graph: Graph, features: Sequence[Sequence[Blob]]) -> bool:
    """Whether losses alone read the towers' features: then their distance is what the net is for."""
    ids = {blob.id for tower in features for blob in tower}
    readers = [node for node in graph.nodes if ids & {blob.id for blob in node.bottoms}]
    return all(node.layer is None or node.is_loss or node.type == "Silence" for node in readers)


def _parted(graph: Graph, ancestry: Ancestry, features: Sequence[Sequence[Blob]]) -> Set[str]:
    """The layers that only cut records in parts, one for each tower: then every tower can have an input of its own."""
    before = [ancestry.before(*tower) for tower in features]
    common = before[0].intersection(*before[1:])
    cuts = all(node.is_source or node.type == "Slice" for node in graph.nodes if node.id in common)
    return common if cuts else frozenset()


class _Draft:
    """The new net while it is put together."""

    def __init__(
        self, graph: Graph, ancestry: Ancestry, shapes: Mapping[str, Shape], common: Set[str] = frozenset()
    ) -> None:
        self.graph = graph
        self.ancestry = ancestry
        self.shapes = dict(shapes)
        self.common = common  # nodes that are left out, though the targets are computed by them
        self.inputs: dict[str, Blob] = {}
        self.input_shapes: dict[str, Shape | None] = {}
        self.renamed: dict[str, str] = {}
        self.kept: list[Node] = []
        self.added: list[schema.LayerParameter] = []

    def take(self, targets: Sequence[Blob]) -> None:
        """Keep what the targets are computed from, down to the net's inputs."""
        wanted = self.ancestry.before(*targets)
        for node in self.graph.nodes:
            if node.id in wanted and node.id not in self.common and not node.is_source:
                self.kept.append(node)
        made = {top.id for node in self.kept for top in node.tops}
        self.kept += [
            node
            for node in self.graph.nodes
            if node.type == "Silence" and all(blob.id in made for blob in node.bottoms)
        ]
        outside = {blob.id: blob for node in self.kept for blob in node.bottoms if blob.id not in made}
        made_up = {id: self.ancestry.producer[id] for id in outside if self._is_made_up(id)}
        for id, blob in outside.items():
            if len(made_up) == len(outside) or id not in made_up:
                self._input(blob)
            elif made_up[id] not in self.kept:
                self.kept.insert(0, made_up[id])  # a state to begin with, say, which nobody is to fill
        if not self.inputs or not self.kept:
            raise GraphError("nothing of the net is left: it computes nothing from its data that needs no labels")

    def _is_made_up(self, blob: str) -> bool:
        maker = self.ancestry.producer.get(blob)
        return maker is not None and maker.type == "DummyData"

    def _input(self, blob: Blob) -> None:
        """A blob from outside the tower: an input, or the end of layers that work on all towers' data at once."""
        shape = blob.shape
        maker = self.ancestry.producer.get(blob.id)
        chain: list[Node] = []
        current = blob
        while maker is not None and not maker.is_source:
            if isinstance(maker.layer, ElementWise) and not maker.params:
                chain.insert(0, maker)
            elif maker.type not in ("Slice", "Split"):
                raise GraphError(
                    f"layer {quoted(maker.name)} works on the data of all towers before they part, so one tower cannot "
                    "do without the others; deploy all with --both",
                    location=maker.location,
                )
            current = maker.bottoms[0]
            maker = self.ancestry.producer.get(current.id)
        self.inputs[blob.id] = current if chain else blob
        self.input_shapes[(current if chain else blob).name] = shape
        if chain:
            self.kept[:0] = [node for node in chain if node not in self.kept]
            self.renamed[blob.name] = chain[-1].tops[0].name
            self.inputs[current.id] = current

    def add_distances(self, features: Sequence[Blob]) -> None:
        """The lengths of the differences between the first features and each of the others, (N,) each."""
        first = features[0]
        for number, other in enumerate(features[1:], 1):
            suffix = str(number) if len(features) > 2 else ""
            names = [self._free(f"{name}{suffix}") for name in ("difference", "squared_distance", "distance")]
            minus = schema.LayerParameter(
                name=names[0], type="Eltwise", bottom=[first.name, other.name], top=[names[0]]
            )
            minus.eltwise_param.operation = schema.EltwiseParameter.SUM
            minus.eltwise_param.coeff.extend([1, -1])
            square = schema.LayerParameter(name=names[1], type="Reduction", bottom=[names[0]], top=[names[1]])
            square.reduction_param.operation = schema.ReductionParameter.SUMSQ
            square.reduction_param.axis = 1
            root = schema.LayerParameter(name=names[2], type="Power", bottom=[names[1]], top=[names[2]])
            root.power_param.power = 0.5
            self.added += [minus, square, root]

    def add_probabilities(self, found: Sequence[tuple[Blob, Node | None]]) -> None:
        """What the losses make of the scores before they compare them with labels."""
        for blob, loss in found:
            if loss is None or loss.type not in _PROBABILITIES:
                continue
            name = self._free("prob")
            made = schema.LayerParameter(name=name, type=_PROBABILITIES[loss.type], bottom=[blob.name], top=[name])
            if loss.message.HasField("softmax_param"):
                made.softmax_param.CopyFrom(loss.message.softmax_param)
            self.added.append(made)

    def _free(self, name: str) -> str:
        """A name that no layer and no blob has."""
        taken = {node.name for node in self.graph.nodes} | set(self.graph.blobs()) | {m.name for m in self.added}
        count = 1
        free = name
        while free in taken:
            count += 1
            free = f"{name}{count}"
        return free

    def finished(self, parsed: ParsedNet, notes: tuple[str, ...]) -> Deployment:
        """The net with its inputs, and what was done to the data that it was trained on."""
        by_row = all(isinstance(node.layer, Layer) and node.layer.rows_independent() for node in self.kept)
        net = schema.NetParameter(name=parsed.message.name)
        for name in dict.fromkeys(blob.name for blob in self.inputs.values()):
            if name in self.input_shapes:
                net.layer.append(self._input_layer(name, by_row=by_row))
        unused = [name for name in self.shapes if name not in self.graph.blobs()]
        if unused:
            hint = did_you_mean(unused[0], self.input_shapes)
            raise GraphError(f"a shape is given for {quoted(unused[0])}, which is no blob of the net{hint}")
        sources = [Source(parsed.source.location)] * len(net.layer)
        written = {source.location: source for source in parsed.layers}
        shared = self._shared_names()
        for node in self.kept:
            net.layer.append(self._cleaned(node, shared))
            sources.append(Source(node.location, {}, written[node.location].unknown))
        net.layer.extend(self.added)
        sources.extend([Source(parsed.source.location)] * len(self.added))
        made = ParsedNet(net, tuple(sources), Source(parsed.source.location))
        return Deployment(made, tuple(self._comments()), notes)

    def _input_layer(self, name: str, *, by_row: bool) -> schema.LayerParameter:
        shape = self.shapes.get(name)
        if shape is None:
            shape = self.input_shapes[name]
            if shape is None:
                raise GraphError(
                    f"the shape of {quoted(name)} is not known, because its data are not there; give it, for example "
                    f"--shape {name}=1,3,224,224"
                )
            shape = (1, *shape[1:]) if by_row and shape else shape
        layer = schema.LayerParameter(name=name, type="Input", top=[name])
        layer.input_param.shape.add().dim.extend(shape)
        return layer

    def _shared_names(self) -> set[str]:
        """Names that more than one of the kept layers uses: only those still say anything."""
        users = Counter(use.param for node in self.kept for use in node.params if use.param.name)
        return {param.name for param, count in users.items() if count > 1}

    def _cleaned(self, node: Node, shared: set[str]) -> schema.LayerParameter:
        """The layer without what concerns training: rules, multipliers, fillers, loss weights, stored blobs."""
        message = schema.LayerParameter()
        message.CopyFrom(node.message)
        for field in ("include", "exclude", "loss_weight", "propagate_down", "phase", "blobs"):
            message.ClearField(field)
        for spec in message.param:
            spec.ClearField("lr_mult")
            spec.ClearField("decay_mult")
            if spec.name not in shared:
                spec.Clear()
        while message.param and not message.param[-1].ListFields():
            del message.param[-1]
        for index, name in enumerate(message.bottom):
            message.bottom[index] = self.renamed.get(name, name)
        _without_fillers(message)
        return message

    def _comments(self) -> Iterator[str]:
        needed = self.ancestry.before(*self.inputs.values())
        for node in self.graph.nodes:
            if node.id in needed and node.message.HasField("transform_param"):
                settings = text_format.MessageToString(node.message.transform_param, as_one_line=True).strip()
                if settings:
                    yield (
                        f"The data layer {quoted(node.name)} prepared its images with "
                        f"transform_param {{ {settings} }}; whoever fills the inputs must do the same."
                    )


def _without_fillers(message: Message) -> None:
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.name == "FillerParameter":
            message.ClearField(field.name)
        elif isinstance(value, Message):
            _without_fillers(value)
