"""Which array of a weights file goes to which parameter of a net (net.cpp: CopyTrainedLayersFrom)."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from siamese_proto.errors import WeightsError, did_you_mean, quoted
from siamese_proto.graph.ir import Graph, Node, ParamUse, Shape
from siamese_proto.weights.blobs import Array
from siamese_proto.weights.files import weights_error
from siamese_proto.weights.stored import StoredLayer, StoredWeights

_CHUNK = 1 << 20  # numbers compared at a time
_HINT = "to fine-tune, rename the layer in the net, or skip it with --skip-mismatched (skip_mismatched=True)"


class _DiffersError(Exception):
    """The blobs of a layer differ between the file and the net."""


@dataclass(frozen=True)
class WrittenTwice:
    """A parameter that several layers of the file have values for; the last one's are used."""

    param: str
    layers: tuple[str, ...]
    difference: float  # the largest between any of them and the previous one; 0: they are equal


@dataclass(frozen=True)
class Mismatch:
    """A layer whose blobs differ between file and net; `text` describes the difference."""

    layer: str
    text: str


@dataclass(frozen=True)
class LoadReport:
    """The result of loading a weights file; `str()` is a text of a few lines."""

    file: str
    loaded: tuple[str, ...]  # layers of the net whose parameters were loaded
    missing: tuple[str, ...]  # layers of the net with parameters that the file does not have
    ignored: tuple[str, ...]  # layers of the file with parameters that the net does not have
    twice: tuple[WrittenTwice, ...]
    repeated: tuple[str, ...] = ()  # names of several layers of the net, each of which got its own entry
    mismatched: tuple[Mismatch, ...] = ()  # layers of other shapes, which were skipped

    def __str__(self) -> str:
        lines = [f"{self.file}: {_counted(len(self.loaded), 'layer')} loaded"]
        if self.missing:
            lines.append(f"  not in the file, unchanged: {_listed(self.missing)}")
        if self.ignored:
            lines.append(f"  not in the net, ignored: {_listed(self.ignored)}")
        for mismatch in self.mismatched:
            lines.append(f"  skipped, unchanged: layer {quoted(mismatch.layer)}: {mismatch.text}")
        for name in self.repeated:
            lines.append(
                f"  layers named {quoted(name)}: each got its own entry of the file, in order; Caffe loads all entries "
                "into the first of them"
            )
        equal = [written for written in self.twice if not written.difference]
        if equal:
            lines.append(f"  {_counted(len(equal), 'shared parameter')} stored more than once, all copies equal")
        for written in self.twice:
            if written.difference:
                lines.append(
                    f"  {written.param}: the copies differ by up to {written.difference:.3g}; "
                    f"that of {quoted(written.layers[-1])} was used, not that of {_listed(written.layers[:-1])}"
                )
        return "\n".join(lines)


def match_weights(
    graph: Graph, stored: StoredWeights, *, skip_mismatched: bool = False
) -> tuple[dict[str, Array], LoadReport]:
    """Match the layers of a weights file with those of a net.

    Layers match by name, in the file's order, and the last value for a shared parameter is used. If file and net have a
    name equally often, the first matches the first, and so on; else all match the first, as in Caffe.

    Args:
        graph: The net.
        stored: The content of the file.
        skip_mismatched: Leave out layers whose number of blobs or shapes differ.

    Returns:
        Values by `Param.id`, each in the parameter's shape, and a report. The arrays may be views of the mapped file:
        copy them, do not change them.

    Raises:
        WeightsError: The number of blobs or a shape differs, or the file has nothing for this net.
    """
    copies: dict[str, list[tuple[str, Array]]] = defaultdict(list)  # the values of each parameter, with their layers
    loaded: dict[str, str] = {}
    ignored: list[str] = []
    mismatched: dict[str, Mismatch] = {}
    for layer, node in _pairs(graph, stored):
        if node is None:
            ignored.extend([layer.name] if layer.blobs else [])
            continue
        try:
            blobs = list(_matching_blobs(stored, layer, node, graph))
        except _DiffersError as difference:
            if not skip_mismatched:
                raise weights_error(stored.file, f"{difference}; {_HINT}", layer=layer.name) from None
            mismatched[node.id] = Mismatch(layer.name, str(difference))
            continue
        for use, blob in blobs:
            copies[use.param.id].append((layer.name, blob))
            loaded[node.id] = node.name
    skipped = tuple(mismatched.values())
    if not loaded and any(node.params for node in graph.nodes):
        raise _nothing_matches(graph, stored, skipped)
    values = {param: arrays[-1][1] for param, arrays in copies.items()}
    # Shared parameters are loaded with the node that owns them.
    missing = tuple(
        node.name
        for node in graph.nodes
        if node.id not in loaded | mismatched and any(use.param.id not in values for use in node.params)
    )
    names = Counter(loaded.values())
    repeated = tuple(name for name, count in names.items() if count > 1 and _are_distinct(graph, name))
    twice = _stored_twice(graph, copies)
    return values, LoadReport(stored.file, tuple(loaded.values()), missing, tuple(ignored), twice, repeated, skipped)


