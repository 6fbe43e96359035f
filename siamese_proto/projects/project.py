"""Start a project: copy the files of an included network, with the user's images as its data."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from siamese_proto.compiler import build_graph
from siamese_proto.data.images.labeled_source import is_digits
from siamese_proto.errors import DataError, NetError, quoted
from siamese_proto.files import new_partial, put_in_place
from siamese_proto.graph.ir import Graph, Phase
from siamese_proto.layers.base import DataLayer, RunState
from siamese_proto.projects.data_layers import named_sources, own_root, replace_sources
from siamese_proto.projects.plan import Plan, plan_training
from siamese_proto.projects.sources import ImageSource, find_source, split_by_class
from siamese_proto.zoo import NET, network_files


@dataclass(frozen=True)
class Project:
    """The files of a project, and an estimate of its training."""

    files: tuple[Path, ...]
    sources: Mapping[str, ImageSource]  # the user's, by phase
    missing: tuple[str, ...]  # sources that do not exist yet
    plans: tuple[Plan, ...]


def start_project(name: str, folder: Path, train: str | None = None, test: str | None = None) -> Project:
    """Write the net, solver and deploy files of a network to a new or empty folder.

    The data are opened first, as training opens them, and the folder gets all files or none.

    Args:
        name: Of the network.
        folder: Of the project.
        train: Source of images that replaces that of the net in phase TRAIN.
        test: The same for phase TEST. If only `train` is given, some of its classes are for the test.

    Raises:
        NetError: the network is unknown, the folder is not empty or cannot be written, or the network cannot be
            trained on these images.
    """
    texts = network_files(name)
    if os.path.exists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise NetError(f"{quoted(str(folder))} exists and is not an empty folder; give another")
    parent = folder.absolute().parent
    if not parent.is_dir():
        raise NetError(f"there is no folder {quoted(str(parent))} to start a project in")
    sources = _find_sources(train, test, own_root(texts[NET]))
    nets = {file: text for file, text in texts.items() if file.startswith("train_test")}
    graphs = {file: _check_net(name, text, sources) for file, text in nets.items()}
    plans = [plan_training(file, text, graphs) for file, text in texts.items() if file.startswith("solver")]
    texts.update({file: replace_sources(text, sources, folder) for file, text in nets.items()})
    with _all_or_nothing(folder) as partial:
        for file, text in texts.items():
            (partial / file).write_text(text, encoding="utf-8", errors="surrogateescape")
    named = [source for source in named_sources(texts[NET]) if not is_digits(source)]
    missing = [source for source in named if not Path(source).exists() and not (folder / source).exists()]
    return Project(tuple(folder / file for file in sorted(texts)), sources, tuple(missing), tuple(plans))


def _find_sources(train: str | None, test: str | None, root: str) -> dict[str, ImageSource]:
    """The sources that replace those of the net, by phase."""
    sources: dict[str, ImageSource] = {}
    if test is not None:
        sources["TEST"] = find_source(test, root)
    if train is not None:
        sources["TRAIN"] = find_source(train, root)
        if test is None and sources["TRAIN"].kind == "DIGITS":
            sources["TEST"] = find_source("digits:test")
        elif test is None and sources["TRAIN"].kind != "MISSING":
            sources["TRAIN"], sources["TEST"] = split_by_class(sources["TRAIN"])
    return sources


def _check_net(name: str, text: str, sources: Mapping[str, ImageSource]) -> Graph:
    """Build the net on the user's images and open these as training does; returns the TRAIN graph.

    The embedded digits replace a database of pairs that does not exist yet, so that shapes are known.
    """
    existing = {phase: source for phase, source in sources.items() if source.kind != "MISSING"}
    digits = ImageSource("digits", "DIGITS")
    stand_ins = {"TRAIN": digits, "TEST": digits} if 'type: "Data"' in text else {}
    net = replace_sources(text, {**sources, **stand_ins, **existing}, None)
    graphs: dict[Phase, Graph] = {}
    phases: tuple[Phase, ...] = ("TRAIN", "TEST")
    for phase in phases:
        try:
            graphs[phase] = build_graph(net, phase)
            for node in graphs[phase].nodes if phase in existing else ():
                if isinstance(node.layer, DataLayer):
                    node.layer.open(RunState()).close()
        except NetError as error:
            source = f" on {quoted(existing[phase].path)}" if phase in existing else ""
            raise DataError(f"{name} cannot be used{source}: {error.message}") from error
    return graphs["TRAIN"]


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files move to `folder` after the block; NetError if they cannot be written.

    An empty folder that exists stays, with its owner and permissions.
    """
    exists = os.path.isdir(folder)
    try:
        with new_partial(str(folder if exists else folder.absolute().parent), folder.name, is_folder=True) as partial:
            yield Path(partial)
            for file in sorted(Path(partial).iterdir()) if exists else ():
                put_in_place(file, folder / file.name)
            if not exists:
                put_in_place(partial, folder)
    except OSError as error:
        raise NetError(f"{quoted(str(folder))} cannot be written: {error.strerror or error}") from error
