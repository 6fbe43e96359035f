"""Whole numbers in texts that people write."""

from __future__ import annotations

_MOST_DIGITS = 100
_LARGE = int("1" + _MOST_DIGITS * "0")


def whole_number(text: str) -> int:
    """Read decimal digits, with a sign perhaps; a number of more than 100 digits is 10^100, with its sign.

    Such a number is too large wherever one is expected, and Python does not read those of more than 4,300 digits.
    Raises ValueError for other texts, as `int` does.
    """
    written = text.strip()
    digits = written.lstrip("+-")
    if len(digits) <= _MOST_DIGITS or not digits.isdecimal():
        return int(written)
    return -_LARGE if written.startswith("-") else _LARGE
