"""Towers that share some parameters but not all: names misspelt or left out, and layers that stand apart."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import takewhile

from siamese_proto.check.place import Place, warning
from siamese_proto.errors import quoted
from siamese_proto.graph.ir import Finding, Graph, Node
from siamese_proto.graph.sizes import needs_unlike_bottoms, sizes_of
from siamese_proto.graph.towers import Row, Towers, compared_features, shared_blobs

Compared = Mapping[str, Sequence[Sequence[str]]]  # by blob id what is compared with the blob, itself included


def unshared_parameters(towers: Towers, users: Counter[str], unknown: Set[str], place: Place) -> Iterator[Finding]:
    """A finding for each parameter that a tower does not share although it looks meant to.

    `users` counts the uses of each parameter in the net; `unknown` holds ids of layers whose names are not known.
    """
    names = _Names(towers)
    apart = set(_rows_apart(towers, unknown))
    for row in towers.rows:
        known = tuple(node for node in row if node.params and node.id not in unknown)
        if row in apart or len(known) < 2:
            continue
        strangers = _strangers(known)
        yield from _unshared_layers(known, strangers, names, place)
        yield from _unshared_blobs(known, strangers, names, users, place)


def unshared_towers(compared: Compared, towers: Towers, unknown: Set[str]) -> Iterator[Finding]:
    """Towers built alike that share nothing and are compared with each other (`learned_comparisons`).

    Where nothing learns, both were given the same weights on purpose; where every layer names parameters, they were
    kept apart on purpose.
    """
    rows = [row for row in towers.rows if row[0].params]
    nodes = [node for row in rows for node in row]
    if not any(use.lr_mult for node in nodes for use in node.params) or any(node.id in unknown for node in nodes):
        return
    if any(shared for row in rows for shared in shared_blobs(row)) or all(_is_named(row) for row in rows):
        return
    if not _are_compared(compared, towers):
        return
    layers = f"{len(rows)} layers" if len(rows) > 1 else "1 layer"
    for node in rows[0][1:]:
        text = (
            f"the tower of {layers} that begins here is built like that of layer "
            f"{quoted(rows[0][0].name)}, but they share no parameters and will learn apart; give their layers the same "
            "param names"
        )
        yield warning(node, node.location, "unshared-towers", text)


def learned_comparisons(graph: Graph) -> Compared:
    """For each blob that a layer compares the ids of all that the layer compares; empty where no loss learns."""
    compared: defaultdict[str, list[Sequence[str]]] = defaultdict(list)
    if any(weight for node in graph.nodes for weight in node.loss_weights):
        for node in graph.nodes:
            ids = [blob.id for blob in compared_features(node)]
            for blob_id in ids:
                compared[blob_id].append(ids)
    return compared


def _are_compared(compared: Compared, towers: Towers) -> bool:
    """Whether a layer compares what the towers compute, and a loss learns from it."""
    tower_of = {top.id: index for row in towers.rows for index, node in enumerate(row) for top in node.tops}
    return any(
        tower_of.get(other, index) != index
        for blob_id, index in tower_of.items()
        for ids in compared.get(blob_id, ())
        for other in ids
    )


def _rows_apart(towers: Towers, unknown: Set[str]) -> Sequence[Row]:
    """The rows where half-shared towers part on purpose: the first or the last that learn.

    Their layers name parameters of their own. A single row might as well be misspelt, unless all its names are made of
    the names of their layers, or a layer at fault hides the others.
    """
    rows = [row for row in towers.rows if row[0].params]
    apart: list[Row] = []
    for side in (rows, rows[::-1]):
        run = list(takewhile(lambda row: _is_apart(row) or any(node.id in unknown for node in row), side))
        # the first of three towers is apart, or four share in pairs: that is no misspelt name
        in_groups = towers.count > 2 and all(_strangers(row) in ((), row[:1]) for row in run)
        while run and not (_is_named(run[-1]) or (in_groups and len(run) > 1)):
            run.pop()
        named = [row for row in run if _is_named(row)]
        enough = bool(run) if in_groups else len(named) > 1
        if len(run) < len(rows) and (enough or bool(unknown) or any(_is_named_by_layer(row) for row in named)):
            apart.extend(run)
    return apart


def _is_apart(row: Row) -> bool:
    """Whether the layers of a row fall into the same groups by each of their parameters, into two groups at least."""
    groups = {_groups(row, index) for index in range(max(len(node.params) for node in row))}
    return len(groups) == 1 and any(first for first in next(iter(groups)))


def _groups(row: Row, index: int) -> tuple[int, ...]:
    """For each layer of a row the place of the first one that uses the same tensor for a parameter."""
    first: dict[str, int] = {}
    used = [node.params[index].param.id if index < len(node.params) else "" for node in row]
    return tuple(first.setdefault(param, place) for place, param in enumerate(used))


def _is_named(row: Row) -> bool:
    """Whether every layer of a row names a parameter."""
    return all(any(use.param.name for use in node.params) for node in row)


def _is_named_by_layer(row: Row) -> bool:
    """Whether each layer of a row names its parameters after itself: `ip1_w` and `ip1_p_w` in `ip1` and `ip1_p`."""
    patterns = {tuple(use.param.name.replace(node.name, "*") for use in node.params) for node in row}
    return len(patterns) == 1 and all(name.startswith("*") for name in next(iter(patterns)) if name)


def _strangers(row: Row) -> Row:
    """Layers of a row that have no tensor in common with any other of it."""
    uses = Counter(id for node in row for id in {use.param.id for use in node.params})
    return tuple(node for node in row if node.params and all(uses[use.param.id] == 1 for use in node.params))


def _unshared_layers(row: Row, strangers: Row, names: _Names, place: Place) -> Iterator[Finding]:
    """Layers that share nothing with those at the same place of the other towers, although they could."""
    named = {node: None for node in row if _named_blobs(node)}
    alone = set(strangers)
    twin = next((node for node in row if node not in alone), next(iter(named), row[0]))
    for node in strangers:
        first_of_many = len(row) > 2 and node is row[0] and node in named  # the anchor of triplets is often apart
        if node is twin or first_of_many or not _could_share_all(node, twin):
            continue
        single = [_named_blobs(each) for each in (node, twin)]
        if [len(blobs) for blobs in single] == [1, 1] and single[0] == single[1]:
            yield _misspelt(node, twin, single[0][0], names, place)
            continue
        text = (
            f"stands where layer {quoted(twin.name)} stands in its tower, but shares no parameters with it, "
            "although other layers of these towers do; give both the same param names"
        )
        yield warning(node, node.location, "unshared-twin", text)


def _named_blobs(node: Node) -> list[int]:
    return [index for index, use in enumerate(node.params) if use.param.name]


def _could_share_all(node: Node, twin: Node) -> bool:
    return all(could_share(node, twin, index) for index in range(min(len(node.params), len(twin.params))))


def could_share(node: Node, twin: Node, index: int) -> bool:
    """Whether a parameter of two layers may be one tensor, by all that is known of its shape."""
    return not sizes_of(node, index).contradicts(sizes_of(twin, index))


def _unshared_blobs(row: Row, strangers: Row, names: _Names, users: Counter[str], place: Place) -> Iterator[Finding]:
    """Parameters that layers do not share, although they share others."""
    lacking: defaultdict[tuple[Node, Node], list[int]] = defaultdict(list)
    alone = set(strangers)
    sharing = [node for node in row if node not in alone]
    for index in range(max(len(node.params) for node in row)):
        having = [node for node in sharing if index < len(node.params)]
        yield from _without_blob(sharing, having, index, place)
        yield from _other_settings(having, index, place)
        if len({node.params[index].param.id for node in having}) < 2:
            continue
        twin = _reference(having, index, names)
        for node in having:
            use = node.params[index]
            if use.param.id == twin.params[index].param.id or not could_share(node, twin, index):
                continue
            if use.param.name and twin.params[index].param.name and users[use.param.id] == 1:
                yield _misspelt(node, twin, index, names, place)
            else:
                lacking[node, twin].append(index)
    for (node, twin), indices in lacking.items():
        yield _partly_shared(node, twin, indices, place)


def _without_blob(sharing: Sequence[Node], having: Sequence[Node], index: int, place: Place) -> Iterator[Finding]:
    """Layers that have no such parameter, because of `bias_term: false` for one."""
    for node in sharing:
        if having and index >= len(node.params):
            twin = having[0]
            text = (
                f"shares parameters with layer {quoted(twin.name)}, but has no {twin.params[index].role}, "
                "so the towers compute different functions"
            )
            yield warning(node, place(node, "param[0]"), "partly-shared", text)


def _other_settings(row: Sequence[Node], index: int, place: Place) -> Iterator[Finding]:
    """Layers whose settings fit one tensor only if their bottoms have different shapes, `group` for one."""
    for node in row[1:]:
        twin = row[0]
        if node.params[index].param.id == twin.params[index].param.id and needs_unlike_bottoms(node, twin, index):
            text = (
                f"shares its {node.params[index].role} with layer {quoted(twin.name)}, but has other settings: "
                "their bottoms would have to differ in shape"
            )
            yield warning(node, place(node, f"param[{index}]"), "unlike-towers", text)


def _reference(row: Sequence[Node], index: int, names: _Names) -> Node:
    """The layer whose tensor for a parameter is the right one: that of most, else the one named like the others."""
    count = Counter(node.params[index].param.id for node in row)
    return max(row, key=lambda node: (count[node.params[index].param.id], names.fit(row, node, index)))


def _misspelt(node: Node, twin: Node, index: int, names: _Names, place: Place) -> Finding:
    if names.fit((twin, node), node, index) > names.fit((twin, node), twin, index):
        node, twin = twin, node
    mine, its = (each.params[index].param.name for each in (node, twin))
    hint = f"; did you mean {quoted(its)}, as in layer {quoted(twin.name)}?"
    text = f"param name {quoted(mine)} is used by this layer only, so its {node.params[index].role} is not shared"
    return warning(node, place(node, f"param[{index}].name"), "shared-once", text + hint)


def _partly_shared(node: Node, twin: Node, indices: Sequence[int], place: Place) -> Finding:
    return warning(node, place(node, f"param[{indices[0]}]"), "partly-shared", partly_shared_text(node, twin, indices))


def partly_shared_text(node: Node, twin: Node, indices: Sequence[int]) -> str:
    """That a layer shares some parameters with another, but not those at `indices`."""
    parts = []
    for index in indices:
        mine, its = node.params[index], twin.params[index]
        part = mine.role
        if mine.param.name and its.param.name:
            part += f" ({quoted(mine.param.name)} here, {quoted(its.param.name)} there)"
        elif its.param.name:
            part += f" ({quoted(its.param.name)} there; give it this name here too)"
        parts.append(part)
    return f"shares parameters with layer {quoted(twin.name)}, but not its {' and '.join(parts)}"


class _Names:
    """How towers name the parameters that they share: to tell which of two names is the misspelt one."""

    def __init__(self, towers: Towers) -> None:
        self._known = {
            (index, pattern)
            for row in towers.rows
            for index, shared in enumerate(shared_blobs(row))
            if shared
            for pattern in _patterns(row, row[0].params[index].param.name)
        }

    def fit(self, row: Sequence[Node], node: Node, index: int) -> int:
        """How well the name of a parameter fits the names of others: 0 where it has none."""
        name = node.params[index].param.name
        return bool(name) + len({(index, pattern) for pattern in _patterns(row, name)} & self._known) if name else 0


def _patterns(row: Sequence[Node], name: str) -> set[str]:
    """A name with the name of its layer replaced, and with its numbers replaced: `*_w`, `conv#_w`."""
    by_layer = {name.replace(node.name, "*") for node in row if node.name and node.name in name}
    return by_layer | {re.sub(r"\d+", "#", name)} if name else set()
