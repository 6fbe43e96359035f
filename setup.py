"""What pyproject.toml cannot say: the networks of prototxt/ go into the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithNetworks(build_py):
    """Copies prototxt/ to siamese_proto/networks of a wheel; where the package is edited, it is read in place."""

    def run(self) -> None:
        """Build."""
        super().run()
        if not self.editable_mode:
            only = shutil.ignore_patterns("*.md")
            shutil.copytree(
                "prototxt", Path(self.build_lib) / "siamese_proto" / "networks", ignore=only, dirs_exist_ok=True
            )


setup(cmdclass={"build_py": BuildWithNetworks})
