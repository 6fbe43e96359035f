"""Memory that stays with the process from step to step."""

from __future__ import annotations

import ctypes
import sys

# mallopt(3) of glibc
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEPT = (2**30, 2**25)  # bytes: blocks up to this size; where that is too much for this glibc, up to the most it takes


def keep_freed_memory() -> bool:
    """Let the C library keep what is freed, to be used by the next step; False where it is not glibc.

    By default glibc gives blocks of some megabytes back at once, and every step takes them again, page by page.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    for size in _KEPT:
        if mallopt(_MMAP_THRESHOLD, size):
            return bool(mallopt(_TRIM_THRESHOLD, _KEPT[0]) and mallopt(_TOP_PAD, _KEPT[1]))
    return False


def give_back_freed_memory() -> None:
    """Hand what is free to the system, where the C library is glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
