"""Where the files named in a prototxt are looked for."""

from __future__ import annotations

from pathlib import Path


def find_path(path: str, folder: str | None) -> str | None:
    """`path` from the working directory (Caffe's rule), else from `folder`; None where it is at neither place."""
    candidates = [Path(path)] if folder is None else [Path(path), Path(folder) / path]
    return next((str(candidate) for candidate in candidates if candidate.exists()), None)


def where_tried(path: str, folder: str | None, beside: str = "the net") -> str:
    """The folders `find_path` looked in, for messages; `beside` is what lies in `folder`."""
    if Path(path).is_absolute() or folder is None or Path(folder).resolve() == Path.cwd():
        return "" if Path(path).is_absolute() else " in the working directory"
    return f" in the working directory or beside {beside}"