def _stored_twice(graph: Graph, copies: Mapping[str, Sequence[tuple[str, Array]]]) -> tuple[WrittenTwice, ...]:
    twice = []
    for param in {use.param.id: use.param for node in graph.nodes for use in node.params}.values():
        arrays = copies.get(param.id, ())
        if len(arrays) > 1:
            difference = max(_distance(one, other) for (_, one), (_, other) in itertools.pairwise(arrays))
            twice.append(WrittenTwice(param.name or param.id, tuple(layer for layer, _ in arrays), difference))
    return tuple(twice)


def _are_distinct(graph: Graph, name: str) -> bool:
    """Whether layers of this name have different parameters."""
    first, *others = ({use.param.id for use in node.params} for node in graph.nodes if node.name == name)
    return any(not params <= first for params in others)


def _pairs(graph: Graph, stored: StoredWeights) -> Iterator[tuple[StoredLayer, Node | None]]:
    """Every layer of the file with its node."""
    nodes: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        nodes[node.name].append(node)
    counts = Counter(layer.name for layer in stored.layers)
    positions: Counter[str] = Counter()
    for layer in stored.layers:
        named = nodes.get(layer.name)
        if named is None:
            yield layer, None
            continue
        yield layer, named[positions[layer.name] if len(named) == counts[layer.name] else 0]
        positions[layer.name] += 1


def _matching_blobs(
    stored: StoredWeights, layer: StoredLayer, node: Node, graph: Graph
) -> Iterator[tuple[ParamUse, Array]]:
    """The blobs of a layer with the uses they belong to, each in the shape of the parameter."""
    net = quoted(graph.name or graph.file)
    blobs: Sequence[Array | None] = layer.blobs
    if stored.owners_only and len(blobs) < len(node.params):
        blobs = [*blobs, *[None] * (len(node.params) - len(blobs))]
    if len(blobs) != len(node.params):
        count = _counted(len(layer.blobs), "blob")
        raise _DiffersError(f"{count} in the file, but {len(node.params)} in the net {net}")
    for index, (use, blob) in enumerate(zip(node.params, blobs, strict=True)):
        name = f"blob {index} ({use.role})"
        if blob is None:
            if use.is_owner:
                text = f"{name} is not in the file, and in the net {net} no other layer owns it"
                hint = "a .caffemodel holds the blobs of all layers"
                raise weights_error(stored.file, f"{text}; {hint}", layer=layer.name)
            continue
        if use.shape is not None and not _same_shape(blob.shape, use.shape):
            raise _DiffersError(f"{name} has shape {blob.shape} in the file, but {use.shape} in the net {net}")
        shape = use.param.shape if use.param.shape is not None else use.shape
        yield use, blob if shape is None else blob.reshape(shape)


def _same_shape(stored: Shape, expected: Shape) -> bool:
    """Whether they are equal; in old files, shapes have four axes and begin with ones (blob.cpp: ShapeEquals)."""
    if len(stored) == 4 and len(expected) < 4:
        return stored == (1,) * (4 - len(expected)) + expected
    return stored == expected


def _distance(one: Array, other: Array) -> float:
    """The largest difference between two arrays of one size, computed in parts; NaN equals only NaN."""
    one, other = one.reshape(-1), other.reshape(-1)
    largest = 0.0
    for start in range(0, one.size, _CHUNK):
        left, right = one[start : start + _CHUNK], other[start : start + _CHUNK]
        if not np.array_equal(left, right, equal_nan=True):
            with np.errstate(invalid="ignore"):  # infinity minus infinity
                gaps = np.abs(left.astype(np.float64) - right)
            gaps[left == right] = 0.0
            gaps[np.isnan(left) & np.isnan(right)] = 0.0
            largest = max(largest, float(np.where(np.isnan(gaps), np.inf, gaps).max()))
    return largest


def _nothing_matches(graph: Graph, stored: StoredWeights, mismatched: Sequence[Mismatch]) -> WeightsError:
    if mismatched:
        text = f"no layer matches: {mismatched[0].text}"
        return weights_error(stored.file, text, layer=mismatched[0].layer)
    expected = [node.name for node in graph.nodes if node.params]
    names = [layer.name for layer in stored.layers if layer.blobs]
    if not names:
        return weights_error(stored.file, "none of its layers has parameters")
    hints = (did_you_mean(name, expected) for name in names)
    return weights_error(
        stored.file,
        f"belongs to another net: its layers {_listed(names)} are not in {quoted(graph.name or graph.file)}, whose "
        f"layers with parameters are {_listed(expected)}{next(filter(None, hints), '')}",
    )


def _listed(names: Sequence[str]) -> str:
    """The first names, and the number of others."""
    shown = ", ".join(quoted(name) for name in names[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
