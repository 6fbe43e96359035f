"""The graphs of both phases as one, for drawing only."""

from __future__ import annotations

from dataclasses import replace

from siamese_proto.graph.ir import Graph, Node


def both_phases(train: Graph, test: Graph) -> Graph:
    """The layers of both phases in one, for drawing only: here a blob may have a maker in each phase."""

    def written(node: Node) -> tuple[object, ...]:
        return (node.location, node.name, node.type, tuple(top.name for top in node.tops))

    known, ids = {written(node) for node in train.nodes}, {node.id for node in train.nodes}
    extra = []
    for node in test.nodes:
        if written(node) not in known:
            fresh = node.id
            while fresh in ids:
                fresh += "_test"
            ids.add(fresh)
            extra.append(replace(node, id=fresh))
    owned = {param.id for param in train.params}
    read = {bottom.name for node in (*train.nodes, *extra) for bottom in node.bottoms}
    made_in_train = {top.name for node in train.nodes for top in node.tops}
    outputs = [blob for blob in test.outputs if blob.name not in made_in_train | read]
    return replace(
        train,
        nodes=tuple(sorted((*train.nodes, *extra), key=lambda node: (node.location.line, node.location.column))),
        params=(*train.params, *(param for param in test.params if param.id not in owned)),
        outputs=(*(blob for blob in train.outputs if blob.name not in read), *outputs),
    )
