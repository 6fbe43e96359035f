from __future__ import annotations

from dataclasses import replace

import pytest

from siamese_proto import build_graph, parse_net
from siamese_proto.graph.towers import Towers, find_towers, shared_blobs


def towers_of(text: str) -> tuple[Towers, ...]:
    return find_towers(build_graph(parse_net(text)))


def listed(towers: Towers) -> list[str]:
    return [" ".join(node.name for node in row) for row in towers.rows]


def image(name: str, channels: int = 3) -> str:
    shape = f"dim: 2 dim: {channels} dim: 9 dim: 11"
    return f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ {shape} }} }} }}'


def row(name: str) -> str:
    return image(name, 5).replace(" dim: 9 dim: 11", "")


def dense(name: str, bottom: str, weight: str = "", bias: str = "", outputs: int = 5) -> str:
    params = " ".join(f'param {{ name: "{blob}" }}' if blob else "param { }" for blob in (weight, bias))
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {params} '
        f"inner_product_param {{ num_output: {outputs} }} }}"
    )


def simple(name: str, kind: str, *bottoms: str, in_place: bool = False) -> str:
    top = bottoms[0] if in_place else name
    return f'layer {{ name: "{name}" type: "{kind}" {" ".join(f"bottom: {b!r}" for b in bottoms)} top: "{top}" }}'


def test_a_twin_is_found_with_the_layers_that_have_no_parameters() -> None:
    text = "\n".join(
        [
            image("x"),
            image("y"),
            simple("flat_x", "Flatten", "x"),
            dense("one", "flat_x", "w", "b"),
            simple("relu_x", "ReLU", "one", in_place=True),
            dense("two", "one", "w2", "b2", outputs=3),
            simple("flat_y", "Flatten", "y"),
            dense("uno", "flat_y", "w", "b"),
            simple("nothing alike", "ReLU", "uno", in_place=True),
            dense("due", "uno", "w2", "b2", outputs=3),
            simple("joined", "EuclideanLoss", "two", "due"),
        ]
    )
    (towers,) = towers_of(text)
    assert listed(towers) == ["flat_x flat_y", "one uno", "relu_x nothing alike", "two due"]
    assert towers.shares_all
    assert [node.name for node in towers.tower(1)] == ["flat_y", "uno", "nothing alike", "due"]


def test_towers_are_in_the_order_of_the_file() -> None:
    text = "\n".join(
        [
            image("x"),
            image("y"),
            dense("a1", "x", "w", "b"),
            dense("b1", "y", "w", "b"),
            dense("b2", "b1", "v", "c"),
            dense("a2", "a1", "v", "c"),
        ]
    )
    (towers,) = towers_of(text)
    assert listed(towers) == ["a1 b1", "a2 b2"]


def test_a_blob_that_is_not_shared_is_reported() -> None:
    text = "\n".join([image("x"), image("y"), dense("a", "x", "w", "b"), dense("b", "y", "w", "bb")])
    (towers,) = towers_of(text)
    assert shared_blobs(towers.rows[0]) == (True, False)
    assert towers.shares_any
    assert not towers.shares_all


def test_a_separate_layer_belongs_to_its_tower_if_later_layers_are_shared() -> None:
    """A sketch branch with an unshared first layer next to two photo branches that share theirs."""
    parts = []
    for name, weight in (("sketch", "own"), ("photo", "w"), ("other", "w")):
        parts += [image(name), dense(f"{name}1", name, weight, f"{weight}_b")]
        parts += [dense(f"{name}2", f"{name}1", "top", "top_b")]
    (towers,) = towers_of("\n".join(parts))
    assert listed(towers) == ["sketch1 photo1 other1", "sketch2 photo2 other2"]
    assert shared_blobs(towers.rows[0]) == (False, False)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_any_number_of_towers(count: int) -> None:
    parts = []
    for index in range(count):
        parts += [image(f"in{index}"), dense(f"n{index}", f"in{index}", "w", "b")]
    (towers,) = towers_of("\n".join(parts))
    assert towers.count == count


def test_weights_tied_along_the_depth_are_no_towers() -> None:
    text = "\n".join(
        [image("x"), dense("first", "x", "", "", 4), dense("a", "first", "w", "b", 4), dense("b", "a", "w", "b", 4)]
    )
    assert towers_of(text) == ()


def test_twins_without_names_are_found_by_their_structure() -> None:
    parts = [image("x"), image("y")]
    for end in ("x", "y"):
        parts += [dense(f"one_{end}", end), simple(f"relu_{end}", "ReLU", f"one_{end}", in_place=True)]
        parts += [dense(f"two_{end}", f"one_{end}", outputs=3)]
    parts.append(simple("joined", "Concat", "two_x", "two_y"))
    (towers,) = towers_of("\n".join(parts))
    assert listed(towers) == ["one_x one_y", "relu_x relu_y", "two_x two_y"]
    assert not towers.shares_any


