"""A layer as PyTorch source."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from siamese_proto.graph.ir import Shape


@dataclass(frozen=True)
class Source:
    """The expressions that stand for a layer in PyTorch source.

    Attributes:
        tops: One expression per top, or a single one whose value is unpacked into all tops. `{0}`, `{1}`, .. stand for
            the bottoms, and `{module}` for the module.
        module: Expression that creates the module, once.
        names: The module's names of the layer's parameters, in the layer's order.
        apart: The same as `tops` without a module; `{p0}`, `{p1}`, .. stand for the parameters. Used if a parameter
            belongs to another layer, or if torch has no such module.
        helpers: Functions and classes whose source is copied into the output, as names below this folder:
            `functional.losses.ContrastiveLoss`.
        has_state: Whether the module has state between calls, so that layers cannot share it.
        memory: Expression that creates a module with only this state, `{memory}` in `apart`, for a layer whose
            parameters belong to another.
    """

    tops: tuple[str, ...] = ()
    module: str = ""
    names: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    has_state: bool = False
    memory: str = ""


def by_module(module: str, names: Sequence[str] = (), apart: str = "", helpers: Sequence[str] = ()) -> Source:
    """Return the source of a layer with one bottom and one top that is a module of torch or a copied helper."""
    return Source(("{module}({0})",), module, tuple(names), (apart,) if apart else (), tuple(helpers))


def expression(text: str, *helpers: str) -> Source:
    """Return the source of a layer without parameters that is a single expression."""
    return Source((text,), helpers=helpers)


def call(function: str, *arguments: object, **settings: tuple[object, object]) -> str:
    """Return `function(arguments, name=value)`, where `settings` are (value, default); defaults are left out."""
    words = [shown(argument) if not isinstance(argument, str) else argument for argument in arguments]
    words += [f"{name}={shown(value)}" for name, (value, default) in settings.items() if value != default]
    return f"{function}({', '.join(words)})"


def shown(value: object) -> str:
    """Return a setting as a literal, with double quotes around text."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, float):
        return literal(value)
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def literal(value: float) -> str:
    """Return the shortest text of a single-precision number, as in a prototxt; of other numbers, all digits."""
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
    """Return a single size if all are equal, else all of them: `5`, `(5, 3)`."""
    return sizes[0] if len(set(sizes)) == 1 else sizes


def lengthened(name: str, count: int) -> str:
    """Return the expression for the tensor `name` with `count` axes of size 1 appended, so that it broadcasts."""
    return f"{name}[..., {', '.join(['None'] * count)}]" if count > 0 else name
