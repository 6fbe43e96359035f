"""The commands a developer needs: `nox -s quick` while working, `nox` before a pull request, `nox --list` for all.

They run in the current environment: install the package with its extra `test` first.
"""

from __future__ import annotations

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["tests", "lint"]


@nox.session
def quick(session: nox.Session) -> None:
    """Run the quick tests, or those named: nox -s quick -- tests/layers."""
    session.run("python", "-m", "pytest", "-m", "not slow", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests."""
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run all tests and report which lines of the package they reach."""
    session.run("python", "-m", "pytest", "--cov", "--cov-report=term:skip-covered", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format and types."""
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


@nox.session
def reference(session: nox.Session) -> None:
    """Write the generated pages: the layer reference and the gallery."""
    session.run("python", "tools/make_layer_reference.py")
    session.run("python", "tools/make_gallery.py")
