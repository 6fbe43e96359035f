"""Sharing that is hardly meant: what Caffe accepts in silence and what makes a twin learn two functions."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence, Set
from itertools import takewhile

from siamese_proto.errors import did_you_mean, quoted
from siamese_proto.graph.ir import Filler, Finding, Graph, Node, ParamUse
from siamese_proto.graph.place import Place, warning
from siamese_proto.graph.twins import Row, Towers, shared_blobs
from siamese_proto.proto import schema

Users = dict[str, list[tuple[Node, int, ParamUse]]]


def near_misses(graph: Graph, towers: Sequence[Towers], place: Place) -> Iterator[Finding]:
    """A finding for each parameter or layer whose sharing looks unfinished."""
    users: Users = defaultdict(list)
    for node in graph.nodes:
        for index, use in enumerate(node.params):
            users[use.param.id].append((node, index, use))
    parted = {node.id for group in towers for row in _parted_rows(group, users) for node in row}
    yield from _names_used_once(graph, users, parted, place)
    yield from _partly_shared(graph, users, place)
    for group in towers:
        yield from _unshared_rows(group, parted) if group.shares_any else _unshared_towers(group)
    for shared in filter(None, users.values()):  # a parameter of a layer at fault has no users
        yield from _one_sided_multipliers(shared, place)
        yield from _other_fillers(shared, place)


def _parted_rows(towers: Towers, users: Users) -> Sequence[Row]:
    """The rows where a half-twin parts on purpose: the first or the last that learn, two at least, and each of their
    layers gives every parameter a name of its own. A single row might as well be a misspelt one."""
    rows = [row for row in towers.rows if row[0].params]
    own = [all(use.param.name and len(users[use.param.id]) == 1 for node in row for use in node.params) for row in rows]
    first, last = (len(list(takewhile(bool, side))) for side in (own, own[::-1]))
    if first == len(rows):
        return ()
    return (rows[:first] if first > 1 else []) + (rows[-last:] if last > 1 else [])


def _names_used_once(graph: Graph, users: Users, parted: Set[str], place: Place) -> Iterator[Finding]:
    """A name is given to share; where others are shared, one that only one layer uses is likely misspelt."""
    shared: defaultdict[str, list[str]] = defaultdict(list)  # by role: a bias is no weight misspelt
    for param in graph.params:
        if len(users[param.id]) > 1:
            shared[param.role].append(param.name)
    for param in graph.params:
        if shared and param.name and len(users[param.id]) == 1:
            node, index, use = users[param.id][0]
            if node.id in parted or _tied_otherwise(node, index, use, users):
                continue
            text = f"param name {quoted(param.name)} is used by this layer only, so its {param.role} is not shared"
            location = place(node, f"param[{index}].name")
            yield warning(node, location, "shared-once", text + did_you_mean(param.name, shared[param.role]))


def _tied_otherwise(node: Node, index: int, use: ParamUse, users: Users) -> bool:
    """Whether the layer shares another blob with layers that have no use for this one, as a tied autoencoder does."""
    partners = [
        other
        for own in node.params
        for other, _, _ in users[own.param.id]
        if other.id != node.id and index < len(other.params)
    ]
    return bool(partners) and not any(_could_share(use, partner.params[index]) for partner in partners)


def _could_share(mine: ParamUse, its: ParamUse) -> bool:
    return mine.shape is None or its.shape is None or math.prod(mine.shape) == math.prod(its.shape)


def _partly_shared(graph: Graph, users: Users, place: Place) -> Iterator[Finding]:
    """Layers that share some of their blobs but not all of them."""
    order = {node.id: index for index, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        # The owner alone stands for all that share: of a thousand users each pair would be too much to tell.
        owners = {users[use.param.id][0][0].id: users[use.param.id][0][0] for use in node.params}
        for twin in owners.values():
            if twin.type != node.type or order[twin.id] >= order[node.id]:
                continue
            own = [
                (index, mine.role + _told_apart(mine, its))
                # Their numbers of blobs may differ.
                for index, (mine, its) in enumerate(zip(node.params, twin.params, strict=False))
                if mine.param.id != its.param.id and _could_share(mine, its)
            ]
            if own:
                text = f"shares parameters with layer {quoted(twin.name)}, but not its " + " and ".join(
                    r for _, r in own
                )
                yield warning(node, place(node, f"param[{own[0][0]}]"), "partly-shared", text)


def _told_apart(mine: ParamUse, its: ParamUse) -> str:
    if mine.param.name and its.param.name:
        return f" ({quoted(mine.param.name)} here, {quoted(its.param.name)} there)"
    return ""


def _unshared_rows(towers: Towers, parted: Set[str]) -> Iterator[Finding]:
    """Layers of towers that share others, at the same place in each of them, that share nothing."""
    for row in towers.rows:
        for node, twin in _strangers(row):
            if node.id in parted:
                continue
            text = (
                f"stands where layer {quoted(twin.name)} stands in its tower, but shares no parameters with it, "
                "although other layers of these towers do; give both the same param names"
            )
            yield warning(node, node.location, "unshared-twin", text)


def _strangers(row: Row) -> Iterator[tuple[Node, Node]]:
    """Layers of a row that learn and have no tensor in common with any other, each with the row's first layer."""
    uses = Counter(id for node in row for id in {use.param.id for use in node.params})
    for node in row[1:]:
        if node.params and all(uses[use.param.id] == 1 for use in node.params):
            yield node, row[0]


def _unshared_towers(towers: Towers) -> Iterator[Finding]:
    """Towers built alike without one shared name. Where nothing learns, both were given the same weights on purpose."""
    rows = [row for row in towers.rows if row[0].params]
    if not rows or not any(use.lr_mult for row in rows for node in row for use in node.params):
        return
    if any(shared for row in rows for shared in shared_blobs(row)):
        return
    for node in rows[0][1:]:
        text = (
            f"the tower of {len(rows)} layers that begins here is built like that of layer "
            f"{quoted(rows[0][0].name)}, but they share no parameters and will learn apart; give their layers the same "
            "param names"
        )
        yield warning(node, node.location, "unshared-towers", text)


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
        # One that is left out says nothing, and neither does a layer that makes no shape of its own known.
        if filler is None or use.param.statistic or filler in (Filler(), use.param.filler):
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
