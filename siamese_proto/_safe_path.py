"""`python -m siamese_proto` imports nothing from the working folder, as the installed command does not.

Python looks there first when it is started with `-m`: a `numpy.py` that lies next to somebody's net would be run.
"""

from __future__ import annotations

import os
import sys

if sys.argv and sys.argv[0] == "-m" and not sys.flags.safe_path and sys.path and sys.path[0] == os.getcwd():
    del sys.path[0]
