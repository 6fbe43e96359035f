"""Texts of a drawing do not overlap, and none extends beyond its box, its frame or the page."""

from __future__ import annotations

import shutil
from xml.etree import ElementTree

import pytest
from drawn_nets import BOTH, gallery_net, graph_of, tool
from geometry import clipped, collisions, page, texts

from siamese_proto.export.drawing import draw, to_svg

GALLERY = tool("make_gallery")
SMALL = ("lenet_twin", "lenet_twin_paper", "half_twin", "nine_towers_collapsed")


def faults(svg: str) -> dict[str, list[object]]:
    """Return all texts that overlap, are clipped or are outside the page."""
    root = ElementTree.fromstring(svg)
    drawn = list(texts(root))
    assert drawn
    outside = [text.words for text in drawn if not page(root).holds(text)]
    return {"overlapping": collisions(drawn), "clipped": clipped(root), "outside": outside}


NONE = {"overlapping": [], "clipped": [], "outside": []}


@pytest.mark.parametrize("name", GALLERY.PICTURES)
def test_texts_of_the_gallery_do_not_overlap(name: str) -> None:
    path = GALLERY.DOCS / "gallery" / f"{name}.svg"
    assert faults(path.read_text(encoding="utf-8")) == NONE


@pytest.mark.skipif(shutil.which("dot") is None, reason="the system has no Graphviz")
@pytest.mark.parametrize("name", GALLERY.PICTURES)
def test_texts_do_not_overlap_with_the_graphviz_of_the_system(name: str) -> None:
    assert faults(GALLERY.PICTURES[name].drawn()) == NONE


@pytest.mark.parametrize("name", SMALL)
def test_the_gallery_is_up_to_date(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python tools/make_gallery.py` brings it up to date."""
    monkeypatch.setenv("PATH", "")  # graphviz-pure is next to Python
    path = GALLERY.DOCS / "gallery" / f"{name}.svg"
    assert GALLERY.PICTURES[name].drawn() == path.read_text(encoding="utf-8")


def test_the_picture_of_the_readme_equals_that_of_the_gallery() -> None:
    readme, gallery = GALLERY.DOCS / "images" / "mnist_siamese.svg", GALLERY.DOCS / "gallery" / "lenet_twin.svg"
    assert readme.read_bytes() == gallery.read_bytes()


@pytest.mark.parametrize("detail", ["layers", "blobs", "full"])
@pytest.mark.parametrize("rankdir", ["TB", "BT", "LR", "RL"])
def test_texts_do_not_overlap_in_any_direction_and_detail(rankdir: str, detail: str) -> None:
    train, test = graph_of(BOTH, pairs=(7, 2, 8, 10)), graph_of(BOTH, phase="TEST", pairs=(9, 2, 8, 10))
    assert faults(to_svg(draw(train, test=test, rankdir=rankdir, detail=detail))) == NONE


def test_letters_too_large_for_their_boxes_are_detected() -> None:
    svg = to_svg(draw(graph_of(gallery_net("half_twin"))))
    problems = faults(svg.replace('font-size="9.00"', 'font-size="12.00"'))
    assert problems["overlapping"]
    assert "864 parameters \u00b7 72.6 M multiply-adds" in problems["clipped"]


@pytest.mark.parametrize("name", ["lenet_twin", "triplet", "nine_towers", "googlenet", "resnet_152"])
def test_the_gallery_is_legible_at_the_width_of_a_readme(name: str) -> None:
    """The smallest letters are at least 8 pixels high if the image is scaled to 830 pixels."""
    root = ElementTree.parse(GALLERY.DOCS / "gallery" / f"{name}.svg").getroot()
    width = float(root.get("width", "").removesuffix("pt")) * 96 / 72
    sizes = [float(run.get("font-size")) for run in root.iter("{http://www.w3.org/2000/svg}text") if run.text.strip()]
    assert min(sizes) * 96 / 72 * min(1, 830 / width) >= 8
