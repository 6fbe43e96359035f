"""Imports point one way, and modules that do not run nets do not import torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import siamese_proto

pytestmark = pytest.mark.slow

PACKAGE = Path(siamese_proto.__file__).parent
ORDER = [
    {"errors", "files", "_interrupt"},
    {"proto"},
    {"graph"},
    {"layers"},
    {"compiler"},
    {"passes"},
    {"weights"},
    {"net"},
    {"export", "data"},
    {"evaluation"},
    {"solver"},
    {"check", "zoo"},
    {"projects"},
    {"pycaffe", "cli", "__main__"},
]
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}
# At the far right: the public names import everything.
PUBLIC = "__init__"


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def part_of(module: str) -> str:
    """`siamese_proto.layers.loss` -> `layers`."""
    return module.split(".")[1] if "." in module else PUBLIC


def imported_parts(path: Path) -> set[str]:
    """The parts of the package that a module imports anywhere, inside functions too."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            parts.update(part_of(name.name) for name in node.names if name.name.startswith("siamese_proto"))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "siamese_proto":
                parts.update(name.name if name.name in RANK else PUBLIC for name in node.names)
            elif (node.module or "").startswith("siamese_proto."):
                parts.add(part_of(node.module or ""))
    return parts


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_modules_to_its_left(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == PUBLIC:
        return
    assert own in RANK, f"{own} has no place in the order of imports"
    wrong = {part for part in imported_parts(path) if RANK.get(part, len(ORDER)) > RANK[own]}
    assert not wrong


def test_modules_that_do_not_run_nets_are_imported_without_torch() -> None:
    running = {"net", "solver", "weights", "data", "evaluation", "projects", "cli", "__main__"}
    computing = {"functional", "onnx", "spectral_kernel", "pooling_kernel", "per_tower_bias", "rule"}
    names = []
    for path in modules():
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[0] not in running and computing.isdisjoint(parts):
            names.append(".".join(("siamese_proto", *parts)).removesuffix(".__init__"))
    code = f"import sys\nfor name in {names!r}: __import__(name)\nassert 'torch._C' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_there_are_no_import_cycles() -> None:
    """Imports inside functions and for type checkers count too."""
    names = {".".join(("siamese_proto", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in modules()}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    imported: dict[str, set[str]] = {}
    for name, path in names.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                targets.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                targets.update((inner & names.keys()) or {node.module})
        imported[name] = (targets & names.keys()) - {name}
    while free := [name for name, targets in imported.items() if not targets & imported.keys()]:
        for name in free:
            del imported[name]
    assert imported == {}
