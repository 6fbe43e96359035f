"""Which array of a weights file goes into which parameter of a net (net.cpp: CopyTrainedLayersFrom)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from siamese_proto.errors import WeightsError, did_you_mean, quoted
from siamese_proto.graph.ir import Graph, Node, ParamUse, Shape
from siamese_proto.weights.blobs import Array
from siamese_proto.weights.files import problem
from siamese_proto.weights.stored import StoredLayer, StoredWeights

_CHUNK = 1 << 20  # numbers compared at a time
_HINT = "to fine-tune, rename the layer in the net, or skip it with --skip-mismatched (skip_mismatched=True)"


class _DiffersError(Exception):
    """The blobs of a layer are others in the file than in the net."""


@dataclass(frozen=True)
class WrittenTwice:
    """A parameter that several layers of the file have values for; the last one's are taken."""

    param: str
    layers: tuple[str, ...]
    difference: float  # the largest between any of them and the one before it; 0: they agree


@dataclass(frozen=True)
class Mismatch:
    """A layer that file and net have with different blobs; `text` says what differs."""

    layer: str
    text: str


@dataclass(frozen=True)
class LoadReport:
    """What became of the layers of a weights file; `str()` is a text of a few lines."""

    file: str
    loaded: tuple[str, ...]  # layers of the net that were given parameters
    missing: tuple[str, ...]  # layers of the net with parameters that the file has not
    ignored: tuple[str, ...]  # layers of the file with parameters that the net has not
    twice: tuple[WrittenTwice, ...]
    repeated: tuple[str, ...] = ()  # names of several layers of the net, each of which was given its own entry
    mismatched: tuple[Mismatch, ...] = ()  # layers of other shapes, which were skipped

    def __str__(self) -> str:
        lines = [f"{self.file}: {_counted(len(self.loaded), 'layer')} loaded"]
        if self.missing:
            lines.append(f"  not in the file, left as they were: {_listed(self.missing)}")
        if self.ignored:
            lines.append(f"  not in the net, ignored: {_listed(self.ignored)}")
        for mismatch in self.mismatched:
            lines.append(f"  skipped, left as it was: layer {quoted(mismatch.layer)}: {mismatch.text}")
        for name in self.repeated:
            lines.append(
                f"  layers named {quoted(name)}: each was given its own entry of the file, in order; Caffe loads all "
                "entries into the first of them"
            )
        agreed = [written for written in self.twice if not written.difference]
        if agreed:
            lines.append(f"  {_counted(len(agreed), 'shared parameter')} stored more than once, all copies equal")
        for written in self.twice:
            if written.difference:
                lines.append(
                    f"  {written.param}: the copies differ by up to {written.difference:.3g}; "
                    f"that of {quoted(written.layers[-1])} was taken, not that of {_listed(written.layers[:-1])}"
                )
        return "\n".join(lines)


def match_weights(
    graph: Graph, stored: StoredWeights, *, skip_mismatched: bool = False
) -> tuple[dict[str, Array], LoadReport]:
    """Values by `Param.id`, each in the parameter's shape, and what became of the file's layers.

    Layers match by name, in the file's order, and the last value for a shared parameter counts. Where file and net have
    a name equally often, the first goes to the first, and so on; else all go to the first, as in Caffe. The arrays may
    be views of the mapped file: copy them, do not change them. Raises WeightsError where the number of blobs or a shape
    differs, unless `skip_mismatched` leaves such layers as they are, and where the file has nothing for this net.
    """
    values: dict[str, Array] = {}
    writers: dict[str, list[str]] = defaultdict(list)
    differences: dict[str, float] = {}
    loaded: dict[str, str] = {}
    ignored: list[str] = []
    mismatched: dict[str, Mismatch] = {}
    for layer, node in _pairs(graph, stored):
        if node is None:
            ignored.extend([layer.name] if layer.blobs else [])
            continue
        try:
            blobs = list(_checked(stored, layer, node, graph))
        except _DiffersError as difference:
            if not skip_mismatched:
                raise problem(stored.file, f"{difference}; {_HINT}", layer=layer.name) from None
            mismatched[node.id] = Mismatch(layer.name, str(difference))
            continue
        for use, blob in blobs:
            param = use.param.id
            if param in values:
                distance = _distance(values[param], blob)
                differences[param] = max(differences.get(param, 0.0), distance)
            values[param] = blob
            writers[param].append(layer.name)
            loaded[node.id] = node.name
    needy = [node for node in graph.nodes if node.params]
    if needy and not loaded:
        raise _nothing_matches(graph, stored, tuple(mismatched.values()))
    # What a node shares is loaded with the node that owns it.
    missing = tuple(
        node.name
        for node in needy
        if node.id not in loaded | mismatched and any(use.param.id not in values for use in node.params)
    )
    twice = tuple(
        WrittenTwice(_label(use), tuple(writers[param]), differences[param])
        for param, use in {use.param.id: use for node in graph.nodes for use in node.params}.items()
        if param in differences
    )
    repeated = tuple(name for name, count in Counter(loaded.values()).items() if count > 1 and _apart(graph, name))
    skipped = tuple(mismatched.values())
    return values, LoadReport(stored.file, tuple(loaded.values()), missing, tuple(ignored), twice, repeated, skipped)


