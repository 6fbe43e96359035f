"""Paths of the project's files."""

from pathlib import Path

HELPERS = Path(__file__).resolve().parent
ROOT = HELPERS.parents[1]
GOLDEN = ROOT / "tests" / "golden"
PROTOTXT = ROOT / "prototxt"
TOOLS = ROOT / "tools"
