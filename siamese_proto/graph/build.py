"""From layers to a graph: names become blobs, parameters get owners, shapes are inferred (net.cpp: Init)."""

import functools
import keyword
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from siamese_proto.errors import GraphError, Names, NetError, did_you_mean, quoted
from siamese_proto.graph.ir import (
    Blob,
    Graph,
    LayerContext,
    LayerLike,
    Node,
    ParamUse,
    Shape,
    SourceMissingError,
)
from siamese_proto.graph.params import Sharing, settled
from siamese_proto.graph.select import NetState, SelectedLayer, left_out, select_layers
from siamese_proto.graph.sizes import UNKNOWN, sizes_by_settings
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedNet

MakeLayer = Callable[[schema.LayerParameter, LayerContext], LayerLike]
OnProblem = Callable[[NetError], None]
_INT_MAX = 2**31 - 1
# Sources whose settings contain the shapes of all their tops.
_HAVE_SHAPES = ("Input", "DummyData", "MemoryData")


def stop_at_once(problem: NetError) -> None:
    """Raise the problem: the default of `build`."""
    raise problem


def build(
    parsed: ParsedNet,
    state: NetState,
    make_layer: MakeLayer,
    shapes: Mapping[str, Shape],
    *,
    allow_python_layers: bool = False,
    on_problem: OnProblem = stop_at_once,
) -> Graph:
    """Build the graph of a net for one state.

    Args:
        parsed: The net as read.
        state: The phase, level and stages that rules of layers are matched with.
        make_layer: Returns the configured layer of a message. It raises UnknownLayerError for unknown types; such
            layers are part of the graph, with unknown shapes, and listed in `Graph.problems`.
        shapes: Shapes of blobs that the net does not compute, by name.
        allow_python_layers: Whether Python layers may import their code.
        on_problem: Called with every problem, with file, line and layer. If it returns, the layer at fault is handled
            as one of an unknown type.
    """
    builder = _Builder(parsed, state, make_layer, dict(shapes), allow_python_layers)
    for selected in select_layers(parsed, state):
        try:
            builder.add(selected)
        except NetError as problem:
            on_problem(problem.at(location=selected.source.find(problem.field), layer=selected.message.name))
            builder.skip(selected)
    for name in builder.shapes:
        on_problem(
            GraphError(
                f"a shape is given for {quoted(name)}, which is no blob of the net{did_you_mean(name, builder.latest)}",
            )
        )
    return builder.graph()