def test_two_paths_from_one_blob_are_no_towers() -> None:
    text = "\n".join([image("x"), dense("a", "x"), dense("b", "x"), simple("sum", "Eltwise", "a", "b")])
    assert towers_of(text) == ()


def test_unlike_sides_without_names_are_no_towers() -> None:
    text = "\n".join(
        [image("x"), image("y"), dense("a", "x"), dense("b", "y", outputs=6), simple("both", "Concat", "a", "b")]
    )
    assert towers_of(text) == ()


def test_layers_that_join_towers_belong_to_none_of_them() -> None:
    text = "\n".join(
        [
            image("x"),
            image("y"),
            dense("a", "x", "w", "b"),
            dense("b", "y", "w", "b"),
            simple("ab", "Eltwise", "a", "b"),
            simple("ba", "Eltwise", "b", "a"),
        ]
    )
    (towers,) = towers_of(text)
    assert listed(towers) == ["a b"]


def test_a_plain_net_has_no_towers() -> None:
    assert towers_of("\n".join([image("x"), dense("a", "x"), dense("b", "a", outputs=3)])) == ()


def test_two_parts_of_a_learned_blob_are_no_towers() -> None:
    cut = 'layer { name: "cut" type: "Slice" bottom: "trunk" top: "c" top: "d" }'
    parts = [image("x"), dense("trunk", "x", outputs=6), cut, dense("a", "c"), dense("b", "d")]
    parts.append(simple("both", "Concat", "a", "b"))
    assert towers_of("\n".join(parts)) == ()


def test_sides_with_different_settings_are_no_towers_without_shared_names() -> None:
    parts = [image("x"), image("y"), dense("a", "x"), dense("b", "y")]
    parts += [simple("t", "TanH", "a"), simple("s", "Sigmoid", "b"), simple("both", "Concat", "t", "s")]
    assert towers_of("\n".join(parts)) == ()


def test_towers_end_at_a_layer_that_reads_the_other_tower() -> None:
    parts = [image("x"), image("y"), dense("a", "x", "w", "b"), dense("b", "y", "w", "b")]
    parts += [simple("e", "Eltwise", "a", "a"), simple("f", "Eltwise", "b", "a")]
    (towers,) = towers_of("\n".join(parts))
    assert listed(towers) == ["a b"]


def test_towers_end_at_layers_with_different_numbers_of_bottoms() -> None:
    parts = [image("x"), image("y"), dense("a", "x", "w", "b"), dense("b", "y", "w", "b")]
    parts.append(row("z"))
    for second in ("b", "z"):
        ends = [simple("e", "Concat", "a"), simple("f", "Concat", "b", second)]
        (towers,) = towers_of("\n".join([*parts, *ends]))
        assert listed(towers) == ["a b"]


def test_a_layer_without_a_bias_does_not_share_one() -> None:
    short = dense("b", "y", "w").replace("num_output", "bias_term: false num_output").replace("param { } ", "")
    (towers,) = towers_of("\n".join([image("x"), image("y"), dense("a", "x", "w", "b"), short]))
    assert shared_blobs(towers.rows[0]) == (True, False)


def test_towers_begin_after_a_layer_that_both_read() -> None:
    parts = [image("x"), dense("trunk", "x"), dense("a", "trunk", "w", "b"), dense("b", "trunk", "w", "b")]
    (towers,) = towers_of("\n".join(parts))
    assert listed(towers) == ["a b"]


def test_towers_begin_after_layers_of_which_they_read_different_tops() -> None:
    parts = [image("x", 4), image("y", 4)]
    parts += [f'layer {{ name: "cut_{c}" type: "Slice" bottom: "{c}" top: "{c}0" top: "{c}1" }}' for c in "xy"]
    towers = [
        towers_of("\n".join([*parts, dense("a", "x0", "w", "b"), dense("b", f"y{place}", "w", "b")]))
        for place in (0, 1)
    ]
    assert [listed(groups[0]) for groups in towers] == [["cut_x cut_y", "a b"], ["a b"]]


def test_towers_end_at_layers_with_different_numbers_of_tops() -> None:
    parts = [image("x"), image("y"), dense("a", "x", "w", "b", 6), dense("b", "y", "w", "b", 6)]
    parts += [
        f'layer {{ name: "cut_{c}" type: "Slice" bottom: "{c}" {" ".join(f"top: {c + str(i)!r}" for i in range(n))} }}'
        for c, n in (("a", 2), ("b", 3))
    ]
    parts += [simple("r", "ReLU", "a0"), simple("s", "ReLU", "b0")]
    (towers,) = towers_of("\n".join(parts))
    assert listed(towers) == ["a b", "cut_a cut_b"]


