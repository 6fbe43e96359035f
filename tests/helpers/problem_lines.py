"""Problems that commands print, without the source lines."""

from __future__ import annotations


def problem_lines(printed: str) -> list[str]:
    """Return the lines of the problems; source lines and carets are indented and left out."""
    return [line for line in printed.splitlines() if not line.startswith("    ")]
