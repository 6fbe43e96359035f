"""What commands print about problems, without the source lines."""

from __future__ import annotations


def problem_lines(printed: str) -> list[str]:
    """The lines of the problems; the source line and the caret below each are indented."""
    return [line for line in printed.splitlines() if not line.startswith("    ")]