def _apart(graph: Graph, name: str) -> bool:
    """Whether layers of this name have parameters of their own."""
    first, *others = ({use.param.id for use in node.params} for node in graph.nodes if node.name == name)
    return any(not own <= first for own in others)


def _pairs(graph: Graph, stored: StoredWeights) -> Iterator[tuple[StoredLayer, Node | None]]:
    """Every layer of the file with the node it belongs to."""
    nodes: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        nodes[node.name].append(node)
    counts = Counter(layer.name for layer in stored.layers)
    seen: Counter[str] = Counter()
    for layer in stored.layers:
        named = nodes.get(layer.name)
        if named is None:
            yield layer, None
            continue
        yield layer, named[seen[layer.name] if len(named) == counts[layer.name] else 0]
        seen[layer.name] += 1


def _checked(stored: StoredWeights, layer: StoredLayer, node: Node, graph: Graph) -> Iterator[tuple[ParamUse, Array]]:
    """The blobs of a layer with the uses they go to, each in the shape of the parameter."""
    blobs: Sequence[Array | None] = layer.blobs
    if stored.owners_only and len(blobs) < len(node.params):
        blobs = [*blobs, *[None] * (len(node.params) - len(blobs))]
    if len(blobs) != len(node.params):
        count = _counted(len(layer.blobs), "blob")
        raise _DiffersError(f"{count} in the file, but {len(node.params)} in the net {_net(graph)}")
    for index, (use, blob) in enumerate(zip(node.params, blobs, strict=True)):
        if blob is None:
            if use.is_owner:
                raise problem(
                    stored.file,
                    f"blob {index} ({use.role}) is not in the file, and in the net {_net(graph)} no other layer owns "
                    "it; a .caffemodel holds the blobs of all layers",
                    layer=layer.name,
                )
            continue
        if use.shape is not None and not _same_shape(blob.shape, use.shape):
            what = f"blob {index} ({use.role})"
            raise _DiffersError(f"{what} has shape {blob.shape} in the file, but {use.shape} in the net {_net(graph)}")
        shape = use.param.shape if use.param.shape is not None else use.shape
        yield use, blob if shape is None else blob.reshape(shape)


def _same_shape(stored: Shape, wanted: Shape) -> bool:
    """Whether they are equal; old files have four axes, of which the first may be ones (blob.cpp: ShapeEquals)."""
    if len(stored) == 4 and len(wanted) < 4:
        return stored == (1,) * (4 - len(wanted)) + wanted
    return stored == wanted


def _distance(one: Array, other: Array) -> float:
    """The largest difference between two arrays of one size, NaN being equal to NaN alone; in small pieces."""
    one, other = one.reshape(-1), other.reshape(-1)
    largest = 0.0
    for start in range(0, one.size, _CHUNK):
        left, right = one[start : start + _CHUNK], other[start : start + _CHUNK]
        if not np.array_equal(left, right, equal_nan=True):
            with np.errstate(invalid="ignore"):  # infinity less infinity
                gaps = np.abs(left.astype(np.float64) - right)
            gaps[left == right] = 0.0
            gaps[np.isnan(left) & np.isnan(right)] = 0.0
            largest = max(largest, float(np.where(np.isnan(gaps), np.inf, gaps).max()))
    return largest


def _nothing_matches(graph: Graph, stored: StoredWeights, mismatched: Sequence[Mismatch]) -> WeightsError:
    if mismatched:
        return problem(stored.file, f"no layer is left to load: {mismatched[0].text}", layer=mismatched[0].layer)
    wanted = [node.name for node in graph.nodes if node.params]
    there = [layer.name for layer in stored.layers if layer.blobs]
    if not there:
        return problem(stored.file, "none of its layers holds parameters")
    hints = (did_you_mean(name, wanted) for name in there)
    return problem(
        stored.file,
        f"belongs to another net: its layers {_listed(there)} are not in {_net(graph)}, whose layers with parameters "
        f"are {_listed(wanted)}{next(filter(None, hints), '')}",
    )


def _net(graph: Graph) -> str:
    return quoted(graph.name or graph.file)


def _label(use: ParamUse) -> str:
    return use.param.name or use.param.id


def _listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(quoted(name) for name in names[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"
