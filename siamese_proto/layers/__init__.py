"""All layer types: every module of this folder is imported, and registers its classes.

Of the sub-packages only `python` registers a type. `functional` needs torch: layers import it when they compute.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    if not _module.ispkg:
        importlib.import_module(f"{__name__}.{_module.name}")
importlib.import_module(f"{__name__}.python.layer")
