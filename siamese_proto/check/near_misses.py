"""Sharing that is hardly meant: what Caffe accepts in silence and what makes a twin learn two functions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence, Set

from siamese_proto.check.faults import of_unknown_sharing
from siamese_proto.check.place import Place, warning
from siamese_proto.check.sharing import (
    could_share,
    learned_comparisons,
    partly_shared_text,
    unshared_parameters,
    unshared_towers,
)
from siamese_proto.errors import quoted
from siamese_proto.graph.ir import Filler, Finding, Graph, Node, ParamUse
from siamese_proto.graph.towers import Towers
from siamese_proto.proto import schema

Users = dict[str, list[tuple[Node, int, ParamUse]]]


def near_misses(graph: Graph, towers: Sequence[Towers], place: Place) -> Iterator[Finding]:
    """A finding for each parameter or layer whose sharing looks unfinished."""
    users: Users = defaultdict(list)
    for node in graph.nodes:
        for index, use in enumerate(node.params):
            users[use.param.id].append((node, index, use))
    unknown = of_unknown_sharing(graph)
    yield from _partly_shared(graph, users, towers, unknown, place)
    counts = Counter({param: len(uses) for param, uses in users.items()})
    compared = learned_comparisons(graph)
    for group in towers:
        if group.shares_any:
            yield from unshared_parameters(group, counts, unknown, place)
        else:
            yield from unshared_towers(compared, group, unknown)
    for shared in users.values():
        yield from _one_sided_multipliers(shared, place)
        yield from _other_fillers(shared, place)


def _partly_shared(
    graph: Graph, users: Users, towers: Sequence[Towers], unknown: Set[str], place: Place
) -> Iterator[Finding]:
    """Layers outside of towers that share some of their parameters but not all of them."""
    order = {node.id: index for index, node in enumerate(graph.nodes)}
    inside = {node.id for group in towers for row in group.rows for node in row} | unknown
    for node in graph.nodes:
        # The owner alone stands for all that share: of a thousand users each pair would be too much to tell.
        owners = {users[use.param.id][0][0].id: users[use.param.id][0][0] for use in node.params}
        for twin in owners.values():
            if twin.type != node.type or order[twin.id] >= order[node.id] or {node.id, twin.id} & inside:
                continue
            own = [
                index
                # Their numbers of parameters may differ.
                for index, (mine, its) in enumerate(zip(node.params, twin.params, strict=False))
                if mine.param.id != its.param.id and could_share(node, twin, index)
            ]
            if own:
                text = partly_shared_text(node, twin, own)
                yield warning(node, place(node, f"param[{own[0]}]"), "partly-shared", text)


def _one_sided_multipliers(users: Sequence[tuple[Node, int, ParamUse]], place: Place) -> Iterator[Finding]:
    """A multiplier that one user of a shared parameter states and another leaves out."""
    specs = [(node, index, _spec(node, index)) for node, index, use in users if not use.param.statistic]
    for field in ("lr_mult", "decay_mult"):
        given = [(node, index, spec) for node, index, spec in specs if spec.HasField(field)]
        without = [(node, index) for node, index, spec in specs if not spec.HasField(field)]
        if not given or not without:
            continue
        stated, _, spec = given[0]
        value = getattr(spec, field)
        if value == 1:
            continue  # the default, written out
        for node, index in without:
            text = (
                f"has no {field} for param {quoted(spec.name)}, which has {field} {value:g} in layer "
                f"{quoted(stated.name)}; Caffe takes that for both: write it here too"
            )
            yield warning(node, place(node, f"param[{index}]"), "one-sided-multiplier", text)


def _spec(node: Node, index: int) -> schema.ParamSpec:
    return node.message.param[index] if index < len(node.message.param) else schema.ParamSpec()


def _other_fillers(users: Sequence[tuple[Node, int, ParamUse]], place: Place) -> Iterator[Finding]:
    """Only the owner's filler fills a shared parameter; another one written by a later user does nothing."""
    owner = users[0][0]
    for node, index, use in users[1:]:
        filler = _filler(node, index)
        # One that is left out says nothing, and one of another role belongs to another parameter: names are swapped.
        if (
            filler is None
            or use.role != use.param.role
            or use.param.statistic
            or filler in (Filler(), use.param.filler)
        ):
            continue
        text = (
            f"param {quoted(use.param.name)} is filled as its owner, layer {quoted(owner.name)}, says "
            f"({described(use.param.filler)}); the filler written here ({described(filler)}) has no effect"
        )
        path = f"{node.layer.reads[0]}.{use.role}_filler" if node.layer is not None and node.layer.reads else ""
        yield warning(node, place(node, path), "other-filler", text)


def _filler(node: Node, index: int) -> Filler | None:
    roles = node.layer.params() if node.layer is not None else ()
    return roles[index].filler if index < len(roles) else None


def described(filler: Filler) -> str:
    """A filler in few words: its type and what of it is not the default."""
    default = Filler(filler.type)
    told = []
    for name in ("value", "min", "max", "mean", "std", "sparse", "variance_norm"):
        value = getattr(filler, name)
        if value != getattr(default, name):
            told.append(f"{name} {value if isinstance(value, str) else format(value, 'g')}")
    return " ".join([filler.type, *told])
