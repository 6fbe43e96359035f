"""requirements.lock has hashes of all packages in constraints.txt and of their dependencies."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata

import paths
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = paths.ROOT
ENTRY = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; [^\\\n]*)? \\\n((?:    --hash=\S+(?: \\)?\n)+)", re.MULTILINE)
LOCK = (ROOT / "requirements.lock").read_text()
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
LOCKED = {canonicalize_name(name): version for name, version, _ in ENTRY.findall(LOCK)}
# Python 3.11 on Linux, without extras.
PLACE = {"python_version": "3.11", "python_full_version": "3.11.9", "platform_system": "Linux", "sys_platform": "linux"}
PLACE |= {"platform_machine": "x86_64", "os_name": "posix", "implementation_name": "cpython", "extra": ""}


def needed(texts: list[str]) -> dict[str, Requirement]:
    requirements = [Requirement(text) for text in texts]
    return {
        canonicalize_name(one.name): one for one in requirements if one.marker is None or one.marker.evaluate(PLACE)
    }


def missing(requirements: dict[str, Requirement]) -> list[str]:
    return [
        str(one)
        for name, one in requirements.items()
        if name not in LOCKED or not one.specifier.contains(LOCKED[name], prereleases=True)
    ]


def test_constraints_and_lock_have_the_same_versions() -> None:
    pinned = dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", CONSTRAINTS, re.MULTILINE))
    assert len(pinned) == len([line for line in CONSTRAINTS.splitlines() if line and not line.startswith("#")])
    assert {name: LOCKED.get(canonicalize_name(name)) for name in pinned} == pinned


def test_every_locked_package_has_hashes_and_the_file_has_no_address() -> None:
    assert len(LOCKED) == len(re.findall("==", re.sub("#.*| ; .*", "", LOCK)))
    for name, _, hashes in ENTRY.findall(LOCK):
        assert re.fullmatch(r"(    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", hashes), name
    assert "://" not in LOCK
    assert "--hash" not in CONSTRAINTS  # pip cannot combine hashes with an editable install


def test_the_lock_contains_everything_that_the_package_and_its_tests_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]

    def with_extras(texts: list[str]) -> list[str]:
        """Return the requirements, with our extras replaced by their requirements."""
        own = [name for text in texts if text.startswith("siamese-proto[") for name in Requirement(text).extras]
        others = [text for text in texts if not text.startswith("siamese-proto[")]
        return others + [text for name in own for text in with_extras(extras[name])]

    required = needed(with_extras([*project["dependencies"], *extras["test"]]))
    assert {"torch", "lmdb", "scipy", "onnx", "tensorboard", "pytest"} <= set(required)
    assert missing(required) == []


def test_the_lock_contains_the_dependencies_of_the_locked_packages() -> None:
    """Checks packages installed in the locked version; a CPU build of torch needs less than PyPI's."""
    looked_at = 0
    for name, version in LOCKED.items():
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if distribution.version.partition("+")[0] == version:
            looked_at += 1
            assert missing(needed(distribution.requires or [])) == [], name
    assert looked_at > 20
