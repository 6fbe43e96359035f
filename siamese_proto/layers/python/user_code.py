"""Code of the user's: files of layers to register, modules of Python layers. Nothing here runs unless a caller asks.

Whatever such code raises becomes one NetError that names the place in the user's file.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType, TracebackType

from siamese_proto.errors import GraphError, Location, NetError, quoted

# By name and the file they came from; files of layers have no name.
_MODULES: dict[tuple[str, str], ModuleType] = {}


class Layer:
    """What `caffe.Layer` is to classes of Python layers where there is no Caffe: a base without anything."""


class running:  # noqa: N801  # reads as a statement: with running("setup of 'mine.Loss'"):
    """A context for the user's code: what goes wrong in it is raised as GraphError, with `location` and `layer`.

    The text names the deepest place in `file`, or in any file where it never got there.
    """

    def __init__(
        self, what: str, file: str | None = None, *, location: Location | None = None, layer: str | None = None
    ) -> None:
        self.what, self.file, self.location, self.layer = what, file, location, layer

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, NetError):
            raise error.at(location=self.location, layer=self.layer)
        if isinstance(error, Exception | SystemExit):
            text = " ".join(str(error).split())
            fault = f"{type(error).__name__}: {text}" if text else type(error).__name__
            raise GraphError(
                f"{self.what} failed: {fault} ({self._place(error, trace)})", location=self.location, layer=self.layer
            ) from error

    def _place(self, error: BaseException, trace: TracebackType | None) -> str:
        frames = [(frame.filename, frame.lineno or 1) for frame in traceback.extract_tb(trace)]
        if isinstance(error, SyntaxError) and error.filename:
            frames.append((error.filename, error.lineno or 1))
        frames = [frame for frame in frames if not frame[0].startswith("<frozen")]
        own = [frame for frame in frames if self.file is not None and os.path.realpath(frame[0]) == self.file]
        file, line = (own or frames)[-1]
        return str(Location(file, line))


def register_layers(path: str | os.PathLike[str]) -> None:
    """Run a Python file that registers layers with `@sp.layer`. It finds modules that lie beside it.

    Raises GraphError where the file is not there or fails, with its line.
    """
    file = os.path.realpath(path)
    shown = quoted(os.fspath(path))
    if not os.path.isfile(file):
        raise GraphError(f"there is no file of layers {shown}")
    if ("", file) in _MODULES:  # given twice
        return
    name = f"siamese_proto_user_layers_{len(_MODULES)}_{Path(file).stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise GraphError(f"the file of layers {shown} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up the module they are defined in
    with running(f"the file of layers {shown}", file), _searching([os.path.dirname(file)]):
        spec.loader.exec_module(module)
    _MODULES["", file] = module


def import_module(name: str, folder: str | None) -> ModuleType:
    """The module of a Python layer: from the working directory, else from `folder`, else as Python finds it.

    `import caffe` in it gives a stand-in with Layer, TRAIN and TEST, unless a real Caffe can be imported.
    Raises GraphError where there is none, or where it fails.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise GraphError(f"{quoted(name)} is no name of a Python module", field="python_param.module")
    folders = [os.getcwd(), *([folder] if folder is not None else [])]
    spec = _find(name, folders)
    key = (name, spec.origin or "" if spec is not None else "")
    if key not in _MODULES:
        if spec is None and not _is_found(name):
            raise GraphError(
                f"there is no Python module {quoted(name)} in the working directory, beside the net or in PYTHONPATH",
                field="python_param.module",
            )
        file = os.path.realpath(spec.origin) if spec is not None and spec.origin is not None else None
        with running(f"the Python module {quoted(name)}", file), importing(folders, name, spec):
            _MODULES[key] = importlib.import_module(name)
    return _MODULES[key]


@contextmanager
def importing(folders: Sequence[str], name: str = "", spec: ModuleSpec | None = None) -> Iterator[None]:
    """Let modules of these folders be imported, and `caffe`; `name` is looked for anew, if it is not what `spec` says.

    Afterwards `sys.path` and `caffe` are as they were, and so is a module of the same name from elsewhere.
    """
    hidden = {}
    if spec is not None:
        top = name.partition(".")[0]
        other = sys.modules.get(top)
        if other is not None and getattr(other.__spec__, "origin", None) != _origin_of_top(name, spec, folders):
            hidden = {key: sys.modules.pop(key) for key in list(sys.modules) if key.partition(".")[0] == top}
    stand_in = None
    if not _is_found("caffe"):
        stand_in = ModuleType("caffe")
        stand_in.__dict__.update(Layer=Layer, TRAIN=0, TEST=1)
        sys.modules["caffe"] = stand_in
    try:
        with _searching(folders):
            yield
    finally:
        if stand_in is not None and sys.modules.get("caffe") is stand_in:
            del sys.modules["caffe"]
        sys.modules.update(hidden)


@contextmanager
def _searching(folders: Sequence[str]) -> Iterator[None]:
    before = list(sys.path)
    sys.path[:0] = folders
    importlib.invalidate_caches()
    try:
        yield
    finally:
        added = [path for path in sys.path if path not in before and path not in folders]
        sys.path[:] = [*before, *added]  # what the user's code added itself stays


def _find(name: str, folders: Sequence[str]) -> ModuleSpec | None:
    """Where a dotted module lies below these folders; no code is run to find out."""
    paths: Sequence[str] | None = folders
    spec = None
    parts = name.split(".")
    for index in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: index + 1]), paths)
        if spec is None:
            return None
        paths = list(spec.submodule_search_locations or ())
    return spec


def _origin_of_top(name: str, spec: ModuleSpec, folders: Sequence[str]) -> str | None:
    top = name.partition(".")[0]
    found = spec if top == name else _find(top, folders)
    return found.origin if found is not None else None


def _is_found(name: str) -> bool:
    top = name.partition(".")[0]
    if top in sys.modules:
        return True
    spec = importlib.util.find_spec(top)
    return spec is not None and spec.origin is not None  # a mere folder, a checkout of Caffe say, has none
