"""The networks that come along, and projects begun from them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from siamese_proto.errors import NetError, did_you_mean, quoted
from siamese_proto.files import write_atomically

_PACKAGED = Path(__file__).parent / "networks"  # in a wheel
_IN_THE_REPOSITORY = Path(__file__).parent.parent / "prototxt"
_NET = "train_test.prototxt"
_SOURCE = re.compile(r'\bsource: ("(?:[^"\\]|\\.)*")')  # as the files of these networks write it, TRAIN before TEST


def networks_folder() -> Path:
    """The folder with a folder for each network."""
    return _PACKAGED if _PACKAGED.is_dir() else _IN_THE_REPOSITORY


def network_titles() -> dict[str, str]:
    """The networks by name, each with the first line of what its file says of it."""
    nets = sorted(networks_folder().glob(f"*/{_NET}"))
    return {net.parent.name: net.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for net in nets}


def start_project(name: str, folder: Path, train: str | None = None, test: str | None = None) -> list[Path]:
    """Copy the net, solver and deploy files of a network to a new folder; returns the copies.

    `train` and `test` take the place of the sources that the net names for these phases. Raises NetError where there is
    no such network, or where the folder is there and not empty.
    """
    titles = network_titles()
    if name not in titles:
        hint = did_you_mean(name, titles) or f"; there are {', '.join(titles)}"
        raise NetError(f"there is no network {quoted(name)}{hint}")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise NetError(f"{quoted(str(folder))} is there and not an empty folder; give another")
    around = folder.absolute().parent
    if not around.is_dir():
        raise NetError(f"there is no folder {quoted(str(around))} to begin a project in")
    sources = [None if source is None else _seen_from(folder, source) for source in (train, test)]
    folder.mkdir(exist_ok=True)
    for path in (networks_folder() / name).glob("*.prototxt"):
        write_atomically(folder / path.name, _with_sources(path.read_text(encoding="utf-8"), sources).encode())
    return sorted(folder.iterdir())


def missing_sources(folder: Path) -> list[str]:
    """What the net of a project reads that is not there yet: neither embedded nor a file or folder."""
    text = (folder / _NET).read_text(encoding="utf-8")
    sources = dict.fromkeys(json.loads(literal) for literal in _SOURCE.findall(text))
    return [s for s in sources if not s.startswith("digits:") and not Path(s).exists() and not (folder / s).exists()]


def _with_sources(text: str, sources: list[str | None]) -> str:
    """The text with other sources, in the order of its own."""
    new = iter(sources)

    def other(found: re.Match[str]) -> str:
        source = next(new, None)
        return found[0] if source is None else f"source: {json.dumps(source, ensure_ascii=False)}"

    return _SOURCE.sub(other, text)


def _seen_from(folder: Path, source: str) -> str:
    """A path that is there as it is written in a file of the folder; anything else as it is."""
    return os.path.relpath(source, folder) if os.path.exists(source) else source
