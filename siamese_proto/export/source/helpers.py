"""Helper code copied into the output: classes and functions of this package that need only torch."""

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
    """The source of a module in parts."""

    texts: dict[str, str]  # by definition
    trees: dict[str, ast.stmt]
    imports: dict[str, Import]  # by local name


def helper_source(helpers: Iterable[str]) -> tuple[list[str], set[Import]]:
    """Return the source of helpers and of everything they use, and their imports.

    Args:
        helpers: Names such as `functional.losses.ContrastiveLoss`.

    Returns:
        The texts, each after those that it uses; and the imports, each a module and the name imported from it.
    """
    texts_of: dict[Definition, str] = {}
    imports: set[Import] = set()
    for helper in helpers:
        module, _, name = helper.rpartition(".")
        _collect(Definition(f"{_LAYERS}.{module}", name), texts_of, imports)
    repeated = [name for name, count in Counter(definition.name for definition in texts_of).items() if count > 1]
    if repeated:
        raise ValueError(f"several helpers have one name: {', '.join(repeated)}")
    return list(texts_of.values()), imports


def _collect(definition: Definition, texts_of: dict[Definition, str], imports: set[Import]) -> None:
    if definition in texts_of:
        return
    module = _parsed(definition.module)
    for name in _names(module.trees[definition.name]):
        if name in module.imports:
            origin, inner = module.imports[name]
            if origin.startswith(_PACKAGE) and inner:
                _collect(Definition(origin, inner), texts_of, imports)
            else:
                imports.add((origin, inner))
        elif name in module.trees and name != definition.name:
            _collect(Definition(definition.module, name), texts_of, imports)
    texts_of.setdefault(definition, module.texts[definition.name])


def _names(tree: ast.stmt) -> Iterator[str]:
    """Yield the names that a definition uses, in order."""
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
    for inner in ast.walk(ast.parse(text)):  # also those for type checkers
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
