"""How many records a data layer goes through."""

from __future__ import annotations

from typing import NamedTuple

from siamese_proto.data.database import open_database
from siamese_proto.data.images import ImageData
from siamese_proto.data.layers import Data
from siamese_proto.files import find_path
from siamese_proto.graph.ir import LayerLike


class Coverage(NamedTuple):
    """The records behind a data layer, and how many it takes at once."""

    source: str
    records: int
    batch_size: int


def coverage(layer: LayerLike) -> Coverage | None:
    """The records behind a layer; None where it reads none, or where they are not there. Raises DataError."""
    if not isinstance(layer, Data | ImageData) or not layer.batch_size:
        return None
    path = find_path(layer.source, layer.context.folder) if layer.source else None
    if path is None:
        return None
    if isinstance(layer, ImageData):
        return Coverage(layer.source, len(layer.entries()), layer.batch_size)
    with open_database(path, layer.backend) as database:
        return Coverage(layer.source, database.count(), layer.batch_size)
