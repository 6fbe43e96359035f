"""Run user code: layer files to register and modules of Python layers. Nothing runs unless a caller asks for it.

An exception in such code becomes one NetError with the place in the user's file.
"""

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

# Keys are (module name, file); layer files have an empty name.
_MODULES: dict[tuple[str, str], ModuleType] = {}


class Layer:
    """An empty base class that replaces `caffe.Layer` if Caffe is not installed."""


class running:  # noqa: N801  # reads as a statement: with running("setup of 'mine.Loss'"):
    """Context manager for user code: raises its exceptions as GraphError, with `location` and `layer`.

    The message names the deepest place in `file`, or in any file if no frame is in `file`.
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
    """Run a Python file that registers layers with `@sp.layer`. It can import modules from its own folder.

    Raises:
        GraphError: The file is missing, or its code fails; the message has the line.
    """
    file = os.path.realpath(path)
    shown = quoted(os.fspath(path))
    if not os.path.isfile(file):
        raise GraphError(f"layer file {shown} does not exist")
    if ("", file) in _MODULES:  # loaded before
        return
    name = f"siamese_proto_user_layers_{len(_MODULES)}_{Path(file).stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise GraphError(f"layer file {shown} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up the module they are defined in
    with running(f"layer file {shown}", file), _searching([os.path.dirname(file)]):
        spec.loader.exec_module(module)
    _MODULES["", file] = module


def import_module(name: str, folder: str | None) -> ModuleType:
    """Import the module of a Python layer: from the working directory, from `folder`, or from Python's own path.

    `import caffe` in the module returns a stand-in with Layer, TRAIN and TEST, unless a real Caffe is installed.

    Raises:
        GraphError: The module does not exist, or its code fails.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise GraphError(f"{quoted(name)} is not a valid name of a Python module", field="python_param.module")
    folders = [os.getcwd(), *([folder] if folder is not None else [])]
    spec = _find(name, folders)
    key = (name, spec.origin or "" if spec is not None else "")
    if key not in _MODULES:
        if spec is None and not _is_found(name):
            raise GraphError(
                f"no Python module {quoted(name)} in the working directory, the folder of the net or PYTHONPATH",
                field="python_param.module",
            )
        file = os.path.realpath(spec.origin) if spec is not None and spec.origin is not None else None
        with running(f"the Python module {quoted(name)}", file), importing(folders, name, spec):
            _MODULES[key] = importlib.import_module(name)
    return _MODULES[key]


@contextmanager
def importing(folders: Sequence[str], name: str = "", spec: ModuleSpec | None = None) -> Iterator[None]:
    """Allow imports from these folders and of `caffe`. A loaded module `name` that does not match `spec` is hidden.

    On exit, `sys.path`, `caffe` and a hidden module of the same name are restored.
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
        sys.path[:] = [*before, *added]  # keep paths that the user's code added


def _find(name: str, folders: Sequence[str]) -> ModuleSpec | None:
    """Find a dotted module in these folders without running code."""
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
    top_spec = spec if top == name else _find(top, folders)
    return top_spec.origin if top_spec is not None else None


def _is_found(name: str) -> bool:
    top = name.partition(".")[0]
    if top in sys.modules:
        return True
    spec = importlib.util.find_spec(top)
    return spec is not None and spec.origin is not None  # a plain folder, such as a checkout of Caffe, has none
