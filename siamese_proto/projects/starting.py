"""Start a project: copy the files of an included network, and let them read the user's images."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from siamese_proto.compiler import build_graph
from siamese_proto.data.images.labelled import is_digits
from siamese_proto.errors import DataError, NetError, quoted
from siamese_proto.graph.ir import Graph, Phase
from siamese_proto.layers.base import DataLayer, RunState
from siamese_proto.projects.images import Images, look_at, split_by_class
from siamese_proto.projects.plans import Plan, plan
from siamese_proto.projects.sources import named_sources, own_root, with_sources
from siamese_proto.zoo import NET, network_files


@dataclass(frozen=True)
class Project:
    """What was written, and what its training is going to take."""

    files: tuple[Path, ...]
    images: Mapping[str, Images]  # the user's own, by phase
    missing: tuple[str, ...]  # sources that do not exist yet
    plans: tuple[Plan, ...]


def start_project(name: str, folder: Path, train: str | None = None, test: str | None = None) -> Project:
    """Write the net, solver and deploy files of a network to a new folder, or to an empty one.

    `train` and `test` replace the sources that the net names for these phases. Where only `train` is given, some of
    its classes are set aside for the test. The data are opened first, as training opens them. The folder is finished
    or not there.

    Raises:
        NetError: there is no such network, the folder is not empty or cannot be written, or the network cannot be
            trained on these images.
    """
    texts = network_files(name)
    _check_free(folder)
    images = _own_images(train, test, own_root(texts[NET]))
    nets = {file: text for file, text in texts.items() if file.startswith("train_test")}
    graphs = {file: _checked(name, text, images) for file, text in nets.items()}
    plans = [plan(file, text, graphs) for file, text in texts.items() if file.startswith("solver")]
    texts.update({file: with_sources(text, images, folder) for file, text in nets.items()})
    with _finished_or_not_there(folder) as partial:
        for file, text in texts.items():
            (partial / file).write_text(text, encoding="utf-8", errors="surrogateescape")
    missing = [source for source in named_sources(texts[NET]) if not is_digits(source)]
    return Project(
        tuple(folder / file for file in sorted(texts)),
        images,
        tuple(source for source in missing if not Path(source).exists() and not (folder / source).exists()),
        tuple(plans),
    )


def _check_free(folder: Path) -> None:
    if os.path.exists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise NetError(f"{quoted(str(folder))} is there and not an empty folder; give another")
    around = folder.absolute().parent
    if not around.is_dir():
        raise NetError(f"there is no folder {quoted(str(around))} to begin a project in")


def _own_images(train: str | None, test: str | None, root: str) -> dict[str, Images]:
    """The sources that replace those of the net, by phase."""
    images: dict[str, Images] = {}
    if test is not None:
        images["TEST"] = look_at(test, root)
    if train is not None:
        images["TRAIN"] = look_at(train, root)
        if test is None and images["TRAIN"].kind == "DIGITS":
            images["TEST"] = look_at("digits:test")
        elif test is None and images["TRAIN"].kind != "MISSING":
            images["TRAIN"], images["TEST"] = split_by_class(images["TRAIN"])
    return images


def _checked(name: str, text: str, images: Mapping[str, Images]) -> Graph:
    """The TRAIN graph of a net on the user's images; NetError where it cannot be built or has nothing to draw.

    The embedded digits stand in for a database of pairs that does not exist yet, so that shapes are known.
    """
    existing = {phase: own for phase, own in images.items() if own.kind != "MISSING"}
    digits = Images("digits", "DIGITS")
    stand_ins = {"TRAIN": digits, "TEST": digits} if 'type: "Data"' in text else {}
    parsed = with_sources(text, {**images, **stand_ins, **existing}, None)
    graphs: dict[Phase, Graph] = {}
    phases: tuple[Phase, ...] = ("TRAIN", "TEST")
    for phase in phases:
        try:
            graphs[phase] = build_graph(parsed, phase)
            if phase in existing:
                _open_sources(graphs[phase])
        except NetError as error:
            source = f" on {quoted(existing[phase].path)}" if phase in existing else ""
            raise DataError(f"{name} cannot be used{source}: {error.message}") from error
    return graphs["TRAIN"]


def _open_sources(graph: Graph) -> None:
    """Open what the data layers read, as training does: labels, headers of images, and what can be drawn."""
    for node in graph.nodes:
        if isinstance(node.layer, DataLayer):
            node.layer.open(RunState()).close()


@contextmanager
def _finished_or_not_there(folder: Path) -> Iterator[Path]:
    """A new folder whose files get their place once the block is done; NetError where the disk does not take them.

    It becomes `folder`. An empty folder that exists stays, with its owner and permissions, and gets the files.
    """
    exists = os.path.isdir(folder)
    inside = folder if exists else folder.absolute().parent
    partial = inside / f".{folder.name[:200]}.{secrets.token_hex(4)}.partial"
    try:
        partial.mkdir()
        yield partial
        if exists:
            for file in sorted(partial.iterdir()):
                os.replace(file, folder / file.name)
        else:
            os.rename(partial, folder)
    except OSError as error:
        raise NetError(f"{quoted(str(folder))} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(partial)
