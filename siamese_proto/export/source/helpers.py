"""The source of what is carried along: classes and functions of this package that need torch alone."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_NOTE_TO_MYPY = re.compile(r"  # type: ignore.*$")
_LAYERS = "siamese_proto.layers"
_PACKAGE = "siamese_proto."

Import = tuple[str, str]  # a module, and the name taken from it ("": the module itself)


@dataclass(frozen=True)
class Definition:
    """A top-level name of a module of this package."""

    module: str
    name: str


@dataclass(frozen=True)
class _Module:
    """A module's source in parts."""

    texts: dict[str, str]  # of each definition
    trees: dict[str, ast.stmt]
    imports: dict[str, Import]  # by local name


def carried(helpers: Iterable[str]) -> tuple[list[str], set[Import]]:
    """The text of these helpers (`carried.losses.ContrastiveLoss`) and all they use, and what they import.

    What a definition uses stands before it; an import is a module and the name taken from it.
    """
    found: dict[Definition, str] = {}
    imports: set[Import] = set()
    for helper in helpers:
        module, _, name = helper.rpartition(".")
        _collect(Definition(f"{_LAYERS}.{module}", name), found, imports)
    repeated = [name for name, count in Counter(wanted.name for wanted in found).items() if count > 1]
    if repeated:
        raise ValueError(f"carried under one name: {', '.join(repeated)}")
    return list(found.values()), imports


def _collect(wanted: Definition, found: dict[Definition, str], imports: set[Import]) -> None:
    if wanted in found:
        return
    module = _parsed(wanted.module)
    for name in _names(module.trees[wanted.name]):
        if name in module.imports:
            origin, inner = module.imports[name]
            if origin.startswith(_PACKAGE) and inner:
                _collect(Definition(origin, inner), found, imports)
            else:
                imports.add((origin, inner))
        elif name in module.trees and name != wanted.name:
            _collect(Definition(wanted.module, name), found, imports)
    found.setdefault(wanted, module.texts[wanted.name])


def _names(tree: ast.stmt) -> Iterator[str]:
    """Every name that a definition uses, in the order of its text."""
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    yield from (node.id for node in sorted(names, key=lambda node: (node.lineno, node.col_offset)))


@functools.cache
def _parsed(module: str) -> _Module:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ImportError(f"module {module} has no source")
    text = Path(spec.origin).read_text(encoding="utf-8")
    lines = text.splitlines()
    texts, trees = {}, {}
    for node in ast.parse(text).body:
        names = _defined(node)
        for name in names:
            begin = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
            texts[name] = "\n".join(_NOTE_TO_MYPY.sub("", line) for line in lines[begin - 1 : node.end_lineno])
            trees[name] = node
    imports: dict[str, Import] = {}
    for inner in ast.walk(ast.parse(text)):  # also those for type checkers alone
        if isinstance(inner, ast.ImportFrom):
            imports.update({alias.asname or alias.name: (inner.module or "", alias.name) for alias in inner.names})
        elif isinstance(inner, ast.Import):
            imports.update({alias.asname or alias.name: (alias.name, "") for alias in inner.names})
    return _Module(texts, trees, imports)


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []
