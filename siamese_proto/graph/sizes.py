"""Shapes of parameters as far as the settings of a layer determine them, for nets whose database is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from siamese_proto.graph.ir import LayerLike, Node, Shape

# Shapes of bottoms to try. No two have the same size on any axis, so a size that is equal for all comes from the
# settings. The channels are divisible by the usual numbers of groups.
_TRIED = tuple(shape[:rank] for rank in (3, 4, 5) for shape in ((2, 960, 7, 11, 13), (3, 1920, 17, 19, 23)))


@dataclass(frozen=True)
class Sizes:
    """A partly known shape: None for a size that depends on the bottoms."""

    axes: tuple[int | None, ...]
    is_whole: bool = True  # no further axis follows

    def __str__(self) -> str:
        axes = ["?" if size is None else str(size) for size in self.axes] + ["..."] * (not self.is_whole)
        return f"({', '.join(axes)}{',' * (len(axes) == 1)})"

    @property
    def number(self) -> int | None:
        """The number of values, if all sizes are known."""
        sizes = [size for size in self.axes if size is not None]
        return math.prod(sizes) if self.is_whole and len(sizes) == len(self.axes) else None

    def contradicts(self, other: Sizes) -> bool:
        """Return whether no shape fits both."""
        if any(None not in pair and pair[0] != pair[1] for pair in zip(self.axes, other.axes, strict=False)):
            return True
        shorter, longer = sorted((self, other), key=lambda sizes: len(sizes.axes))
        return len(shorter.axes) < len(longer.axes) and shorter.is_whole


UNKNOWN = Sizes((), is_whole=False)


def sizes_by_settings(layer: LayerLike, bottoms: int) -> Sequence[Sizes]:
    """Return the sizes of each parameter of a layer with this many bottoms of unknown shapes."""
    count = len(layer.params())
    tried = [_tried(layer, [shape] * bottoms) for shape in _TRIED] if count else []
    complete = [shapes for shapes, _ in tried if len(shapes) == count and None not in shapes]
    fitting = [shapes for shapes, fits in tried if fits and shapes in complete]
    return [_in_common([shapes[index] for shapes in fitting or complete]) for index in range(count)]


def needs_unlike_bottoms(node: Node, other: Node, index: int) -> bool:
    """Return whether two layers can share a parameter of unknown shape only if their bottoms differ in shape."""
    if node.params[index].shape is not None:
        return False
    counts = zip(_counts(node, index), _counts(other, index), strict=True)
    pairs = [(mine, its) for mine, its in counts if mine is not None and its is not None]
    return bool(pairs) and all(mine != its for mine, its in pairs)


def _counts(node: Node, index: int) -> list[int | None]:
    """Return the number of values of a parameter for each of the shapes to try."""
    layer, bottoms = node.layer, len(node.bottoms)
    tried = [_tried(layer, [shape] * bottoms)[0] if layer is not None else () for shape in _TRIED]
    shapes = [shapes[index] if index < len(shapes) else None for shapes in tried]
    return [math.prod(shape) if shape is not None else None for shape in shapes]


def _tried(layer: LayerLike, bottoms: Sequence[Shape]) -> tuple[Sequence[Shape | None], bool]:
    """Return the shapes of the parameters for these bottoms, empty if they do not fit, and whether the tops fit."""
    shapes: Sequence[Shape | None] = ()
    try:
        shapes = layer.param_shapes(bottoms)
        if None not in shapes:  # unknown until a Python layer is set up, which top_shapes would do
            layer.top_shapes(bottoms)
    except Exception:  # shapes to try may not fit a layer, and custom layers may raise anything
        return shapes, False
    return shapes, True


def sizes_of(node: Node, index: int) -> Sizes:
    """Return the sizes of one parameter of a layer."""
    shape = node.params[index].shape
    if shape is not None:
        return Sizes(shape)
    sizes = sizes_by_settings(node.layer, len(node.bottoms)) if node.layer is not None else ()
    return sizes[index] if index < len(sizes) else UNKNOWN


def _in_common(shapes: Sequence[Shape | None]) -> Sizes:
    complete = [shape for shape in shapes if shape is not None]
    if not complete:
        return UNKNOWN
    axes = tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*complete, strict=False))
    return Sizes(axes, is_whole=len({len(shape) for shape in complete}) == 1)
