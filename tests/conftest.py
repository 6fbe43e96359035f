"""What holds for all tests."""

import os

from hypothesis import settings

# In CI the drawn cases are the same ones every time: what is found there is what the change did.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
