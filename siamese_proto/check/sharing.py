"""Warn about parameters that look shared by mistake, or not shared by mistake.

Caffe accepts all of these silently, and a twin then learns two functions. See docs/decisions/0016.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import takewhile

from siamese_proto.check.findings import LayerWarning
from siamese_proto.errors import did_you_mean, quoted
from siamese_proto.graph.ir import Filler, Graph, Node, ParamUse
from siamese_proto.graph.sizes import needs_unlike_bottoms, sizes_of
from siamese_proto.graph.towers import Row, Towers, compared_features, shared_blobs
from siamese_proto.proto import schema

Users = Mapping[str, Sequence[tuple[Node, int, ParamUse]]]  # by the id of a parameter, in file order
Compared = Mapping[str, Sequence[Sequence[str]]]  # by the id of a blob: the ids that it is compared with, and its own


def wrong_sharing(graph: Graph, towers: Sequence[Towers]) -> Iterator[LayerWarning]:
    """Yield a warning for each parameter or layer whose sharing looks unfinished."""
    users: defaultdict[str, list[tuple[Node, int, ParamUse]]] = defaultdict(list)
    for node in graph.nodes:
        for index, use in enumerate(node.params):
            users[use.param.id].append((node, index, use))
    unknown = _unknown_names(graph)
    yield from _partly_shared_outside_towers(graph, users, towers, unknown)
    compared = _learned_comparisons(graph)
    for group in towers:
        if group.shares_any:
            yield from _unshared_parameters(group, users, unknown)
        else:
            yield from _unshared_towers(compared, group, unknown)
    for shared in users.values():
        yield from _one_sided_multipliers(shared)
        yield from _ignored_fillers(shared)


def _unknown_names(graph: Graph) -> Set[str]:
    """Return the ids of layers whose parameter names are not certain: of unknown types, with errors, or with misspelt
    fields in their `param`."""

    def is_about_params(field: str) -> bool:
        head = field.partition(".")[0].partition("[")[0]
        return head == "param" or ("." not in field and bool(did_you_mean(head, ["param"])))

    misread = {problem.layer for problem in graph.problems if problem.field and is_about_params(problem.field)}
    return {node.id for node in graph.nodes if node.layer is None or node.name in misread}


def _partly_shared_outside_towers(
    graph: Graph, users: Users, towers: Sequence[Towers], unknown: Set[str]
) -> Iterator[LayerWarning]:
    """Layers outside of towers that share some of their parameters but not all of them."""
    order = graph.order
    skipped = {node.id for group in towers for row in group.rows for node in row} | unknown
    for node in graph.nodes:
        # Each layer is compared only with the owners of its parameters, because a thousand layers may share one.
        owners = {users[use.param.id][0][0].id: users[use.param.id][0][0] for use in node.params}
        for owner in owners.values():
            if owner.type != node.type or order[owner.id] >= order[node.id] or {node.id, owner.id} & skipped:
                continue
            pairs = enumerate(zip(node.params, owner.params, strict=False))  # their numbers may differ
            unshared = [i for i, (one, two) in pairs if one.param.id != two.param.id and _could_share(node, owner, i)]
            if unshared:
                yield _partly_shared(node, owner, unshared)


def _one_sided_multipliers(users: Sequence[tuple[Node, int, ParamUse]]) -> Iterator[LayerWarning]:
    """A multiplier that one user of a shared parameter has and another lacks."""
    specs = [
        (node, index, node.message.param[index] if index < len(node.message.param) else schema.ParamSpec())
        for node, index, use in users
        if not use.param.statistic
    ]
    for field in ("lr_mult", "decay_mult"):
        first = next(((node, spec) for node, _, spec in specs if spec.HasField(field)), None)
        if first is None or getattr(first[1], field) == 1:  # 1 is the default, written out
            continue
        other, other_spec = first
        for node, index, spec in specs:
            if not spec.HasField(field):
                text = (
                    f"has no {field} for param {quoted(other_spec.name)}, but layer {quoted(other.name)} has {field} "
                    f"{getattr(other_spec, field):g}; Caffe uses that value for both: write it here too"
                )
                yield LayerWarning(node, f"param[{index}]", "one-sided-multiplier", text)


def _ignored_fillers(users: Sequence[tuple[Node, int, ParamUse]]) -> Iterator[LayerWarning]:
    """The owner's filler fills a shared parameter; other fillers of later users have no effect."""
    owner = users[0][0]
    for node, index, use in users[1:]:
        roles = node.layer.params() if node.layer is not None else ()
        filler = roles[index].filler if index < len(roles) else None
        if filler is None or filler in (Filler(), use.param.filler):  # the default filler is probably not written
            continue
        if use.role != use.param.role or use.param.statistic:  # of another role: the names are swapped
            continue
        text = (
            f"the filler of the shared param {quoted(use.param.name)} ({_described(filler)}) has no effect: its owner, "
            f"layer {quoted(owner.name)}, fills it ({_described(use.param.filler)})"
        )
        path = f"{node.layer.reads[0]}.{use.role}_filler" if node.layer is not None and node.layer.reads else ""
        yield LayerWarning(node, path, "other-filler", text)


