"""From layers to a graph: names become blobs, parameters get owners, shapes are worked out (net.cpp: Init)."""

from __future__ import annotations

import functools
import keyword
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace

from siamese_proto.errors import GraphError, Names, NetError, did_you_mean, quoted
from siamese_proto.graph.ir import (
    Blob,
    Graph,
    LayerContext,
    LayerLike,
    Node,
    Shape,
    SourceMissingError,
)
from siamese_proto.graph.params import DraftUse, Sharing
from siamese_proto.graph.select import NetState, SelectedLayer, left_out, select_layers
from siamese_proto.graph.sizes import UNKNOWN, sizes_by_settings
from siamese_proto.proto import schema
from siamese_proto.proto.parsed import ParsedNet

MakeLayer = Callable[[schema.LayerParameter, LayerContext], LayerLike]
OnProblem = Callable[[NetError], None]
_INT_MAX = 2**31 - 1
# Sources whose settings hold the shapes of all their tops.
_STATE_THEIR_SHAPES = ("Input", "DummyData", "MemoryData")


def stop_at_once(problem: NetError) -> None:
    """The default of `build`: the first problem is raised."""
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
    """The graph of a net for one state.

    `make_layer` gives the configured layer of a message and raises GraphError for a type nobody knows; such layers are
    kept, with unknown shapes, and listed in `Graph.problems`. `shapes` gives shapes of blobs that the net does not
    compute. `on_problem` is called with every problem, with file, line and layer; where it returns, building goes on
    behind the layer at fault.
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
        self.known = Names()  # those of `latest`, for hints
        self.read: set[str] = set()  # ids of blobs that some layer reads
        self.nodes: list[tuple[Node, list[DraftUse]]] = []  # without parameters, whose multipliers may still change
        self.ids: set[str] = set()
        self.counts: dict[str, int] = {}  # of the ids made of one name
        self.sharing = Sharing()
        self.notes: list[str] = []
        self.problems: list[NetError] = []

    @functools.cached_property
    def left_out(self) -> dict[str, SelectedLayer]:
        """Makers of blobs that are not there for this state, by blob; worked out when a blob is missing."""
        return left_out(self.parsed, self.state)

    def add(self, selected: SelectedLayer) -> None:
        """One more layer. Raises NetError without a place; the caller adds it."""
        message = selected.message
        if message.include and message.exclude:
            raise GraphError("has both include and exclude rules; give one kind only", field="exclude[0]")
        layer = self._make(selected)
        bottoms = [self._bottom(name, index) for index, name in enumerate(message.bottom)]
        top_names = self._top_names(message, layer)
        if layer is not None:
            _check_counts(message, layer)
        if message.propagate_down and len(message.propagate_down) != len(message.bottom):
            raise GraphError(
                f"propagate_down is given {len(message.propagate_down)} times for {len(message.bottom)} bottoms; "
                "give it once a bottom or not at all",
                field="propagate_down[0]",
            )
        weights = _loss_weights(message, layer, len(top_names))
        known = [bottom.shape for bottom in bottoms if bottom.shape is not None]
        shapes = self._shapes(selected, layer, top_names, known if len(known) == len(bottoms) else None)
        node_id = _identifier(message.name or message.type, self.ids, self.counts)
        uses = self._uses(node_id, message, layer, known if len(known) == len(bottoms) else None)
        tops = [self._top(selected, index, name, shapes[index]) for index, name in enumerate(top_names)]
        self.ids.add(node_id)
        self.read.update(bottom.id for bottom in bottoms)
        self.nodes.append((self._node(node_id, selected, layer, bottoms, tops, weights), uses))

    def skip(self, selected: SelectedLayer) -> None:
        """Keep a layer at fault as one of an unknown type: it is drawn, and the layers after it are checked.

        It still uses the parameters that it names.
        """
        message = selected.message
        bottoms = [self.latest[name] for name in message.bottom if name in self.latest]
        for name in message.top:
            self.latest[name] = Blob(name, self.latest[name].version + 1 if name in self.latest else 0)
            self.shapes.pop(name, None)
        tops = [self.latest[name] for name in dict.fromkeys(message.top)]
        node_id = _identifier(message.name or message.type, self.ids, self.counts)
        self.ids.add(node_id)
        self.read.update(bottom.id for bottom in bottoms)
        uses = self.sharing.unchecked_uses(node_id, message)
        self.nodes.append((self._node(node_id, selected, None, bottoms, tops, (0.0,) * len(tops)), uses))

    def _make(self, selected: SelectedLayer) -> LayerLike | None:
        context = LayerContext(
            self.state.phase,
            self.folder,
            selected.source.unknown,
            allow_python_layers=self.allow_python_layers,
            location=selected.source.location,
            node_id=_identifier(selected.message.name or selected.message.type, self.ids, self.counts),
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
            hint = _where_made(maker, self.state) if maker else self.known.with_all(self.latest).hint(name)
            problem = UnknownBottomError(
                f"unknown bottom blob {quoted(name)} (index {index}){hint}", field=f"bottom[{index}]"
            )
            problem.left_out = maker is not None
            raise problem
        return self.latest[name]

    def _top_names(self, message: schema.LayerParameter, layer: LayerLike | None) -> list[str | None]:
        """The names of the tops; None for the loss of a loss layer that names none."""
        names: list[str | None] = list(message.top)
        if not names and layer is not None and layer.is_loss:
            names = [None]
        return names

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
        """The shape of each top; None where it cannot be known."""
        given = [self.shapes.pop(name, None) if name is not None else None for name in names]
        if layer is None or bottoms is None:
            return given
        if given and given[0] is not None and not selected.message.bottom:
            others = layer.top_shapes([]) if layer.type in _STATE_THEIR_SHAPES else layer.tops_beside(given[0])
            return [other if shape is None else shape for shape, other in zip(given, others, strict=False)]
        try:
            shapes: list[Shape | None] = list(layer.top_shapes(bottoms))
        except SourceMissingError as missing:
            missing.at(location=selected.source.find(missing.field), layer=selected.message.name)
            self.notes.append(str(missing))
            return list(missing.shapes) or given
        if any(shape is not None for shape in given):
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
    ) -> list[DraftUse]:
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
        """The finished graph."""
        message = self.parsed.message
        forced = message.force_backward
        params = {draft.id: draft.finished() for draft in self.sharing.drafts}
        nodes = tuple(
            replace(node, params=tuple(use.finished(params[use.draft.id], force_backward=forced) for use in uses))
            for node, uses in self.nodes
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

    def _node(
        self,
        node_id: str,
        selected: SelectedLayer,
        layer: LayerLike | None,
        bottoms: Sequence[Blob],
        tops: Sequence[Blob],
        loss_weights: tuple[float, ...],
    ) -> Node:
        """Return the node without its parameters."""
        labels = layer.labels if layer is not None else ()
        message = selected.message
        passes = [*message.propagate_down, *(True,) * (len(bottoms) - len(message.propagate_down))]
        forced = self.parsed.message.force_backward
        return Node(
            id=node_id,
            name=message.name,
            type=message.type,
            layer=layer,
            bottoms=tuple(bottoms),
            tops=tuple(tops),
            params=(),
            loss_weights=loss_weights,
            cut=tuple(index in labels or not (forced or passes[index]) for index in range(len(bottoms))),
            location=selected.source.location,
            message=message,
            phases=selected.phases,
        )


class UnknownLayerError(GraphError):
    """A layer type that is not registered."""


class UnknownBottomError(GraphError):
    """A blob that no layer above makes; `left_out` where one does in another phase or stage."""

    left_out = False


def _where_made(maker: SelectedLayer, state: NetState) -> str:
    asks_for_stages = any(rule.stage for rule in maker.message.include)
    stages = f" and stage {', '.join(map(quoted, state.stages))}" if state.stages else ""
    without = " without stages" if asks_for_stages and not stages else ""
    return (
        f"; layer {quoted(maker.message.name)} (line {maker.source.location.line}) makes it, but its rules leave it "
        f"out in phase {state.phase}{stages}{without}"
    )


def _check_size(shape: Shape | None, what: str) -> None:
    """Caffe counts the values of a blob in an int (blob.cpp: Reshape); nothing larger is ever meant."""
    if shape is not None and math.prod(shape) > _INT_MAX:
        raise GraphError(
            f"{what} of shape {shape} would have {math.prod(shape)} values, more than the {_INT_MAX} of Caffe"
        )


def _check_counts(message: schema.LayerParameter, layer: LayerLike) -> None:
    for field, given, arity in (("bottom", message.bottom, layer.bottoms), ("top", message.top, layer.tops)):
        count = len(given) or (1 if field == "top" and layer.is_loss else 0)
        if count not in arity:
            missing = layer.bottom_names[len(given) : arity.least] if field == "bottom" else ()
            hint = (
                f": the {' and the '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing" if missing else ""
            )
            many = "" if arity.least == arity.most == 1 else "s"
            raise GraphError(
                f"{layer.type} takes {arity} {field}{many}, got {len(given)}{hint}",
                field=f"{field}[{len(given) - 1}]",
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


def _identifier(name: str, taken: Set[str], counts: dict[str, int]) -> str:
    """`name` as a Python identifier that nobody else has: real files repeat names and use every character."""
    base = re.sub(r"[^0-9A-Za-z_]", "_", name) or "layer"
    if base[0].isdigit() or keyword.iskeyword(base):
        base = f"_{base}"
    count = counts.get(base, 1)
    found = base if count == 1 else f"{base}_{count}"
    while found in taken:
        count += 1
        found = f"{base}_{count}"
    counts[base] = count
    return found