def test_no_layer_is_in_two_groups_of_towers() -> None:
    three = [layer for c in "xyz" for layer in (image(c), dense(f"one_{c}", c, "w", "b"))]
    two = [dense(f"two_{c}", f"one_{c}", "v", "c") for c in "xy"]
    assert [listed(towers) for towers in towers_of("\n".join([*three, *two]))] == [
        ["one_x one_y one_z"],
        ["two_x two_y"],
    ]
    mixed = [image("q"), dense("own", "q"), dense("two_x", "one_x", "v", "c"), dense("two_q", "own", "v", "c")]
    assert [listed(towers) for towers in towers_of("\n".join([*three, *mixed]))] == [
        ["one_x one_y one_z"],
        ["two_x two_q"],
    ]


def test_towers_without_names_contain_only_layers_before_their_join() -> None:
    parts = [image("x"), image("y")]
    for end in "xy":
        parts += [dense(f"one_{end}", end), simple(f"probe_{end}", "ReLU", f"one_{end}")]
        parts += [dense(f"two_{end}", f"one_{end}", outputs=3)]
    parts.append(simple("joined", "Concat", "two_x", "two_y"))
    (towers,) = towers_of("\n".join(parts))
    assert listed(towers) == ["one_x one_y", "two_x two_y"]


def pooling(side: str, method: str) -> str:
    settings = f"pooling_param {{ pool: {method} kernel_size: 3 }}"
    return f'layer {{ name: "p{side}" type: "Pooling" bottom: "{side}" top: "p{side}" {settings} }}'


@pytest.mark.parametrize(("method", "expected"), [("MAX", ["px py", "a b"]), ("AVE", ["a b"])])
def test_sides_without_names_end_where_their_settings_differ(method: str, expected: list[str]) -> None:
    parts = [image("x"), image("y"), pooling("x", "MAX"), pooling("y", method), dense("a", "px"), dense("b", "py")]
    (towers,) = towers_of("\n".join([*parts, simple("both", "Concat", "a", "b")]))
    assert listed(towers) == expected


def test_one_side_that_starts_after_a_learned_layer_of_another_is_no_tower_without_names() -> None:
    parts = [image("x"), row("y"), dense("trunk", "x"), simple("r", "ReLU", "trunk")]
    parts += [dense("a", "r"), dense("b", "y"), simple("both", "Concat", "a", "b")]
    assert towers_of("\n".join(parts)) == ()


def test_towers_begin_at_a_blob_without_a_producer() -> None:
    parts = [
        layer for c in "xy" for layer in (image(c), simple(f"r_{c}", "ReLU", c), dense(c + "1", f"r_{c}", "w", "b"))
    ]
    graph = build_graph(parse_net("\n".join(parts)))
    (towers,) = find_towers(replace(graph, nodes=tuple(node for node in graph.nodes if node.name != "r_y")))
    assert listed(towers) == ["x1 y1"]


def test_copies_that_read_one_input_are_towers_if_they_are_compared_but_not_if_they_are_summed() -> None:
    parts = [image("x"), dense("a", "x"), dense("b", "x")]
    loss = 'layer { name: "l" type: "Distance" bottom: "a" bottom: "b" top: "l" }'
    difference = simple("l", "Eltwise", "a", "b")[:-1] + "eltwise_param { coeff: 1 coeff: -1 } }"
    assert [listed(towers) for towers in towers_of("\n".join([*parts, loss]))] == [["a b"]]
    assert towers_of("\n".join([*parts, difference])) == ()
    assert towers_of("\n".join([*parts, simple("l", "Concat", "a", "b")])) == ()


def test_one_side_may_read_an_input_and_the_other_a_layer() -> None:
    parts = [image("x"), image("y"), row("z"), dense("a", "x"), dense("b", "y")]
    parts += [simple("e", "Eltwise", "a", "a"), simple("f", "Eltwise", "b", "z"), simple("both", "Concat", "e", "f")]
    (towers,) = towers_of("\n".join(parts))
    assert listed(towers) == ["a b", "e f"]


def test_sides_without_names_may_begin_at_a_blob_without_a_producer() -> None:
    parts = [image("x"), image("y"), dense("a", "x"), dense("b", "y"), simple("both", "Concat", "a", "b")]
    graph = build_graph(parse_net("\n".join(parts)))
    (towers,) = find_towers(replace(graph, nodes=graph.nodes[1:]))
    assert listed(towers) == ["a b"]
