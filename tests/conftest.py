"""Settings of all tests: one torch thread in each worker, long tests first."""

from __future__ import annotations

import os

# Before torch is loaded, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# In CI the drawn cases are the same every time, so that a failure comes from the change.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use every core for the whole suite, and this process for tests that are named."""
    is_whole_suite = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return (os.cpu_count() or 1) if is_whole_suite else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start long tests first, so that no worker runs one alone at the end."""
    items.sort(key=lambda item: ("test_documentation" not in item.nodeid, item.get_closest_marker("slow") is None))
