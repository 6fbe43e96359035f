"""A single layer from its prototxt text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from google.protobuf import text_format
from torch import Tensor

import siamese_proto  # noqa: F401  # registers every layer type
from siamese_proto.errors import GraphError
from siamese_proto.graph.ir import LayerContext, Phase, Shape
from siamese_proto.layers.base import Layer, RunState, find_layer
from siamese_proto.proto import schema


def message(text: str, bottoms: int = 1, tops: int = 1) -> schema.LayerParameter:
    """Return the message of `type: "X" ...`, with this many bottoms and tops unless the text has some."""
    parsed = text_format.Parse(text, schema.LayerParameter())
    parsed.name = parsed.name or "it"
    if not parsed.bottom:
        parsed.bottom.extend(f"b{i}" for i in range(bottoms))
    if not parsed.top:
        parsed.top.extend(f"t{i}" for i in range(tops))
    return parsed


def make(text: str, bottoms: int = 1, tops: int = 1, phase: Phase = "TEST") -> Layer:
    """Return the configured layer."""
    parsed = message(text, bottoms, tops)
    return find_layer(parsed.type)(parsed, LayerContext(phase))


def refused(text: str, bottoms: Sequence[Shape], tops: int) -> GraphError:
    """Return the error raised by creating this layer or by bottoms of these shapes."""
    with pytest.raises(GraphError) as caught:
        make(text, len(bottoms), tops, "TRAIN").top_shapes(bottoms)
    return caught.value


def values(shape: Shape, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return numbers in -2 .. 2 with some ties, the same for the same seed."""
    numbers = torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(seed))
    return (numbers / 4).to(dtype)


def run(layer: Layer, *bottoms: Tensor, params: Sequence[Tensor] = (), state: RunState | None = None) -> list[Tensor]:
    """Return the tops of a forward pass."""
    return list(layer.forward(bottoms, params, state or RunState()))
