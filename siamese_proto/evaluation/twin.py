"""A trained net in use: images in, features and distances out."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy
import torch

from siamese_proto.data.not_finite import not_finite
from siamese_proto.errors import DataError, GraphError, WeightsError, quoted
from siamese_proto.evaluation.distance import LearnedMetric, PlainMetric
from siamese_proto.evaluation.preprocess import Preparation, find_preparation
from siamese_proto.graph.comparison import Comparison, Metric, find_comparison, image_blobs
from siamese_proto.graph.ir import Blob
from siamese_proto.net.net import Model, Net
from siamese_proto.net.part import Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from siamese_proto.data.images.labelled import LabelledImages

    Floats = NDArray[numpy.floating]


_ROWS_AT_ONCE = 256


def _ignore(done: int) -> None:
    """What is told of the progress where nobody asks."""


@dataclass(frozen=True)
class Choice:
    """What is not to be found out from the net but taken as said here; empty: as the net has it."""

    features: Sequence[str] = ()  # blobs, one for each tower
    inputs: Sequence[str] = ()  # blobs that take the images, one for each feature
    label: str = ""
    distance: Metric | None = None
    one_is_same: bool | None = None
    scale: float | None = None
    mean_values: Sequence[float] = ()
    resize: tuple[int, int] | None = None


class Twin:
    """A net that tells images apart: a twin, a triplet net, or a single tower.

    `net` must be one for phase TEST. Raises GraphError where it cannot be told which of its blobs are features; what
    takes images is looked for when it is asked for.
    """

    def __init__(self, net: Net, choice: Choice | None = None) -> None:
        choice = choice or Choice()
        self.net = net
        self.choice = choice
        found = find_comparison(net.graph, choice.features, choice.label)
        if choice.distance is not None:
            if choice.distance == "LEARNED" and found.score is None:
                raise GraphError("the net has no learned score of two features; choose another --distance")
            found = replace(found, metric=choice.distance)
        if choice.one_is_same is not None:
            found = replace(found, one_is_same=choice.one_is_same)
        self.comparison: Comparison = found
        learned = found.metric == "LEARNED"
        self.metric: PlainMetric | LearnedMetric = LearnedMetric(net, found) if learned else PlainMetric(found.metric)
        self._images: tuple[tuple[Blob, ...], ...] | None = None
        self._parts: dict[int, Part] = {}
        self._prepared: dict[int, Preparation] = {}

    def preparation(self, side: int = 0) -> Preparation:
        """What is done to an image before it is handed to a tower."""
        side = self._side(side)
        if side not in self._prepared:
            self._prepared[side] = find_preparation(
                self.net.graph,
                self._image_blobs()[side][0],
                os.path.dirname(self.net.graph.file) or None,
                scale=self.choice.scale,
                mean_values=self.choice.mean_values,
                resize=self.choice.resize,
            )
        return self._prepared[side]

    @property
    def towers_differ(self) -> bool:
        """Whether the second image of a pair goes another way than the first: with weights of its own, say."""
        if len(self.comparison.features) == 1:
            return False
        sides = [self._parameters(side) for side in (0, 1)]
        return sides[0] != sides[1] or self.preparation(0).mean is not None

    def _parameters(self, side: int) -> list[str]:
        wanted = {self.comparison.features[side].id}
        found: list[str] = []
        for node in reversed(self.net.graph.nodes):
            if any(top.id in wanted for top in node.tops):
                wanted.update(bottom.id for bottom in node.bottoms)
                found.append(f"{node.type} {[use.param.id for use in node.params]}")
        return found

    def embed(self, images: Floats, side: int = 0) -> Floats:
        """The features, (N, K), of prepared images (N, C, H, W) of any number; `side` 1 is the second tower."""
        side = self._side(side)
        blobs = self._image_blobs()[side]
        if side not in self._parts:
            self._parts[side] = Part(self.net, blobs, [self.comparison.features[side]])
        part = self._parts[side]
        found = []
        for begin in range(0, len(images), part.batch):
            batch = torch.from_numpy(numpy.ascontiguousarray(images[begin : begin + part.batch], numpy.float32))
            found.append(part(*[batch] * len(blobs))[0].flatten(1).cpu().numpy())
        return numpy.concatenate(found)

    def embed_images(
        self,
        images: LabelledImages,
        rows: NDArray[numpy.intp] | None = None,
        side: int = 0,
        progress: Callable[[int], None] = _ignore,
    ) -> Floats:
        """The features, (N, K), of images as they lie in files, or of some of them.

        Raises DataError, naming the image, where one cannot be read or has a feature that is not finite.
        """
        rows = numpy.arange(len(images)) if rows is None else rows
        prepare = self.preparation(side)
        found = []
        for begin in range(0, len(rows), _ROWS_AT_ONCE):
            part = rows[begin : begin + _ROWS_AT_ONCE]
            prepared = prepare(images.images(part))
            bad = not_finite(prepared)
            if bad is not None:
                name = images.names[int(part[bad.row])]
                raise DataError(f"image {quoted(name)} has values that are NaN or infinite; correct it")
            features = self.embed(prepared, side)
            broken = numpy.flatnonzero(~numpy.isfinite(features).all(1))
            if len(broken):
                raise DataError(
                    f"the feature of {quoted(images.names[int(part[broken[0]])])} is not finite; are these the weights "
                    "of a training that diverged?"
                )
            found.append(features)
            progress(begin + len(part))
        return numpy.concatenate(found)

    def _side(self, side: int) -> int:
        return min(side, len(self.comparison.features) - 1)

    def _image_blobs(self) -> tuple[tuple[Blob, ...], ...]:
        if self._images is None:
            self._images = image_blobs(self.net.graph, self.comparison.features, self.choice.inputs)
        return self._images


def open_twin(
    model: Model,
    weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    choice: Choice | None = None,
    *,
    level: int = 0,
    stages: Sequence[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    allow_python_layers: bool = False,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Twin:
    """Make a net for phase TEST with trained weights, and find out what it compares.

    `seed` settles what its data layers draw.

    Raises NetError where the files cannot be used, where no layer of the weights is one of the net's, and where it
    cannot be told what the net compares.
    """
    allowed = allow_python_layers
    net = Net(model, "TEST", None, level, stages, shapes, allow_python_layers=allowed, seed=seed, writes_files=False)
    net.to(device)
    twin = Twin(net, choice)
    paths = [weights] if isinstance(weights, str | os.PathLike) else list(weights)
    loaded = {name for path in paths for name in net.load_weights(path).loaded}
    _check_loaded(net, loaded, ", ".join(os.fspath(path) for path in paths))
    return twin


def _check_loaded(net: Net, loaded: set[str], path: str) -> None:
    """Raise WeightsError where a layer would run with the numbers that it was filled with."""
    filled = {use.param.id for node in net.graph.nodes if node.name in loaded for use in node.params}
    lacking = [node.name for node in net.graph.nodes if any(use.param.id not in filled for use in node.params)]
    if lacking:
        raise WeightsError(
            f"{path}: has nothing for {len(lacking)} layers of the net, {quoted(lacking[0])} first; give the weights "
            "that were trained with it"
        )