def _described(filler: Filler) -> str:
    """Return the type of a filler and its settings that are not the defaults."""
    default = Filler(filler.type)
    settings = []
    for name in ("value", "min", "max", "mean", "std", "sparse", "variance_norm"):
        value = getattr(filler, name)
        if value != getattr(default, name):
            settings.append(f"{name} {value if isinstance(value, str) else format(value, 'g')}")
    return " ".join([filler.type, *settings])


def _unshared_parameters(towers: Towers, users: Users, unknown: Set[str]) -> Iterator[LayerWarning]:
    """Parameters that a tower probably should share, but does not."""
    names = _Names(towers)
    separate = set(_separate_rows(towers, unknown))
    for row in towers.rows:
        certain = tuple(node for node in row if node.params and node.id not in unknown)
        if row not in separate and len(certain) > 1:
            alone = _alone(certain)
            yield from _unshared_layers(certain, alone, names)
            yield from _unshared_blobs([node for node in certain if node not in set(alone)], names, users)


def _unshared_towers(compared: Compared, towers: Towers, unknown: Set[str]) -> Iterator[LayerWarning]:
    """Towers of one structure that share nothing and are compared with each other (`_learned_comparisons`).

    If nothing learns, both have the same weights on purpose. If every layer names its parameters, they are separate on
    purpose.
    """
    rows = [row for row in towers.rows if row[0].params]
    nodes = [node for row in rows for node in row]
    learns = any(use.lr_mult for node in nodes for use in node.params)
    if not learns or any(node.id in unknown for node in nodes):
        return
    if any(any(shared_blobs(row)) for row in rows) or all(_is_named(row) for row in rows):
        return
    tower_of = {top.id: index for row in towers.rows for index, node in enumerate(row) for top in node.tops}
    are_compared = any(
        tower_of.get(other, index) != index
        for blob_id, index in tower_of.items()
        for ids in compared.get(blob_id, ())
        for other in ids
    )
    layers = f"{len(rows)} layers" if len(rows) > 1 else "1 layer"
    for node in rows[0][1:] if are_compared else ():
        text = (
            f"the tower of {layers} that starts here has the same structure as the tower of layer "
            f"{quoted(rows[0][0].name)}, but they share no parameters and will learn different weights; give their "
            "layers the same param names"
        )
        yield LayerWarning(node, "", "unshared-towers", text)


def _learned_comparisons(graph: Graph) -> Compared:
    """Return for each compared blob the ids of all blobs of the comparison; empty if no loss learns."""
    compared: defaultdict[str, list[Sequence[str]]] = defaultdict(list)
    if any(weight for node in graph.nodes for weight in node.loss_weights):
        for node in graph.nodes:
            ids = [blob.id for blob in compared_features(node)]
            for blob_id in ids:
                compared[blob_id].append(ids)
    return compared


