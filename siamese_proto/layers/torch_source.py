"""What a layer tells of how it is written as PyTorch source."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from siamese_proto.graph.ir import Shape


@dataclass(frozen=True)
class Source:
    """A configured layer as text.

    `tops` are expressions, one a top, or a single one whose value is unpacked into all tops. In them `{0}`, `{1}`, ..
    stand for the bottoms and `{module}` for the module that is made once by the expression `module`; `names` are the
    module's names for the layer's parameters, in their order. `apart` are the same expressions without a module: in
    them `{p0}`, `{p1}`, .. stand for the parameters. They serve where a parameter belongs to another layer, and where
    torch has no such module. `helpers` are what the text uses besides torch: names in the sub-packages of this folder,
    `carried.losses.ContrastiveLoss`, whose source is carried along. A module that `has_state` remembers what it saw, so
    that layers cannot share it; then `memory` makes a module without parameters, `{memory}` in `apart`, that remembers
    for a layer whose parameters belong to others.
    """

    tops: tuple[str, ...] = ()
    module: str = ""
    names: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    has_state: bool = False
    memory: str = ""


def by_module(module: str, names: Sequence[str] = (), apart: str = "", helpers: Sequence[str] = ()) -> Source:
    """The source of a layer with one bottom and one top that is a module of torch's, or a carried one."""
    return Source(("{module}({0})",), module, tuple(names), (apart,) if apart else (), tuple(helpers))


def expression(text: str, *helpers: str) -> Source:
    """The source of a layer without parameters that is one expression."""
    return Source((text,), helpers=helpers)


def call(function: str, *arguments: object, **settings: tuple[object, object]) -> str:
    """`function(arguments, name=value)` without the settings, each a value and torch's default, that are as usual."""
    words = [shown(argument) if not isinstance(argument, str) else argument for argument in arguments]
    words += [f"{name}={shown(value)}" for name, (value, usual) in settings.items() if value != usual]
    return f"{function}({', '.join(words)})"


def shown(value: object) -> str:
    """A setting as a literal: texts between double quotes, tuples of equal sizes as one size."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, float):
        return literal(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def literal(value: float) -> str:
    """The shortest text for a number of single precision (what a prototxt holds), else all of its digits."""
    if value != value or value in (float("inf"), float("-inf")):
        return f'float("{value}")'
    try:
        is_single = struct.unpack("f", struct.pack("f", value))[0] == value
    except OverflowError:
        is_single = False
    for digits in range(1, 10) if is_single else ():
        short = float(f"{value:.{digits}g}")
        if struct.pack("f", short) == struct.pack("f", value):
            return repr(short)
    return repr(value)


def same(sizes: Shape) -> int | Shape:
    """One size for all dimensions where they agree, else all of them: `5`, `(5, 3)`."""
    return sizes[0] if len(set(sizes)) == 1 else sizes


def lengthened(name: str, count: int) -> str:
    """The tensor `name` with `count` axes of size 1 behind, so that it broadcasts."""
    return f"{name}[..., {', '.join(['None'] * count)}]" if count > 0 else name
