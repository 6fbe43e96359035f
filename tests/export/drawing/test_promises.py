"""The contents of every drawing, read from its SVG: all shapes, counts, and shared parameters with their users."""

from __future__ import annotations

from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from drawn_nets import BOTH, OWN_BIAS, PLAIN, THREE, TWIN, V1, gallery_net, graph_of, tool
from geometry import frame
from svg_reader import classed, words

from siamese_proto.export.drawing import blob_numbers, draw, drawn_graph, to_svg
from siamese_proto.export.summary import summarize
from siamese_proto.graph.ir import Graph

NETS = {
    "twin": TWIN,
    "own bias": OWN_BIAS,
    "three": THREE,
    "plain": PLAIN,
    "first version": V1,
    "triplet": gallery_net("triplet"),
    "pseudo-siamese": gallery_net("pseudo_siamese"),
    "half twin": gallery_net("half_twin"),
    "nine towers": gallery_net("nine_towers"),
}


@pytest.fixture(params=NETS, scope="module")
def drawn(request: pytest.FixtureRequest) -> tuple[Graph, Element]:
    graph = graph_of(NETS[request.param])
    return graph, parsed(to_svg(draw(graph)))


def parsed(svg: str) -> Element:
    return ElementTree.fromstring(svg.replace("&#160;", " "))