def _separate_rows(towers: Towers, unknown: Set[str]) -> Sequence[Row]:
    """Return the first or last rows with parameters if half-shared towers have separate layers there on purpose.

    Their layers name different parameters. A single such row may be a misspelt name, unless all its names contain the
    names of their layers, or a layer with errors hides other rows.
    """
    rows = [row for row in towers.rows if row[0].params]
    separate: list[Row] = []
    for side in (rows, rows[::-1]):
        run = list(takewhile(lambda row: _is_separate(row) or any(node.id in unknown for node in row), side))
        # The first of three towers may be separate, or four may share in pairs: that is no misspelt name.
        in_groups = towers.count > 2 and all(_alone(row) in ((), row[:1]) for row in run)
        while run and not (_is_named(run[-1]) or (in_groups and len(run) > 1)):
            run.pop()
        named = [row for row in run if _is_named(row)]
        enough = bool(run) if in_groups else len(named) > 1
        if len(run) < len(rows) and (enough or bool(unknown) or any(_is_named_by_layer(row) for row in named)):
            separate.extend(run)
    return separate


def _is_separate(row: Row) -> bool:
    """Return whether all parameters group the layers of a row in the same way, into at least two groups."""

    def groups(index: int) -> tuple[int, ...]:
        first: dict[str, int] = {}
        params = [node.params[index].param.id if index < len(node.params) else "" for node in row]
        return tuple(first.setdefault(param, place) for place, param in enumerate(params))

    groupings = {groups(index) for index in range(max(len(node.params) for node in row))}
    return len(groupings) == 1 and any(next(iter(groupings)))


def _is_named(row: Row) -> bool:
    """Return whether every layer of a row names a parameter."""
    return all(_named_blobs(node) for node in row)


def _is_named_by_layer(row: Row) -> bool:
    """Return whether each layer names its parameters after itself: `ip1_w` and `ip1_p_w` in `ip1` and `ip1_p`."""
    patterns = {tuple(use.param.name.replace(node.name, "*") for use in node.params) for node in row}
    return len(patterns) == 1 and all(name.startswith("*") for name in next(iter(patterns)) if name)


def _alone(row: Row) -> Row:
    """Return the layers of a row that have no parameter in common with another layer of it."""
    uses = Counter(param for node in row for param in {use.param.id for use in node.params})
    return tuple(node for node in row if node.params and all(uses[use.param.id] == 1 for use in node.params))


def _unshared_layers(row: Row, alone: Row, names: _Names) -> Iterator[LayerWarning]:
    """Layers that share nothing with their counterparts in the other towers, although they could."""
    first_named = next((node for node in row if _named_blobs(node)), row[0])
    twin = next((node for node in row if node not in set(alone)), first_named)
    for node in alone:
        is_anchor = len(row) > 2 and node is row[0] and _is_named((node,))  # of triplets, which is often separate
        could_share_all = all(_could_share(node, twin, i) for i in range(min(len(node.params), len(twin.params))))
        if node is twin or is_anchor or not could_share_all:
            continue
        named, twin_named = _named_blobs(node), _named_blobs(twin)
        if len(named) == 1 and named == twin_named:
            yield _misspelt(node, twin, named[0], names)
            continue
        text = (
            f"is the counterpart of layer {quoted(twin.name)} in another tower, but shares no parameters with it, "
            "unlike other layers of these towers; give both the same param names"
        )
        yield LayerWarning(node, "", "unshared-twin", text)


def _named_blobs(node: Node) -> list[int]:
    return [index for index, use in enumerate(node.params) if use.param.name]


def _could_share(node: Node, twin: Node, index: int) -> bool:
    """Return whether a parameter of two layers may be one tensor, as far as its shapes are known."""
    return not sizes_of(node, index).contradicts(sizes_of(twin, index))


