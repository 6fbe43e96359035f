"""While the command loads, Ctrl-C ends it with one word; once it runs, it answers itself."""

from __future__ import annotations

import os
import sys
from types import TracebackType

# Under these names Python starts our command: installed, and as `python -m siamese_proto`.
_COMMANDS = {"siamese-proto", "siamese-proto.exe", "-m"}


def _tell(kind: type[BaseException], problem: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("interrupted\n")
    else:
        sys.__excepthook__(kind, problem, trace)


if sys.argv and os.path.basename(sys.argv[0]) in _COMMANDS:
    sys.excepthook = _tell
