"""What the settings of a layer alone say about the shapes of its parameters, for nets whose database is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from siamese_proto.graph.ir import LayerLike, Node, Shape

# Shapes of bottoms to try: no two have the same size on any axis, so that a size which is equal for all of them comes
# from the settings. The channels can be divided by the usual numbers of groups.
_TRIED = tuple(shape[:rank] for rank in (3, 4, 5) for shape in ((2, 960, 7, 11, 13), (3, 1920, 17, 19, 23)))


@dataclass(frozen=True)
class Sizes:
    """A shape as far as it is known: None for a size that depends on the bottoms."""

    axes: tuple[int | None, ...]
    is_whole: bool = True  # no further axis follows

    def __str__(self) -> str:
        axes = ["?" if size is None else str(size) for size in self.axes] + ["..."] * (not self.is_whole)
        return f"({', '.join(axes)}{',' * (len(axes) == 1)})"

    @property
    def number(self) -> int | None:
        """How many values there are, where all sizes are known."""
        known = [size for size in self.axes if size is not None]
        return math.prod(known) if self.is_whole and len(known) == len(self.axes) else None

    def contradicts(self, other: Sizes) -> bool:
        """Whether no shape fits both."""
        if any(None not in pair and pair[0] != pair[1] for pair in zip(self.axes, other.axes, strict=False)):
            return True
        shorter, longer = sorted((self, other), key=lambda sizes: len(sizes.axes))
        return len(shorter.axes) < len(longer.axes) and shorter.is_whole


UNKNOWN = Sizes((), is_whole=False)


def sizes_by_settings(layer: LayerLike, bottoms: int) -> Sequence[Sizes]:
    """What is known of the shape of each parameter of a layer with this many bottoms of unknown shapes."""
    count = len(layer.params())
    tried = [_tried(layer, [shape] * bottoms) for shape in _TRIED] if count else []
    known = [shapes for shapes, _ in tried if len(shapes) == count and None not in shapes]
    fitting = [shapes for shapes, fits in tried if fits and shapes in known]
    return [_in_common([shapes[index] for shapes in fitting or known]) for index in range(count)]


def needs_unlike_bottoms(node: Node, other: Node, index: int) -> bool:
    """Whether two layers can use one parameter, of unknown shape as yet, only where their bottoms differ in shape."""
    if node.params[index].shape is not None:
        return False
    counts = zip(_counts(node, index), _counts(other, index), strict=True)
    pairs = [(mine, its) for mine, its in counts if mine is not None and its is not None]
    return bool(pairs) and all(mine != its for mine, its in pairs)


def _counts(node: Node, index: int) -> list[int | None]:
    """The number of values of a parameter for each of the shapes to try."""
    layer, bottoms = node.layer, len(node.bottoms)
    tried = [_tried(layer, [shape] * bottoms)[0] if layer is not None else () for shape in _TRIED]
    shapes = [shapes[index] if index < len(shapes) else None for shapes in tried]
    return [math.prod(shape) if shape is not None else None for shape in shapes]


def _tried(layer: LayerLike, bottoms: Sequence[Shape]) -> tuple[Sequence[Shape | None], bool]:
    """The shapes of the parameters for these bottoms, empty where they do not suit, and whether the tops fit too."""
    shapes: Sequence[Shape | None] = ()
    try:
        shapes = layer.param_shapes(bottoms)
        if None not in shapes:  # unknown before a Python layer is set up, which top_shapes would do
            layer.top_shapes(bottoms)
    except Exception:  # made-up shapes may not suit a layer, and custom layers may fail in any way
        return shapes, False
    return shapes, True


def sizes_of(node: Node, index: int) -> Sizes:
    """What is known of the shape of one parameter of a layer."""
    shape = node.params[index].shape
    if shape is not None:
        return Sizes(shape)
    known = sizes_by_settings(node.layer, len(node.bottoms)) if node.layer is not None else ()
    return known[index] if index < len(known) else UNKNOWN


def _in_common(shapes: Sequence[Shape | None]) -> Sizes:
    known = [shape for shape in shapes if shape is not None]
    if not known:
        return UNKNOWN
    axes = tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*known, strict=False))
    return Sizes(axes, is_whole=len({len(shape) for shape in known}) == 1)