def _unshared_blobs(sharing: Sequence[Node], names: _Names, users: Users) -> Iterator[LayerWarning]:
    """Parameters that layers do not share, although they share others."""
    unshared: defaultdict[tuple[Node, Node], list[int]] = defaultdict(list)
    for index in range(max((len(node.params) for node in sharing), default=0)):
        having = [node for node in sharing if index < len(node.params)]
        yield from _unlike_blobs(sharing, having, index)
        count = Counter(node.params[index].param.id for node in having)
        if len(count) < 2:
            continue
        # The right tensor is that of most layers, else the one whose name is like the others.
        twin = max(having, key=lambda n: (count[n.params[index].param.id], names.fit(having, n, index)))
        for node in having:
            use = node.params[index]
            if use.param.id == twin.params[index].param.id or not _could_share(node, twin, index):
                continue
            if use.param.name and twin.params[index].param.name and len(users[use.param.id]) == 1:
                yield _misspelt(node, twin, index, names)
            else:
                unshared[node, twin].append(index)
    for (node, twin), indices in unshared.items():
        yield _partly_shared(node, twin, indices)


def _unlike_blobs(sharing: Sequence[Node], having: Sequence[Node], index: int) -> Iterator[LayerWarning]:
    """Layers that lack a parameter (`bias_term: false`), or whose settings need bottoms of other shapes (`group`)."""
    twin = having[0]
    for node in sharing:
        if node not in having:
            text = (
                f"shares parameters with layer {quoted(twin.name)}, but has no {twin.params[index].role}, "
                "so the towers compute different functions"
            )
            yield LayerWarning(node, "param[0]", "partly-shared", text)
    for node in having[1:]:
        use = node.params[index]
        if use.param.id == twin.params[index].param.id and needs_unlike_bottoms(node, twin, index):
            text = (
                f"shares its {use.role} with layer {quoted(twin.name)}, but their settings differ: one shape of the "
                f"{use.role} needs bottoms of different shapes"
            )
            yield LayerWarning(node, f"param[{index}]", "unlike-towers", text)


def _misspelt(node: Node, twin: Node, index: int, names: _Names) -> LayerWarning:
    if names.fit((twin, node), node, index) > names.fit((twin, node), twin, index):
        node, twin = twin, node
    name, twin_name = (each.params[index].param.name for each in (node, twin))
    hint = f"; did you mean {quoted(twin_name)}, as in layer {quoted(twin.name)}?"
    text = f"param name {quoted(name)} is used by this layer only, so its {node.params[index].role} is not shared"
    return LayerWarning(node, f"param[{index}].name", "shared-once", text + hint)


def _partly_shared(node: Node, twin: Node, indices: Sequence[int]) -> LayerWarning:
    parts = []
    for index in indices:
        use = node.params[index]
        name, twin_name = quoted(use.param.name), quoted(twin.params[index].param.name)
        part = use.role
        if use.param.name and twin.params[index].param.name:
            part += f" ({name} here, {twin_name} there)"
        elif twin.params[index].param.name:
            part += f" ({twin_name} there; give it this name here too)"
        parts.append(part)
    text = f"shares parameters with layer {quoted(twin.name)}, but not its {' and '.join(parts)}"
    return LayerWarning(node, f"param[{indices[0]}]", "partly-shared", text)


class _Names:
    """How towers name the parameters that they share, to find out which of two names is misspelt."""

    def __init__(self, towers: Towers) -> None:
        self._patterns = {
            (index, pattern)
            for row in towers.rows
            for index, shared in enumerate(shared_blobs(row))
            if shared
            for pattern in _patterns(row, row[0].params[index].param.name)
        }

    def fit(self, row: Sequence[Node], node: Node, index: int) -> int:
        """Return how well the name of a parameter fits the other names; 0 without a name."""
        name = node.params[index].param.name
        return bool(name) + len({(index, pattern) for pattern in _patterns(row, name)} & self._patterns)


def _patterns(row: Sequence[Node], name: str) -> set[str]:
    """Return a name with the name of its layer replaced, and with its numbers replaced: `*_w`, `conv#_w`."""
    by_layer = {name.replace(node.name, "*") for node in row if node.name and node.name in name}
    return by_layer | {re.sub(r"\d+", "#", name)} if name else set()
