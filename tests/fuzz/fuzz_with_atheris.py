"""Fuzzing with coverage: `python tests/fuzz/fuzz_with_atheris.py TARGET [CORPUS] [seeds] [libFuzzer options]`.

Not a part of the tests. It needs atheris (`pip install atheris`, which has wheels for Linux), and goes on until it is
stopped or finds bytes that a target of `fuzz_targets.py` neither takes nor refuses; those are kept in a file
`crash-...`. Seeds: `tests/golden/corpus` for `net` and `check`, `tests/golden/flagship` for `caffemodel`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))

with atheris.instrument_imports(include=["siamese_proto"]):
    from fuzz_targets import TARGETS


def main() -> None:
    """Fuzz the target that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"the first argument is one of {', '.join(TARGETS)}")
    target = TARGETS[sys.argv.pop(1)]

    def run(content: bytes) -> None:
        target(content)

    atheris.Setup([*sys.argv, "-rss_limit_mb=2048", "-timeout=10"], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
