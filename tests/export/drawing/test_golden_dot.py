"""The DOT text of drawings. `UPDATE_GOLDEN=1 pytest tests/export/drawing/test_golden_dot.py` writes the files again.

Look at the pictures (`python tools/make_gallery.py`) and the diff before you commit them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import paths
import pytest
from drawn_nets import BOTH, NO_DATABASE, OWN_BIAS, PLAIN, THREE, TWIN, V1, gallery_net, graph_of

from siamese_proto.export.drawing import draw
from siamese_proto.graph.ir import Graph

GOLDEN = paths.GOLDEN / "drawing"


def graph_from(text: str) -> Callable[[], Graph]:
    return partial(graph_of, text)


def from_gallery(name: str) -> Callable[[], Graph]:
    return lambda: graph_of(gallery_net(name))


DRAWINGS = {
    "twin": (graph_from(TWIN), {}),
    "own_bias": (graph_from(OWN_BIAS), {}),
    "three": (graph_from(THREE), {}),
    "plain": (graph_from(PLAIN), {}),
    "no_database": (graph_from(NO_DATABASE), {}),
    "first_version": (graph_from(V1), {}),
    "unknown_layer": (graph_from(THREE.replace("TripletLoss", "NobodysLoss")), {"detail": "layers"}),
    "both_phases": (graph_from(BOTH), {"test": partial(graph_of, BOTH, "TEST")}),
    "twin_full": (graph_from(TWIN), {"detail": "full", "style": "dark"}),
    "twin_fused": (graph_from(TWIN), {"fused": True, "style": "paper"}),
    "three_across": (graph_from(THREE), {"rankdir": "LR", "learning_rates": True}),
    "pseudo_siamese": (from_gallery("pseudo_siamese"), {"style": "caffe"}),
    "half_twin": (from_gallery("half_twin"), {}),
    "nine_towers": (from_gallery("nine_towers"), {}),
    "nine_towers_collapsed": (from_gallery("nine_towers"), {"towers": "collapsed"}),
    "googlenet": (from_gallery("googlenet"), {"detail": "layers"}),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_dot_text_equals_the_golden_file(name: str) -> None:
    graph, look = DRAWINGS[name]
    if "test" in look:
        look = {**look, "test": look["test"]()}
    source = draw(graph(), **look).source
    path = GOLDEN / f"{name}.dot"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(source, encoding="utf-8")
    assert source == path.read_text(encoding="utf-8")


def test_every_golden_file_has_a_drawing() -> None:
    assert {path.stem for path in GOLDEN.glob("*.dot")} == set(DRAWINGS)
