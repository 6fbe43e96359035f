"""Setup before other imports: the search path, and one-line reports of errors that end the command.

These are Ctrl-C while it loads, a missing package, or a lack of memory.
"""

import os
import sys
import traceback
from types import TracebackType

# With `-m`, Python searches the working folder first: a `numpy.py` next to a net would be imported.
if sys.argv and sys.argv[0] == "-m" and not sys.flags.safe_path and sys.path and sys.path[0] == os.getcwd():
    del sys.path[0]

# The names that Python starts the command under: installed, and as `python -m siamese_proto`.
_COMMANDS = {"siamese-proto", "siamese-proto.exe", "-m"}
_OWN = {"siamese_proto", "__main__"}
_MAX_LENGTH = 300  # characters of another package's message
# The packages that a base installation does not contain, and the extra of pyproject.toml that installs each.
_EXTRAS = {
    **dict.fromkeys(("lmdb", "plyvel", "plyvel_next", "h5py"), "data"),
    **dict.fromkeys(("sklearn", "scipy", "matplotlib"), "evaluation"),
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "onnx"),
    "tensorboard": "tensorboard",
}


def outer_problem(problem: BaseException) -> str | None:
    """Describe a problem of the machine or the installation in one line; None if it may be a bug of this package."""
    message = " ".join(str(problem).split())[:_MAX_LENGTH]
    # torch raises RuntimeError itself, not a subclass, on the CPU
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError" or "DefaultCPUAllo" in message:
        return (
            f"not enough memory{f': {message}' if message else ''}; try smaller batches, or a machine with more memory"
        )
    package = _being_imported(problem)
    if package in _EXTRAS and isinstance(problem, ModuleNotFoundError):
        return (
            f"the package {package!r} is not installed; run: python -m pip install 'siamese-proto[{_EXTRAS[package]}]'"
        )
    if package:
        return f"the package {package!r} cannot be imported: {message or type(problem).__name__}; reinstall it"
    if isinstance(problem, OSError):
        where = f"{problem.filename}: " if problem.filename else ""
        return f"{where}{problem.strerror or problem}"
    return None


def _being_imported(problem: BaseException) -> str | None:
    """Return the other package that was being imported when the problem occurred."""
    if isinstance(problem, SyntaxError):
        return problem.filename
    loading = [
        str(frame.f_globals.get("__name__")).partition(".")[0]
        for frame, _ in traceback.walk_tb(problem.__traceback__)
        if frame.f_code.co_name == "<module>"
    ]
    if isinstance(problem, ImportError) and problem.name:
        loading.insert(0, problem.name.partition(".")[0])
    return next((name for name in loading if name not in _OWN), None)


def _report(kind: type[BaseException], problem: BaseException, trace: TracebackType | None) -> None:
    text = "interrupted" if issubclass(kind, KeyboardInterrupt) else outer_problem(problem)
    if text is None:
        sys.__excepthook__(kind, problem, trace)
    else:
        sys.stderr.write(f"{text}\n")


if sys.argv and os.path.basename(sys.argv[0]) in _COMMANDS:
    sys.excepthook = _report