class _Builder:
    def __init__(
        self,
        parsed: ParsedNet,
        state: NetState,
        make_layer: MakeLayer,
        shapes: dict[str, Shape],
        allow_python_layers: bool,
    ) -> None:
        self.parsed = parsed
        self.state = state
        self.make_layer = make_layer
        self.shapes = shapes
        self.allow_python_layers = allow_python_layers
        self.folder = os.path.dirname(os.path.abspath(parsed.file)) if os.path.exists(parsed.file) else None
        self.latest: dict[str, Blob] = {}
        self.names = Names()  # those of `latest`, for hints
        self.read: set[str] = set()  # ids of blobs that some layer reads
        self.nodes: list[Node] = []  # with uses of parameters that are not settled
        self.ids: set[str] = set()
        self.counts: dict[str, int] = {}  # of the ids from one name
        self.sharing = Sharing()
        self.notes: list[str] = []
        self.problems: list[NetError] = []

    @functools.cached_property
    def left_out(self) -> dict[str, SelectedLayer]:
        """The layers that are excluded in this state, by the blobs that they would compute."""
        return left_out(self.parsed, self.state)

    def add(self, selected: SelectedLayer) -> None:
        """Add a layer. Raises NetError without a place, which the caller adds."""
        message = selected.message
        if message.include and message.exclude:
            raise GraphError("has both include and exclude rules; give one kind only", field="exclude[0]")
        layer = self._make(selected)
        bottoms = [self._bottom(name, index) for index, name in enumerate(message.bottom)]
        # None is the loss of a loss layer without tops.
        is_automatic = layer is not None and layer.is_loss and not message.top
        top_names: list[str | None] = [None] if is_automatic else list(message.top)
        if layer is not None:
            _check_counts(message, layer)
        if message.propagate_down and len(message.propagate_down) != len(message.bottom):
            raise GraphError(
                f"propagate_down is given {len(message.propagate_down)} times for {len(message.bottom)} bottoms; "
                "give it once a bottom or not at all",
                field="propagate_down[0]",
            )
        weights = _loss_weights(message, layer, len(top_names))
        shapes = [bottom.shape for bottom in bottoms if bottom.shape is not None]
        bottom_shapes = shapes if len(shapes) == len(bottoms) else None
        top_shapes = self._shapes(selected, layer, top_names, bottom_shapes)
        node_id = self._new_id(message)
        uses = self._uses(node_id, message, layer, bottom_shapes)
        tops = [self._top(selected, index, name, top_shapes[index]) for index, name in enumerate(top_names)]
        self._add_node(node_id, selected, layer, bottoms, tops, uses, weights)

    def skip(self, selected: SelectedLayer) -> None:
        """Add a layer at fault as one of an unknown type, so that it is drawn and the layers after it are checked.

        It uses the parameters that it names.
        """
        message = selected.message
        bottoms = [self.latest[name] for name in message.bottom if name in self.latest]
        for name in message.top:
            self.latest[name] = Blob(name, self.latest[name].version + 1 if name in self.latest else 0)
            self.shapes.pop(name, None)
        tops = [self.latest[name] for name in dict.fromkeys(message.top)]
        node_id = self._new_id(message)
        uses = self.sharing.unchecked_uses(node_id, message)
        self._add_node(node_id, selected, None, bottoms, tops, uses, (0.0,) * len(tops))

    def _make(self, selected: SelectedLayer) -> LayerLike | None:
        context = LayerContext(
            self.state.phase,
            self.folder,
            selected.source.unknown,
            allow_python_layers=self.allow_python_layers,
            location=selected.source.location,
            node_id=self._new_id(selected.message),
        )
        message = selected.message
        if not message.type:
            raise GraphError("the layer has no type")
        try:
            return self.make_layer(message, context)
        except UnknownLayerError as problem:
            self.problems.append(problem.at(location=selected.source.find("type"), layer=message.name))
            return None

    def _bottom(self, name: str, index: int) -> Blob:
        if name not in self.latest:
            maker = self.left_out.get(name)
            hint = _where_excluded(maker, self.state) if maker else self.names.with_all(self.latest).hint(name)
            problem = UnknownBottomError(
                f"unknown bottom blob {quoted(name)} (index {index}){hint}", field=f"bottom[{index}]"
            )
            problem.left_out = maker is not None
            raise problem
        return self.latest[name]

    def _top(self, selected: SelectedLayer, index: int, name: str | None, shape: Shape | None) -> Blob:
        message = selected.message
        if name is None:
            free = message.name and message.name not in self.latest
            blob = Blob(message.name if free else f"(automatic {len(self.nodes)})", 0, shape, automatic=True)
            self.latest.setdefault(blob.name, blob)
            return blob
        in_place = index < len(message.bottom) and message.bottom[index] == name
        if name in self.latest and not in_place:
            raise GraphError(
                f"top blob {quoted(name)} is produced by more than one layer; only a layer that has it as bottom "
                f"{index} too may change it in place",
                field=f"top[{index}]",
            )
        version = self.latest[name].version + 1 if in_place else 0
        self.latest[name] = Blob(name, version, shape)
        return self.latest[name]

    def _shapes(
        self,
        selected: SelectedLayer,
        layer: LayerLike | None,
        names: Sequence[str | None],
        bottoms: Sequence[Shape] | None,
    ) -> list[Shape | None]:
        """Return the shape of each top; None if it cannot be known."""
        specified = [self.shapes.pop(name, None) if name is not None else None for name in names]
        if layer is None or bottoms is None:
            return specified
        if specified and specified[0] is not None and not selected.message.bottom:
            others = layer.top_shapes([]) if layer.type in _HAVE_SHAPES else layer.tops_beside(specified[0])
            return [other if shape is None else shape for shape, other in zip(specified, others, strict=False)]
        try:
            shapes: list[Shape | None] = list(layer.top_shapes(bottoms))
        except SourceMissingError as missing:
            missing.at(location=selected.source.find(missing.field), layer=selected.message.name)
            self.notes.append(str(missing))
            return list(missing.shapes) or specified
        if any(shape is not None for shape in specified):
            raise GraphError(
                f"a shape is given for {quoted(str(names[0]))}, which this layer computes; give those of the net's "
                "inputs only"
            )
        for shape in shapes:
            _check_size(shape, "a top")
        if len(shapes) != len(names):
            raise GraphError(f"{layer.type} makes {len(shapes)} tops, but {len(names)} are named", field="top[0]")
        return shapes

    def _uses(
        self, node_id: str, message: schema.LayerParameter, layer: LayerLike | None, bottoms: Sequence[Shape] | None
    ) -> list[ParamUse]:
        if layer is None:
            return self.sharing.unchecked_uses(node_id, message)
        roles = layer.params()
        if len(message.param) > len(roles):
            raise GraphError(
                f"{len(message.param)} param entries are given, but {layer.type} has {len(roles)} parameter blobs"
                + (f" ({', '.join(role.role for role in roles)})" if roles else ""),
                field=f"param[{len(roles)}]",
            )
        shapes: Sequence[Shape | None] = [None] * len(roles)
        sizes = [UNKNOWN] * len(roles) if bottoms is not None else sizes_by_settings(layer, len(message.bottom))
        if bottoms is not None and roles:
            shapes = layer.param_shapes(bottoms)
        for shape, role in zip(shapes, roles, strict=True):
            _check_size(shape, f"its {role.role}")
        specs = [*message.param, *(None,) * (len(roles) - len(message.param))]
        return [
            self.sharing.use(node_id, message.name, index, *blob)
            for index, blob in enumerate(zip(roles, shapes, specs, sizes, strict=True))
        ]

    def graph(self) -> Graph:
        """Return the finished graph."""
        message = self.parsed.message
        params = {param.id: param for param in self.sharing.params()}
        nodes = tuple(
            replace(node, params=settled(node.params, params, force_backward=message.force_backward))
            for node in self.nodes
        )
        last = {top.name: top for node in nodes for top in node.tops}
        outputs = sorted(
            (blob for blob in last.values() if blob.id not in self.read and not blob.automatic),
            key=lambda blob: blob.name.encode(),
        )
        return Graph(
            name=message.name,
            phase=self.state.phase,
            nodes=nodes,
            params=tuple(params.values()),
            outputs=tuple(outputs),
            force_backward=message.force_backward,
            file=self.parsed.file,
            notes=tuple(self.notes),
            problems=tuple(self.problems),
            debug_info=message.debug_info,
        )

    def _add_node(
        self,
        node_id: str,
        selected: SelectedLayer,
        layer: LayerLike | None,
        bottoms: Sequence[Blob],
        tops: Sequence[Blob],
        uses: Sequence[ParamUse],
        loss_weights: tuple[float, ...],
    ) -> None:
        labels = layer.labels if layer is not None else ()
        message = selected.message
        passes = [*message.propagate_down, *(True,) * (len(bottoms) - len(message.propagate_down))]
        forced = self.parsed.message.force_backward
        self.ids.add(node_id)
        self.read.update(bottom.id for bottom in bottoms)
        self.nodes.append(
            Node(
                id=node_id,
                name=message.name,
                type=message.type,
                layer=layer,
                bottoms=tuple(bottoms),
                tops=tuple(tops),
                params=tuple(uses),
                loss_weights=loss_weights,
                cut=tuple(index in labels or not (forced or passes[index]) for index in range(len(bottoms))),
                location=selected.source.location,
                message=message,
                phases=selected.phases,
            )
        )

    def _new_id(self, message: schema.LayerParameter) -> str:
        """Return the layer's name as a Python identifier that no other node has: files repeat names."""
        base = re.sub(r"[^0-9A-Za-z_]", "_", message.name or message.type) or "layer"
        if base[0].isdigit() or keyword.iskeyword(base):
            base = f"_{base}"
        count = self.counts.get(base, 1)
        identifier = base if count == 1 else f"{base}_{count}"
        while identifier in self.ids:
            count += 1
            identifier = f"{base}_{count}"
        self.counts[base] = count
        return identifier


