"""All layer types: every module of this folder is imported, and registers its classes.

Sub-packages are left alone: `autograd` needs torch, and is imported only by layers that compute.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    if not _module.ispkg:
        importlib.import_module(f"{__name__}.{_module.name}")