def size(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else "x".join(map(str, shape)) or "scalar"


def test_every_shape_is_on_its_edges(drawn) -> None:
    graph, root = drawn
    numbers = blob_numbers(graph)
    for node in graph.nodes:
        for top in node.tops:
            for wire in classed(root, "wire", f"blob-{numbers[top.id]}"):
                if not wire.get("id").startswith("wire-output"):
                    assert size(top.shape) in words(wire)
    wired = {name for wire in classed(root, "wire") for name in wire.get("class").split()}
    folded = {bottom.id for node in graph.nodes if node.tops[0].version for bottom in node.bottoms}
    assert {f"blob-{numbers[blob]}" for blob in numbers if blob not in folded} <= wired


def test_every_parameter_is_in_the_boxes_of_its_users_with_its_shape(drawn) -> None:
    graph, root = drawn
    for number, param in enumerate(graph.params):
        users = [place for place, node in enumerate(graph.nodes) if param in [use.param for use in node.params]]
        boxes = classed(root, "layer", f"param-{number}")
        assert {name for box in boxes for name in box.get("class").split()} >= {f"layer-{place}" for place in users}
        chips = [chip for box in boxes for chip in classed(box, "chip", f"param-{number}")]
        assert len(chips) == len(users)
        assert all(words(chip).startswith(f"{param.name or param.role} {size(param.shape)}") for chip in chips)


def test_the_users_of_a_shared_parameter_are_connected_by_color_legend_and_lines(drawn) -> None:
    graph, root = drawn
    shared = 0
    for number, param in enumerate(graph.params):
        users = [node.name for node in graph.nodes if any(use.param.id == param.id for use in node.params)]
        entries = classed(root, "entry", f"param-{number}")
        assert len(entries) == (len(users) > 1)
        if len(users) < 2:
            continue
        shared += 1
        assert entries[0].get("id") == f"legend-{number}"
        assert words(entries[0]) == f"{param.name} {size(param.shape)}"
        chips = [*entries, *classed(root, "chip", f"param-{number}")]
        assert len({next(iter(chip)).get("fill") for chip in chips}) == 1
        assert all(name in words(legend_of(root)) for name in users)
        ties = {tie.get("id").rpartition("-")[0] for tie in classed(root, "tie", f"param-{number}")}
        assert len(ties) == 1
        pieces = classed(root, "tie", f"param-{number}")
        assert len(pieces) >= len(users) - 1
    assert shared == len(classed(root, "entry"))


def legend_of(root: Element) -> Element:
    return classed(root, "legend")[0]


def test_connecting_lines_run_from_box_to_box_in_the_color_of_the_parameter() -> None:
    root = parsed(to_svg(draw(graph_of(THREE))))
    first, second = (classed(root, "layer", f"layer-{number}")[0] for number in (3, 7))
    tie = next(tie for tie in classed(root, "tie") if "param-0" in tie.get("class").split())
    line = frame(tie)
    assert frame(first).right == pytest.approx(line.left, abs=1.5)
    assert frame(second).left == pytest.approx(line.right, abs=1.5)
    path = next(element for element in tie if element.tag.endswith("path"))
    chip = classed(root, "entry", "param-0")[0]
    assert path.get("stroke") == list(chip)[1].get("stroke")
    assert path.get("stroke-dasharray")


def test_every_layer_shows_its_parameters_and_multiply_adds(drawn) -> None:
    graph, root = drawn
    for number, (node, facts) in enumerate(zip(graph.nodes, summarize(graph).rows, strict=True)):
        text = words(classed(root, "layer", f"layer-{number}")[0])
        assert node.name in text
        if facts.parameters:
            assert f"{facts.parameters:,} parameters" in text
        if facts.multiply_adds:
            assert "multiply-adds" in text


def test_ids_and_classes_contain_no_name_of_the_file(drawn) -> None:
    _, root = drawn
    kinds = {
        *("graph", "node", "edge", "cluster", "layer", "output", "wire", "label", "tie", "chip", "entry", "legend"),
        *("style-plain", "detail-blobs"),
    }
    for group in root.iter("{http://www.w3.org/2000/svg}g"):
        plain = {name for name in group.get("class", "").split() if not name.rpartition("-")[2].isdigit()}
        assert plain <= kinds
    ids = [group.get("id") for group in root.iter("{http://www.w3.org/2000/svg}g") if group.get("id")]
    assert len(set(ids)) == len(ids)


def test_standard_words_are_used() -> None:
    root = parsed(to_svg(draw(graph_of(gallery_net("half_twin")))))
    text = words(root)
    assert "24 x 5x7, stride 1" in text  # kernel_h and kernel_w
    assert "MAX 2x2/2" in text


def test_nine_towers_collapse_to_one_and_all_their_layers_are_listed() -> None:
    graph = graph_of(gallery_net("nine_towers"))
    root = parsed(to_svg(draw(graph, towers="collapsed")))
    text = words(root)
    assert "x 9, shared" in text
    assert "conv1_1 \u2026 conv1_9" in text
    assert "9 blobs of 16x1x28x28" in text
    names = {name for box in classed(root, "layer") for name in box.get("class").split()}
    assert {f"layer-{number}" for number in range(len(graph.nodes))} <= names
    assert not classed(root, "tie")
    assert len(classed(root, "layer")) < 12 < len(classed(parsed(to_svg(draw(graph))), "layer"))
    inside = frame(classed(root, "tower")[0])
    boxes = {box.get("id"): frame(box) for box in classed(root, "layer")}
    first = next(number for number, node in enumerate(graph.nodes) if node.name == "conv1_1")
    assert inside.holds(boxes[f"layer-{first}"])
    assert not inside.holds(boxes["layer-0"])


def test_inputs_of_collapsed_towers_collapse_too() -> None:
    graph = graph_of(gallery_net("triplet"))
    root = parsed(to_svg(draw(graph, towers="collapsed")))
    assert "data_anchor \u2026 data_negative" in words(root)
    assert "3 blobs of 32x128" in words(root)


def test_towers_that_differ_are_drawn_separately() -> None:
    graph = graph_of(OWN_BIAS)
    assert draw(graph, towers="collapsed").source == draw(graph).source


def test_fused_towers_are_drawn_once_over_their_joined_batch() -> None:
    graph = graph_of(TWIN)
    root = parsed(to_svg(draw(graph, fused=True)))
    shown = drawn_graph(graph, fused=True)
    assert "JoinBatches" in words(root)
    assert "4x3x8x10" in words(root)
    assert sum(words(box).startswith("conv") for box in classed(root, "layer")) == 1
    assert len([node for node in shown.nodes if node.type == "Convolution"]) == 1


def test_numbers_count_the_graph_of_both_phases() -> None:
    train, test = graph_of(BOTH), graph_of(BOTH, phase="TEST")
    root = parsed(to_svg(draw(train, test=test)))
    shown = drawn_graph(train, test=test)
    for number, node in enumerate(shown.nodes):
        assert node.name in words(classed(root, "layer", f"layer-{number}")[0])


def test_multipliers_of_learning_rates_are_shown_on_request() -> None:
    graph = graph_of(V1)
    assert "lr_mult 2" in words(parsed(to_svg(draw(graph, learning_rates=True))))
    assert "lr_mult" not in words(parsed(to_svg(draw(graph))))


def test_full_detail_shows_fillers_multipliers_and_lines() -> None:
    text = V1.replace("num_output: 4", 'num_output: 4 weight_filler { type: "xavier" }')
    shown = words(parsed(to_svg(draw(graph_of(text), detail="full"))))
    assert "xavier" in shown
    assert "lr_mult 2" in shown
    assert "line 4" in shown


def test_low_detail_omits_counts_and_fillers() -> None:
    shown = words(parsed(to_svg(draw(graph_of(OWN_BIAS), detail="layers"))))
    assert "conv_w" in shown
    assert "not shared" in shown
    assert "multiply-adds" not in shown.partition("forward pass")[2]
    assert "+ ReLU" in shown


@pytest.mark.parametrize("style", ["plain", "caffe", "paper", "dark"])
def test_styles_distinguish_layers(style: str) -> None:
    graph = graph_of(TWIN.replace('"EuclideanLoss"', '"ContrastiveLoss"'))
    root = parsed(to_svg(draw(graph, style=style)))
    boxes = {words(box).split()[0]: box for box in classed(root, "layer")}

    def look(name: str) -> tuple[str, ...]:
        outlines = [shape for shape in boxes[name] if shape.tag.endswith(("path", "polygon"))]
        lines = [(shape.get("stroke"), shape.get("stroke-width")) for shape in outlines if shape.get("fill") == "none"]
        return (outlines[0].get("fill"), *lines[:1])

    looks = [look(name) for name in ("left", "conv", "loss")]
    assert len(set(looks)) == 3
    assert len(classed(root, "entry")) == 4


def test_the_gallery_shows_every_picture_once() -> None:
    gallery = tool("make_gallery")
    folder = gallery.DOCS / "gallery"
    assert {path.stem for path in folder.glob("*.svg")} == set(gallery.PICTURES)
    assert (folder / "README.md").read_text(encoding="utf-8") == gallery.page()
