"""Make the inference net of a training net: one tower of a twin, both towers with their distance, or a plain net.

Data layers become Input layers; losses, accuracies and everything that needs labels are left out. Layers keep their
names, so trained weights fit.
"""

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

# The layer that computes what a loss applies to the scores before it compares them.
_PROBABILITIES = {"SoftmaxWithLoss": "Softmax", "SigmoidCrossEntropyLoss": "Sigmoid"}

_FEATURES = {"ContrastiveLoss": 2, "TripletLoss": 3}  # number of bottoms that the loss compares


@dataclass(frozen=True)
class Deployment:
    """An inference net.

    Attributes:
        net: The net.
        comments: Lines about its inputs, written above the net.
        notes: The difference between towers, if they do not compute the same.
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
    """Make the inference net.

    The default for a twin is one tower, up to the bottoms of its loss; for a net without towers, everything that needs
    no labels. The batch size becomes 1 if all layers treat rows independently.

    Args:
        parsed: The training net.
        both: Keep all towers, and compute the Euclidean distances between the features of the first and the others.
        tower: The number of the tower, from 1.
        outputs: Names of the blobs to compute instead.
        shapes: Shapes of inputs that the data layers do not know.
        level: The level of the net state.
        stages: The stages of the net state.

    Raises:
        GraphError: There is no such net.
    """
    if tower is not None and (both or outputs):
        raise GraphError(f"tower and {'both' if both else 'outputs'} exclude each other")
    known_shapes = dict(shapes or {})
    notes: tuple[str, ...] = ()
    graph = _graph(parsed, known_shapes, level, tuple(stages))
    ancestry = Ancestry(graph.nodes)
    features = (twin_features(graph) or _compared(graph)) if not outputs else ()
    if tower is not None and not 1 <= tower <= len(features):
        raise GraphError(f"the net has {_towers(len(features))}, got tower {tower}")
    if outputs:
        draft = _Draft(graph, ancestry, known_shapes)
        draft.add([graph.blob(name) for name in outputs])
    elif features and not both:
        place = (tower or 1) - 1
        others = [blob for index, blobs in enumerate(features) if index != place for blob in blobs]
        draft = _Draft(graph, ancestry, known_shapes, common=ancestry.before(*others))
        draft.add(features[place])
        towers = whole_towers(graph, ancestry, features)
        difference = tower_difference(graph, towers)
        if difference:
            longer = any(tower - ancestry.before(*blobs) for tower, blobs in zip(towers, features, strict=True))
            end = f", up to {', '.join(quoted(blob.name) for blob in features[place])}" if longer else ""
            notes = (f"the towers differ: {difference}; the net holds tower {place + 1} of {len(features)}{end}",)
    elif features and _only_compared(graph, features):
        draft = _Draft(graph, ancestry, known_shapes, common=_splitting_layers(graph, ancestry, features))
        draft.add([blob for tower in features for blob in tower])
        draft.add_distances([tower[0] for tower in features])
    elif both and not features:
        raise GraphError("the net has no towers; leave out --both")
    else:
        draft = _Draft(graph, ancestry, known_shapes)
        draft.add([blob for blob, _ in predictions(graph, ancestry)])
        draft.add_probabilities(predictions(graph, ancestry))
    return draft.finished(parsed, notes)


def _towers(count: int) -> str:
    return f"{count} towers, numbered from 1" if count else "no towers"


def _graph(parsed: ParsedNet, shapes: dict[str, Shape], level: int, stages: tuple[str, ...]) -> Graph:
    """Return the net of phase TEST, or of TRAIN if the file has no test net."""
    source_tops = {top for layer in parsed.message.layer if not layer.bottom for top in layer.top}
    problems: list[NetError] = []
    for phase in reversed(PHASES):
        try:
            return build_graph(parsed, phase, level, stages, {k: v for k, v in shapes.items() if k in source_tops})
        except NetError as problem:
            problems.append(problem)
    raise problems[-1]


def _compared(graph: Graph) -> Sequence[Sequence[Blob]]:
    """Return the blobs that a pair or triplet loss compares if the towers differ, one list for each tower."""
    for node in reversed(graph.nodes):
        if node.type in _FEATURES and node.layer is not None:
            features = node.bottoms[: _FEATURES[node.type]]
            makers = {blob.id for blob in features}
            return [[blob] for blob in features] if len(makers) == len(features) else ()
    return ()


def _only_compared(graph: Graph, features: Sequence[Sequence[Blob]]) -> bool:
    """Return whether only losses read the features: then their distance is the result of the net."""
    ids = {blob.id for tower in features for blob in tower}
    readers = [node for node in graph.nodes if ids & {blob.id for blob in node.bottoms}]
    return all(node.layer is None or node.is_loss or node.type == "Silence" for node in readers)


def _splitting_layers(graph: Graph, ancestry: Ancestry, features: Sequence[Sequence[Blob]]) -> Set[str]:
    """Return the layers that only split records into one part for each tower, which inputs can replace."""
    before = [ancestry.before(*tower) for tower in features]
    common = before[0].intersection(*before[1:])
    cuts = all(node.is_source or node.type == "Slice" for node in graph.nodes if node.id in common)
    return common if cuts else frozenset()


class _Draft:
    """The new net in progress."""

    def __init__(
        self, graph: Graph, ancestry: Ancestry, shapes: Mapping[str, Shape], common: Set[str] = frozenset()
    ) -> None:
        self.graph = graph
        self.ancestry = ancestry
        self.shapes = dict(shapes)
        self.common = common  # ids of nodes that are left out, although the targets depend on them
        self.inputs: dict[str, Blob] = {}
        self.input_shapes: dict[str, Shape | None] = {}
        self.renamed: dict[str, str] = {}
        self.nodes: list[Node] = []
        self.added: list[schema.LayerParameter] = []

    def add(self, targets: Sequence[Blob]) -> None:
        """Add everything that the targets are computed from, down to the inputs of the net."""
        ancestors = self.ancestry.before(*targets)
        for node in self.graph.nodes:
            if node.id in ancestors and node.id not in self.common and not node.is_source:
                self.nodes.append(node)
        computed = {top.id for node in self.nodes for top in node.tops}
        self.nodes += [
            node
            for node in self.graph.nodes
            if node.type == "Silence" and all(blob.id in computed for blob in node.bottoms)
        ]
        outside = {blob.id: blob for node in self.nodes for blob in node.bottoms if blob.id not in computed}
        constants = {id: self.ancestry.producer[id] for id in outside if self._is_constant(id)}
        for id, blob in outside.items():
            if len(constants) == len(outside) or id not in constants:
                self._input(blob)
            elif constants[id] not in self.nodes:
                self.nodes.insert(0, constants[id])  # for example an initial state, which needs no input
        if not self.inputs or not self.nodes:
            raise GraphError("nothing is left of the net: all its outputs need labels")

    def _is_constant(self, blob: str) -> bool:
        maker = self.ancestry.producer.get(blob)
        return maker is not None and maker.type == "DummyData"

    def _input(self, blob: Blob) -> None:
        """Add a blob from outside the tower: an input, or the end of layers that process the data of all towers."""
        shape = blob.shape
        maker = self.ancestry.producer.get(blob.id)
        chain: list[Node] = []
        current = blob
        while maker is not None and not maker.is_source:
            if isinstance(maker.layer, ElementWise) and not maker.params:
                chain.insert(0, maker)
            elif maker.type not in ("Slice", "Split"):
                raise GraphError(
                    f"layer {quoted(maker.name)} processes the data of all towers before they are split, so one tower "
                    "needs the others; deploy all with --both",
                    location=maker.location,
                )
            current = maker.bottoms[0]
            maker = self.ancestry.producer.get(current.id)
        self.inputs[blob.id] = current if chain else blob
        self.input_shapes[(current if chain else blob).name] = shape
        if chain:
            self.nodes[:0] = [node for node in chain if node not in self.nodes]
            self.renamed[blob.name] = chain[-1].tops[0].name
            self.inputs[current.id] = current

    def add_distances(self, features: Sequence[Blob]) -> None:
        """Add the distances between the first features and each of the others, (N,) each."""
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

    def add_probabilities(self, scores: Sequence[tuple[Blob, Node | None]]) -> None:
        """Add the probabilities that the losses compute from scores."""
        for blob, loss in scores:
            if loss is None or loss.type not in _PROBABILITIES:
                continue
            name = self._free("prob")
            layer = schema.LayerParameter(name=name, type=_PROBABILITIES[loss.type], bottom=[blob.name], top=[name])
            if loss.message.HasField("softmax_param"):
                layer.softmax_param.CopyFrom(loss.message.softmax_param)
            self.added.append(layer)

    def _free(self, name: str) -> str:
        """Return a name that no layer and no blob has."""
        taken = {node.name for node in self.graph.nodes} | set(self.graph.blobs()) | {m.name for m in self.added}
        count = 1
        free = name
        while free in taken:
            count += 1
            free = f"{name}{count}"
        return free

    def finished(self, parsed: ParsedNet, notes: tuple[str, ...]) -> Deployment:
        """Return the net with its inputs, and comments about the preprocessing of the training data."""
        by_row = all(isinstance(node.layer, Layer) and node.layer.rows_independent() for node in self.nodes)
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
        for node in self.nodes:
            net.layer.append(self._cleaned(node, shared))
            sources.append(Source(node.location, {}, written[node.location].unknown))
        net.layer.extend(self.added)
        sources.extend([Source(parsed.source.location)] * len(self.added))
        deployed = ParsedNet(net, tuple(sources), Source(parsed.source.location))
        return Deployment(deployed, tuple(self._comments()), notes)

    def _input_layer(self, name: str, *, by_row: bool) -> schema.LayerParameter:
        shape = self.shapes.get(name)
        if shape is None:
            shape = self.input_shapes[name]
            if shape is None:
                raise GraphError(
                    f"the shape of {quoted(name)} is unknown, because its data do not exist; give it, for example "
                    f"--shape {name}=1,3,224,224"
                )
            shape = (1, *shape[1:]) if by_row and shape else shape
        layer = schema.LayerParameter(name=name, type="Input", top=[name])
        layer.input_param.shape.add().dim.extend(shape)
        return layer

    def _shared_names(self) -> set[str]:
        """Return the shared names that more than one of the layers uses."""
        users = Counter(use.param for node in self.nodes for use in node.params if use.param.name)
        return {param.name for param, count in users.items() if count > 1}

    def _cleaned(self, node: Node, shared: set[str]) -> schema.LayerParameter:
        """Return the layer without training settings: rules, multipliers, fillers, loss weights, stored blobs."""
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
                        f"The data layer {quoted(node.name)} transformed its images with "
                        f"transform_param {{ {settings} }}; transform the inputs in the same way."
                    )


def _without_fillers(message: Message) -> None:
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.name == "FillerParameter":
            message.ClearField(field.name)
        elif isinstance(value, Message):
            _without_fillers(value)
