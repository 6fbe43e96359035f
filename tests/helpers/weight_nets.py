"""Nets that several tests of weights files use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import paths
from numpy.typing import NDArray

import siamese_proto as sp
from siamese_proto.graph.ir import Graph

GOLDEN = paths.GOLDEN
Values = dict[str, NDArray[np.floating]]

TWIN = """
    name: "twin"
    layer { name: "in" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 3 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "a" top: "x" param { name: "w" } param { name: "c" }
            inner_product_param { num_output: 5 } }
    layer { name: "ip_p" type: "InnerProduct" bottom: "b" top: "y" param { name: "w" } param { name: "c" }
            inner_product_param { num_output: 5 } }
    layer { name: "join" type: "Concat" bottom: "x" bottom: "y" top: "xy" }
    layer { name: "last" type: "InnerProduct" bottom: "xy" top: "z" inner_product_param { num_output: 4 } }
"""


def graph_of(text: str, **shapes: tuple[int, ...]) -> Graph:
    return sp.build_graph(sp.parse_net(text), "TRAIN", shapes=shapes)


def flagship() -> Graph:
    return golden(GOLDEN / "flagship" / "net.prototxt", {"pair_data": (64, 2, 28, 28)})


def golden_twin() -> Graph:
    return golden(GOLDEN / "solver" / "net.prototxt", {"pair": (8, 2, 6, 6)})


def golden(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    return sp.build_graph(sp.parse_net(path), "TRAIN", shapes=shapes)


def random_values(graph: Graph, seed: int = 7) -> Values:
    """Return values by Param.id with bit patterns that a careless copy would change."""
    random = np.random.default_rng(seed)
    values: Values = {}
    for param in graph.params:
        assert param.shape is not None
        array = random.standard_normal(param.shape).astype(np.float32)
        flat = array.reshape(-1)
        flat[:3] = np.array([0x7FC00001, 0x80000000, 0x00000001], np.uint32).view(np.float32)[: flat.size]
        values[param.id] = array
    return values


def bits(array: NDArray[np.floating] | None) -> tuple[tuple[int, ...], bytes]:
    assert array is not None
    assert array.dtype == np.float32
    return array.shape, array.tobytes()
