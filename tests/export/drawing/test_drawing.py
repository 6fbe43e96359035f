from __future__ import annotations

from drawn_nets import BOTH, NO_DATABASE, OWN_BIAS, PLAIN, THREE, TWIN, graph_of, inputs
from svg_reader import arrows, boxes, corner, fill_behind, rendered, words

import siamese_proto
from siamese_proto.export.drawing import draw


def test_corresponding_layers_are_at_equal_height_and_towers_run_from_left_to_right() -> None:
    shown = boxes(rendered(draw(graph_of(THREE))))
    for layer in ("conv", "pool", "ip"):
        places = [corner(shown[f"layer_{layer}_{end}"]) for end in "abc"]
        assert len({y for _, y in places}) == 1
        assert [x for x, _ in places] == sorted(x for x, _ in places)
    heights = [corner(shown[f"layer_{layer}_a"])[1] for layer in ("conv", "pool", "ip")]
    assert heights == sorted(heights)


def test_towers_are_stacked_in_a_drawing_from_left_to_right() -> None:
    shown = boxes(rendered(draw(graph_of(THREE), rankdir="LR")))
    places = [corner(shown[f"layer_conv_{end}"]) for end in "abc"]
    assert [y for _, y in places] == sorted(y for _, y in places)
    assert corner(shown["layer_conv_a"])[0] < corner(shown["layer_ip_a"])[0]


def test_the_layer_that_joins_two_towers_is_between_them() -> None:
    shown = boxes(rendered(draw(graph_of(TWIN))))
    first, loss, last = (corner(shown[f"layer_{name}"])[0] for name in ("ip", "loss", "ip_q"))
    assert first < loss < last


def test_a_shared_parameter_has_a_unique_color_at_every_user_and_in_the_legend() -> None:
    root = rendered(draw(graph_of(TWIN)))
    shown = boxes(root)
    colors = {}
    for blob, shape, layer in (
        ("conv_w", "4x3x3x3", "conv"),
        ("conv_b", "4", "conv"),
        ("ip_w", "5x48", "ip"),
        ("ip_b", "5", "ip"),
    ):
        users = {fill_behind(shown[f"layer_{layer}{end}"], f"{blob} {shape}") for end in ("", "_q")}
        legend = fill_behind(root, f"{blob} {shape}")
        assert users == {legend}
        colors[blob] = legend
    assert len(set(colors.values())) == 4


def test_the_legend_lists_the_layers_that_share_a_parameter() -> None:
    text = words(rendered(draw(graph_of(TWIN))))
    assert "Shared parameters" in text
    assert "conv_w 4x3x3x3 conv_b 4 conv, conv_q" in text
    assert "ip_w 5x48 ip_b 5 ip, ip_q" in text


def test_a_plain_net_has_no_legend_and_no_unshared_parameters() -> None:
    text = words(rendered(draw(graph_of(PLAIN))))
    assert "shared" not in text.lower()


def test_a_parameter_that_one_twin_does_not_share_is_highlighted() -> None:
    shown = boxes(rendered(draw(graph_of(OWN_BIAS))))
    assert "ip_b 5 not shared" in words(shown["layer_ip"])
    assert "ip_bb 5 not shared" in words(shown["layer_ip_q"])
    assert "not shared" not in words(shown["layer_conv"])
    assert "not shared" not in words(rendered(draw(graph_of(TWIN))))


def test_edges_show_shapes_and_blob_names_that_differ_from_the_layer() -> None:
    shown = arrows(rendered(draw(graph_of(NO_DATABASE, pairs=(7, 2, 8, 10), sim=(7,)))))
    assert shown["layer_conv->layer_pool"] == "7x4x6x8"
    assert shown["layer_cut->layer_conv_q"] == "right 7x1x8x10"
    assert shown["layer_pairs->layer_loss"] == "sim 7"


def test_a_blob_that_several_layers_read_has_an_edge_to_each() -> None:
    shown = arrows(rendered(draw(graph_of(PLAIN))))
    readers = [edge for edge in shown if edge.startswith("layer_conv->")]
    assert sorted(readers) == ["layer_conv->layer_both", "layer_conv->layer_narrow", "layer_conv->layer_wide"]


