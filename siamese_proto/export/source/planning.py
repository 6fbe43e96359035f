"""Plan the generated source: what becomes a class, a module or a line."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from siamese_proto.errors import GraphError, NetError, quoted
from siamese_proto.graph.ir import Blob, Graph, Node, Param, ParamUse
from siamese_proto.graph.towers import Row, find_towers
from siamese_proto.graph.traversal import Ancestry, nodes_before, topological_order
from siamese_proto.layers.base import Layer
from siamese_proto.layers.torch_source import Source


@dataclass(frozen=True)
class Region:
    """Rows of towers that become one class.

    Attributes:
        rows: Corresponding layers of the towers.
        shared: All towers use one set of parameters, so they are one module; otherwise each has its own module.
        inputs: Blobs from outside; for each a tuple with the blob of every tower.
        outputs: Blobs read outside, in the same form.
    """

    rows: tuple[Row, ...]
    shared: bool
    inputs: tuple[tuple[Blob, ...], ...]
    outputs: tuple[tuple[Blob, ...], ...]


@dataclass(frozen=True)
class Call:
    """The run of one tower of a region."""

    region: Region
    tower: int


Step = Node | Call


@dataclass(frozen=True)
class Plan:
    """A graph ready to be written. Layers that no output depends on are left out."""

    graph: Graph
    inputs: tuple[Blob, ...]
    outputs: tuple[Blob, ...]  # those of the net, and those with a loss weight
    nodes: tuple[Node, ...]
    sources: Mapping[str, Source]  # by node id
    owners: Mapping[str, Node]  # by parameter id: the first of its users
    modular: frozenset[str]  # ids of nodes written as a call of a module
    frozen: frozenset[str]  # ids of parameters that no layer learns
    regions: tuple[Region, ...]
    steps: tuple[Step, ...]
    learned: frozenset[str]  # ids of blobs that depend on a parameter

    @property
    def batch(self) -> int | None:
        """The batch size, which comments call N."""
        return next((blob.shape[0] for blob in self.inputs if blob.shape), None)


def make_plan(graph: Graph) -> Plan:
    """Plan the source of a graph. Raises NetError if the net cannot run, or a layer has no plain PyTorch form."""
    outputs = outputs_of(graph)
    nodes = needed(graph, outputs)
    sources = {node.id: _source(graph, node) for node in nodes}
    owners: dict[str, Node] = {}
    for node in nodes:
        for use in node.params:
            owners.setdefault(use.param.id, node)
    learned = {use.param.id for node in nodes for use in node.params if use.takes_gradient or use.param.statistic}
    frozen = frozenset(set(owners) - learned)
    modular = _modular(nodes, sources, owners, frozen)
    regions = [
        region
        for towers in find_towers(graph)
        for rows in _joined(_kinds(towers.rows, nodes, sources, owners, modular, frozen))
        if (region := _region(*rows, nodes, outputs)) is not None
    ]
    while (steps := _in_order(nodes, regions)) is None:
        regions.pop()  # its layers wait for one another; as single lines they do not
    return Plan(
        graph=graph,
        inputs=inputs_of(graph, nodes),
        outputs=outputs,
        nodes=nodes,
        sources=sources,
        owners=owners,
        modular=modular,
        frozen=frozen,
        regions=tuple(regions),
        steps=tuple(steps),
        learned=frozenset(Ancestry(nodes).learned),
    )


def outputs_of(graph: Graph) -> tuple[Blob, ...]:
    """Return the blobs that no layer reads, and those with a loss weight.

    Raises:
        NetError: The net cannot run, or has no outputs.
    """
    if graph.problems:
        raise graph.problems[0]
    weighted = [top for top, _ in graph.weighted_tops()]
    from_outside = {top.id for node in graph.nodes if node.is_source for top in node.tops}
    outputs = tuple(blob for blob in dict.fromkeys([*graph.outputs, *weighted]) if blob.id not in from_outside)
    if not outputs:
        raise GraphError("the net computes nothing: no layer has an output that is not read")
    return outputs


def inputs_of(graph: Graph, nodes: Sequence[Node]) -> tuple[Blob, ...]:
    """Return the blobs of sources that these layers read."""
    read = {bottom.id for node in nodes for bottom in node.bottoms}
    return tuple(top for node in graph.nodes if node.is_source for top in node.tops if top.id in read)


def needed(graph: Graph, outputs: Sequence[Blob]) -> tuple[Node, ...]:
    """Return the layers that the outputs depend on, in order."""
    return tuple(node for node in nodes_before(graph, outputs) if not node.is_source)


def _source(graph: Graph, node: Node) -> Source:
    assert isinstance(node.layer, Layer)  # a layer that is unknown or at fault is among the problems
    shapes = [bottom.shape for bottom in node.bottoms if bottom.shape is not None]
    if len(shapes) < len(node.bottoms):
        raise graph.unknown_shapes(node)
    try:
        source = node.layer.torch_source(shapes)
    except NetError as problem:
        raise problem.at(location=node.location, layer=node.name) from None
    if source is None:
        raise GraphError(
            f"a layer of type {node.type} ({node.layer.describe() or 'as set'}) has no plain PyTorch form; "
            "give its class a method `torch_source`, or port the net without it",
            location=node.location,
            layer=node.name,
        )
    return source


def takes_its_own_gradient(use: ParamUse, frozen: frozenset[str]) -> bool:
    """Return whether this use can be written without `detach`: it takes a gradient, or no use does."""
    return use.takes_gradient or use.param.statistic or use.param.id in frozen


def _modular(
    nodes: Sequence[Node], sources: Mapping[str, Source], owners: Mapping[str, Node], frozen: frozenset[str]
) -> frozenset[str]:
    """Return the ids of nodes that can be modules; users of the same parameters are the same module."""

    def key(node: Node) -> tuple[str, ...]:
        return (sources[node.id].module, *(use.param.id for use in node.params))

    def is_plain(node: Node) -> bool:
        return bool(sources[node.id].module) and all(
            use.shape == use.param.shape and takes_its_own_gradient(use, frozen) for use in node.params
        )

    modular = set()
    for node in nodes:
        of_owners = [owners[use.param.id] for use in node.params]
        is_first = all(owner is node for owner in of_owners)
        may_be_one = is_first or not sources[node.id].has_state
        if may_be_one and is_plain(node) and all(is_plain(owner) and key(owner) == key(node) for owner in of_owners):
            modular.add(node.id)
        elif node.params and not sources[node.id].apart:
            raise GraphError(
                f"it shares parameters in a way that a layer of type {node.type} has no plain PyTorch form for: "
                "all must be shared with one layer of the same settings and lr_mult, and without memory, or none",
                location=node.location,
                layer=node.name,
            )
    return frozenset(modular)


def _kinds(
    rows: Sequence[Row],
    nodes: Sequence[Node],
    sources: Mapping[str, Source],
    owners: Mapping[str, Node],
    modular: frozenset[str],
    frozen: frozenset[str],
) -> Iterator[tuple[Row, str]]:
    """Yield the rows that can be part of a class, each with its kind: "shared", "own", or "any" without parameters."""
    written = {node.id for node in nodes}

    def form(node: Node) -> tuple[object, ...]:
        uses = [(use.shape, use.takes_gradient, use.param.id in frozen) for use in node.params]
        shapes = [blob.shape and blob.shape[1:] for blob in (*node.bottoms, *node.tops)]
        return sources[node.id], node.cut, node.id in modular, uses, shapes

    for row in rows:
        if not written.issuperset(node.id for node in row) or any(form(node) != form(row[0]) for node in row):
            continue
        ids = [tuple(use.param.id for use in node.params) for node in row]
        if not ids[0]:
            yield row, "any"
        elif len(set(ids)) == 1 and all(owners[param] in row for param in ids[0]):
            yield row, "shared"
        elif all(owners[param] is node for node, params in zip(row, ids, strict=True) for param in params):
            yield row, "own"


def _joined(rows: Iterator[tuple[Row, str]]) -> list[tuple[tuple[Row, ...], bool]]:
    """Return the connected parts of the rows that can be one class, and whether the towers share it."""
    regions: list[tuple[list[Row], set[str]]] = []
    of_blob: dict[str, tuple[list[Row], set[str]]] = {}
    for row, kind in rows:
        members, kinds = [row], {kind} - {"any"}
        for region in {id(part): part for blob in row[0].bottoms if (part := of_blob.get(blob.id))}.values():
            if len(kinds | region[1]) <= 1:
                members, kinds = [*region[0], *members], kinds | region[1]
                regions.remove(region)
        joined = (members, kinds)
        regions.append(joined)
        of_blob.update({top.id: joined for member in members for top in member[0].tops})
    return [(tuple(members), kinds == {"shared"}) for members, kinds in regions if kinds and len(members) > 1]


def _region(rows: tuple[Row, ...], shared: bool, nodes: Sequence[Node], outputs: Sequence[Blob]) -> Region | None:
    """Return the rows with their inputs and outputs; None if the towers are not connected in the same way."""
    tops_of = {tops[0].id: tops for row in rows for tops in zip(*(node.tops for node in row), strict=True)}
    inside = {top.id for tops in tops_of.values() for top in tops}
    inputs: dict[tuple[str, ...], tuple[Blob, ...]] = {}
    for row in rows:
        for bottoms in zip(*(node.bottoms for node in row), strict=True):
            ids = tuple(bottom.id for bottom in bottoms)
            if ids[0] in tops_of:
                if ids != tuple(top.id for top in tops_of[ids[0]]):
                    return None
            elif inside.intersection(ids):
                return None
            else:
                inputs[ids] = bottoms
    if len({ids[0] for ids in inputs}) < len(inputs):
        return None
    own = {node.id for row in rows for node in row}
    read = {bottom.id for node in nodes if node.id not in own for bottom in node.bottoms}
    read.update(blob.id for blob in outputs)
    outside = tuple(tops for tops in tops_of.values() if any(top.id in read for top in tops))
    return Region(rows, shared, tuple(inputs.values()), outside)


def _in_order(nodes: Sequence[Node], regions: Sequence[Region]) -> list[Step] | None:
    """Order layers and towers so that each runs after what it reads, otherwise as in the file; None for a circle."""
    place = {node.id: index for index, node in enumerate(nodes)}
    steps: list[tuple[int, Step, set[str], set[str]]] = []  # place, step, reads, makes
    inside: set[str] = set()
    for region in regions:
        for tower in range(len(region.rows[0])):
            members = [row[tower] for row in region.rows]
            inside.update(node.id for node in members)
            reads, makes = ({blobs[tower].id for blobs in ends} for ends in (region.inputs, region.outputs))
            steps.append((min(place[node.id] for node in members), Call(region, tower), reads, makes))
    for node in nodes:
        if node.id not in inside:
            reads, makes = ({blob.id for blob in blobs} for blobs in (node.bottoms, node.tops))
            steps.append((place[node.id], node, reads, makes))
    maker = {blob: index for index, (*_, makes) in enumerate(steps) for blob in makes}
    waits = [{maker[blob] for blob in reads if blob in maker} for _, _, reads, _ in steps]
    order = topological_order(waits, [place for place, *_ in steps])
    return [steps[index][1] for index in order] if order is not None else None


def shape_of(param: Param) -> tuple[int, ...]:
    """Return the shape of a parameter; GraphError if it is unknown."""
    if param.shape is None:
        raise GraphError(f"the shape of parameter {quoted(param.name or param.id)} is not known")
    return param.shape
