"""Small databases and data layers for tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy
import paths
import pytest
from google.protobuf import text_format

import siamese_proto.data  # noqa: F401  # registers the data layers
from siamese_proto.data.databases.database import Backend, create_database
from siamese_proto.data.databases.datum import make_datum
from siamese_proto.graph.ir import LayerContext, Phase
from siamese_proto.layers.base import DataLayer, Feeder, RunState, find_layer
from siamese_proto.proto import schema

GOLDEN = paths.GOLDEN
BACKENDS: Sequence[Backend] = ("LEVELDB", "LMDB")


def copied(name: str, tmp_path: Path) -> str:
    """Copy a golden folder to a writable place; return its path."""
    return str(shutil.copytree(GOLDEN / name, tmp_path / Path(name).name))


def make_database(path: Path, images: Sequence[numpy.ndarray], backend: Backend = "LEVELDB") -> str:
    """Make a database of (C, H, W) images with labels 0, 1, 2, ...; return its path."""
    return make_raw_database(
        path, [make_datum(image, number).SerializeToString() for number, image in enumerate(images)], backend
    )


def make_raw_database(path: Path, values: Sequence[bytes], backend: Backend = "LEVELDB") -> str:
    with create_database(str(path), backend) as writer:
        writer.put([(b"%08d" % number, value) for number, value in enumerate(values)])
    return str(path)


def noise(*shape: int, seed: int = 1) -> numpy.ndarray:
    return numpy.random.default_rng(seed).integers(0, 256, shape).astype(numpy.uint8)


def make_layer(text: str, phase: Phase = "TRAIN", folder: str | None = None) -> DataLayer:
    """Return a configured data layer from the text of its message."""
    message = text_format.Parse(text, schema.LayerParameter())
    layer = find_layer(message.type)(message, LayerContext(phase, folder))
    assert isinstance(layer, DataLayer)
    return layer


def data_layer(
    path: object, more: str = "", *, backend: Backend = "LEVELDB", batch_size: int = 3, phase: Phase = "TRAIN"
) -> DataLayer:
    """Return a Data layer over a database, with more settings as text."""
    data_param = f'data_param {{ source: "{path}" backend: {backend} batch_size: {batch_size} }}'
    return make_layer(f'name: "d" type: "Data" top: "x" top: "y" {data_param} {more}', phase)


def drain(feeder: Feeder, count: int) -> list[list[numpy.ndarray]]:
    """Return the next batches as arrays."""
    return [[top.numpy() for top in feeder.next_batch()] for _ in range(count)]


def batches(layer: DataLayer, count: int, *, seed: int = 0, skip: int = 0) -> list[list[numpy.ndarray]]:
    """Return batches of a layer starting at number `skip`, and close its feeder."""
    feeder = layer.open(RunState(seed))
    try:
        if skip:
            feeder.skip(skip)
        return drain(feeder, count)
    finally:
        feeder.close()


def tool(name: str) -> str:
    """Return the path of a system program; if it is missing, skip the test, or fail in CI."""
    path = shutil.which(name)
    if path is None:
        assert "CI" not in os.environ, f"{name} is missing; see .ci/debian.txt"
        pytest.skip(f"{name} is not installed")
    return path