def test_in_place_layers_are_drawn_in_the_box_of_their_producer() -> None:
    shown = boxes(rendered(draw(graph_of(TWIN))))
    assert "layer_relu" not in shown
    assert words(shown["layer_ip"]).endswith("relu ReLU")


def test_a_blob_read_before_it_is_changed_in_place_keeps_its_box() -> None:
    text = (
        inputs("data")
        + """
        layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
                convolution_param { num_output: 4 kernel_size: 3 } }
        layer { name: "before" type: "TanH" bottom: "conv" top: "before" }
        layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
        layer { name: "sum" type: "Eltwise" bottom: "conv" bottom: "before" top: "sum" }
    """
    )
    shown = arrows(rendered(draw(graph_of(text))))
    assert {"layer_conv->layer_before", "layer_conv->layer_relu", "layer_relu->layer_sum"} <= shown.keys()


def test_the_title_counts_shared_parameters_once() -> None:
    """conv: 4*3*3*3 + 4 = 112; ip: 5*48 + 5 = 245; a multiply-add for each weight and place."""
    text = words(rendered(draw(graph_of(TWIN))))
    assert "twin TRAIN · 357 parameters (714 unshared)" in text
    multiply_adds = 2 * (2 * 4 * 6 * 8 * 27 + 2 * 5 * 48)
    assert f"{multiply_adds / 1000:.1f} k multiply-adds" in text


def test_shapes_are_omitted_if_the_database_is_missing() -> None:
    root = rendered(draw(graph_of(NO_DATABASE)))
    assert "some shapes are not known" in words(root)
    assert arrows(root)["layer_conv->layer_pool"] == ""
    assert "conv_w" in words(boxes(root)["layer_conv"])
    assert "TRAIN only" in words(boxes(root)["layer_pairs"])


def test_an_unknown_type_is_drawn_as_unknown() -> None:
    shown = boxes(rendered(draw(graph_of(THREE.replace("TripletLoss", "NobodysLoss")))))
    assert "NobodysLoss: unknown type" in words(shown["layer_far"])


def test_data_and_loss_layers_have_a_different_style() -> None:
    shown = boxes(rendered(draw(graph_of(TWIN))))
    fills = {fill_behind(shown[f"layer_{name}"], name) for name in ("left", "pool", "loss", "conv")}
    assert len(fills) == 4


def test_loss_weights_other_than_one_are_shown() -> None:
    shown = boxes(rendered(draw(graph_of(TWIN.replace('top: "loss"', 'top: "loss" loss_weight: 0.25')))))
    assert "loss weight 0.25" in words(shown["layer_loss"])
    assert "loss weight" not in words(rendered(draw(graph_of(TWIN))))


def test_the_outputs_of_a_net_are_labeled() -> None:
    shown = boxes(rendered(draw(graph_of(PLAIN))))
    assert words(shown["output_0"]) == "prob 2x12x6x8"


def test_layers_with_the_same_name_are_drawn_separately() -> None:
    text = TWIN.replace('"pool_q" type', '"pool" type')
    shown = boxes(rendered(draw(graph_of(text))))
    assert sum(words(box).startswith("pool Pooling") for box in shown.values()) == 2


def test_the_public_name_refers_to_the_function() -> None:
    assert siamese_proto.draw is draw
    assert siamese_proto.draw(graph_of(PLAIN)).source == draw(graph_of(PLAIN)).source


def test_both_phases_are_drawn_together_and_layers_of_a_single_phase_are_marked() -> None:
    train, test = graph_of(BOTH), graph_of(BOTH, phase="TEST")
    root = rendered(draw(train, test=test))
    shown = boxes(root)
    assert "TRAIN and TEST" in words(root)
    assert "TRAIN only" in words(shown["layer_pairs"])
    assert "TEST only" in words(shown["layer_tests"])
    assert "TEST only" in words(shown["layer_far"])
    assert "only" not in words(shown["layer_conv"])
    assert {"layer_pairs->layer_cut", "layer_tests->layer_cut", "layer_ip->layer_far"} <= arrows(root).keys()
    outputs = {words(box) for name, box in shown.items() if name.startswith("output_")}
    assert outputs == {"loss", "far"}