class UnknownLayerError(GraphError):
    """A layer type that is not registered."""


class UnknownBottomError(GraphError):
    """A blob that no layer above computes. `left_out`: one does in another phase or stage."""

    left_out = False


def _where_excluded(maker: SelectedLayer, state: NetState) -> str:
    asks_for_stages = any(rule.stage for rule in maker.message.include)
    stages = f" and stage {', '.join(map(quoted, state.stages))}" if state.stages else ""
    without = " without stages" if asks_for_stages and not stages else ""
    return (
        f"; layer {quoted(maker.message.name)} (line {maker.source.location.line}) makes it, but its rules leave it "
        f"out in phase {state.phase}{stages}{without}"
    )


def _check_size(shape: Shape | None, what: str) -> None:
    """Caffe counts the values of a blob in an int (blob.cpp: Reshape); a larger size is a mistake."""
    if shape is not None and math.prod(shape) > _INT_MAX:
        raise GraphError(
            f"{what} of shape {shape} would have {math.prod(shape)} values, more than the {_INT_MAX} of Caffe"
        )


def _check_counts(message: schema.LayerParameter, layer: LayerLike) -> None:
    for field, names, arity in (("bottom", message.bottom, layer.bottoms), ("top", message.top, layer.tops)):
        count = len(names) or (1 if field == "top" and layer.is_loss else 0)
        if count not in arity:
            missing = layer.bottom_names[len(names) : arity.least] if field == "bottom" else ()
            verb = "is" if len(missing) == 1 else "are"
            hint = f": the {' and the '.join(missing)} {verb} missing" if missing else ""
            plural = "" if arity.least == arity.most == 1 else "s"
            raise GraphError(
                f"{layer.type} takes {arity} {field}{plural}, got {len(names)}{hint}",
                field=f"{field}[{len(names) - 1}]",
            )
    if layer.same_count and len(message.bottom) != len(message.top):
        raise GraphError(
            f"{layer.type} takes as many tops as bottoms, "
            f"got {len(message.bottom)} bottoms and {len(message.top)} tops",
            field=f"top[{len(message.top) - 1}]",
        )


def _loss_weights(message: schema.LayerParameter, layer: LayerLike | None, tops: int) -> tuple[float, ...]:
    if not message.loss_weight:
        first = 1.0 if layer is not None and layer.is_loss else 0.0
        return (first, *(0.0,) * (tops - 1)) if tops else ()
    if len(message.loss_weight) != tops:
        raise GraphError(
            f"loss_weight is given {len(message.loss_weight)} times for {tops} tops; give it once a top or not at all",
            field="loss_weight[0]",
        )
    return tuple(message.loss_weight)
