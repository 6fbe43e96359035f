"""What must happen before other imports: set the search path, and report in one line what ends the command.

That is Ctrl-C while it loads, a missing package, or too little memory.
"""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

# With `-m`, Python searches the working folder first: a `numpy.py` that lies next to somebody's net would be run.
if sys.argv and sys.argv[0] == "-m" and not sys.flags.safe_path and sys.path and sys.path[0] == os.getcwd():
    del sys.path[0]

# Under these names Python starts our command: installed, and as `python -m siamese_proto`.
_COMMANDS = {"siamese-proto", "siamese-proto.exe", "-m"}
_OWN = {"siamese_proto", "__main__"}
_MOST = 300  # characters of what a package says
# The packages that a base installation leaves out, and the extra of pyproject.toml that brings each.
_EXTRAS = {
    **dict.fromkeys(("lmdb", "plyvel", "plyvel_next", "h5py"), "data"),
    **dict.fromkeys(("sklearn", "scipy", "matplotlib"), "evaluation"),
    **dict.fromkeys(("onnx", "onnxscript", "onnxruntime"), "onnx"),
    "tensorboard": "tensorboard",
}


def outer_problem(problem: BaseException) -> str | None:
    """One line on a problem of the machine or the installation; None where it may be a fault of this package."""
    said = " ".join(str(problem).split())[:_MOST]
    # torch raises RuntimeError, on the CPU without a class of its own
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError" or "DefaultCPUAllo" in said:
        return f"not enough memory{f': {said}' if said else ''}; try smaller batches, or a machine with more memory"
    package = _being_imported(problem)
    if package in _EXTRAS and isinstance(problem, ModuleNotFoundError):
        return (
            f"the package {package!r} is not installed; run: python -m pip install 'siamese-proto[{_EXTRAS[package]}]'"
        )
    if package:
        return f"the package {package!r} cannot be imported: {said or type(problem).__name__}; install it again"
    if isinstance(problem, OSError):
        where = f"{problem.filename}: " if problem.filename else ""
        return f"{where}{problem.strerror or problem}"
    return None


def _being_imported(problem: BaseException) -> str | None:
    """The package of others that was being loaded when the problem arose."""
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


def _tell(kind: type[BaseException], problem: BaseException, trace: TracebackType | None) -> None:
    text = "interrupted" if issubclass(kind, KeyboardInterrupt) else outer_problem(problem)
    if text is None:
        sys.__excepthook__(kind, problem, trace)
    else:
        sys.stderr.write(f"{text}\n")


if sys.argv and os.path.basename(sys.argv[0]) in _COMMANDS:
    sys.excepthook = _tell
