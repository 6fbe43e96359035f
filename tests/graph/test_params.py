"""One tensor per name: owners, merged multipliers, shapes (net.cpp: AppendParam)."""

from __future__ import annotations

import pytest

import siamese_proto as sp
from siamese_proto.graph.ir import Graph

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'


def product(name: str, param: str, outputs: int = 5, bottom: str = "x") -> str:
    settings = f"inner_product_param {{ num_output: {outputs} }}"
    return f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {param} {settings} }}\n'


def build(*layers: str) -> Graph:
    return sp.build_graph(sp.parse_net(INPUT + "".join(layers)))


def test_the_first_layer_with_a_name_owns_the_parameter() -> None:
    graph = build(product("a", 'param { name: "w" } param { name: "b" }'), product("a_p", 'param { name: "w" }'))
    assert [(param.id, param.name, param.owner_name, param.shape) for param in graph.params] == [
        ("a_0", "w", "a", (5, 3)),
        ("a_1", "b", "a", (5,)),
        ("a_p_1", "", "a_p", (5,)),
    ]
    twin = graph.nodes[2]
    assert [(use.param.id, use.is_owner) for use in twin.params] == [("a_0", False), ("a_p_1", True)]


def test_parameters_without_a_name_are_never_shared() -> None:
    graph = build(product("a", 'param { name: "" }'), product("b", 'param { name: "" }'))
    assert len(graph.params) == 4


def test_a_bias_is_shared_without_its_weight() -> None:
    graph = build(product("a", 'param { } param { name: "b" }'), product("c", 'param { } param { name: "b" }'))
    assert graph.nodes[2].params[1].param is graph.nodes[1].params[1].param


@pytest.mark.parametrize(
    ("owner", "sharer", "third", "expected"),
    [
        ("", "", "", 1.0),
        ("lr_mult: 3", "", "", 3.0),
        ("", "lr_mult: 3", "", 3.0),
        ("", "", "lr_mult: 3", 3.0),
        ("lr_mult: 3", "lr_mult: 3", "", 3.0),
        ("", "lr_mult: 0", "lr_mult: 0", 0.0),
    ],
)
def test_a_multiplier_set_by_one_user_applies_to_all(owner: str, sharer: str, third: str, expected: float) -> None:
    graph = build(
        *(product(f"l{index}", f'param {{ name: "w" {spec} }}') for index, spec in enumerate((owner, sharer, third)))
    )
    assert graph.params[0].lr_mult == expected


def test_each_use_keeps_its_own_multiplier_for_the_gradient() -> None:
    graph = build(product("a", 'param { name: "w" lr_mult: 0 }'), product("b", 'param { name: "w" }'))
    assert [use.takes_gradient for node in graph.nodes[1:] for use in node.params[:1]] == [False, True]
    assert graph.params[0].lr_mult == 0


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            product("a", 'param { name: "w" lr_mult: 1 }'),
            product("b", 'param { name: "w" lr_mult: 2 }'),
            "<text>:3: layer 'b': shared param 'w' has lr_mult 2 here, but 1 at its owner, layer 'a', or at an earlier "
            "user; they must be equal",
        ),
        (
            product("a", 'param { name: "w" decay_mult: 1 }'),
            product("b", 'param { name: "w" decay_mult: 0 }'),
            "<text>:3: layer 'b': shared param 'w' has decay_mult 0 here, but 1 at its owner, layer 'a', or at an "
            "earlier user; they must be equal",
        ),
        (
            product("a", 'param { name: "w" }'),
            product("b", 'param { name: "w" }', outputs=7),
            "<text>:3: layer 'b': cannot share param 'w' with its owner, layer 'a': the owner's shape is (5, 3), this "
            "layer's is (7, 3)",
        ),
        (
            product("a", 'param { name: "w" }'),
            product("b", 'param { name: "w" }', outputs=3, bottom="a"),
            "<text>:3: layer 'b': cannot share param 'w' with its owner, layer 'a': the owner's shape is (5, 3), this "
            "layer's is (3, 5); the counts are equal: share_mode: PERMISSIVE would share them",
        ),
        (
            product("a", 'param { name: "w" }'),
            product("b", 'param { name: "w" share_mode: PERMISSIVE }', outputs=7),
            "<text>:3: layer 'b': cannot share param 'w' with its owner, layer 'a': the owner's shape is (5, 3), this "
            "layer's is (7, 3)",
        ),
        (
            product("a", "param { } param { } param { }"),
            "",
            "<text>:2: layer 'a': 3 param entries are given, but InnerProduct has 2 parameter blobs (weight, bias)",
        ),
    ],
)
def test_contradictions_are_refused_with_both_sides(first: str, second: str, message: str) -> None:
    with pytest.raises(sp.NetError) as caught:
        build(first, second)
    assert str(caught.value) == message


def test_the_share_mode_of_the_later_layer_decides_and_permissive_keeps_both_shapes() -> None:
    graph = build(
        product("a", 'param { name: "w" }'),
        product("b", 'param { name: "w" share_mode: PERMISSIVE }', outputs=3, bottom="a"),
    )
    assert [use.shape for node in graph.nodes[1:] for use in node.params[:1]] == [(5, 3), (3, 5)]
    assert graph.params[0].shape == (5, 3)


def problems(text: str) -> tuple[Graph, list[str]]:
    """Return the graph of a net with faults, and the texts of its problems."""
    texts: list[str] = []
    graph = sp.build_graph(sp.parse_net(text), on_problem=lambda problem: texts.append(str(problem)))
    return graph, texts


@pytest.mark.parametrize(
    "fault",
    [
        product("b", 'param { name: "w" } param { name: "v" }', bottom="nowhere"),
        product("b", 'param { name: "w" } param { name: "v" }', outputs=0),
        product("b", 'param { name: "w" } param { name: "v" }', outputs=7),
        product("b", 'param { name: "w" } param { name: "v" lr_mult: 2 } param { }'),
        product("b", 'param { name: "w" } param { name: "v" }').replace("InnerProduct", "Unheard"),
    ],
)
def test_a_broken_layer_or_one_of_unknown_type_still_uses_its_parameters(fault: str) -> None:
    graph, _ = problems(
        INPUT + product("a", 'param { name: "w" }') + fault + product("c", 'param { } param { name: "v" }')
    )
    first, middle, last = graph.nodes[1:]
    assert middle.params[0].param is first.params[0].param
    assert middle.params[1].param is last.params[1].param
    assert [param.owner_name for param in graph.params if param.name] == ["a", "b"]
    assert [use.is_owner for node in (first, middle, last) for use in node.params if use.param.name] == [
        True,
        False,
        True,
        False,
    ]


NO_DATABASE = 'layer { name: "in" type: "Data" top: "x" data_param { source: "no such database" batch_size: 2 } }\n'


def convolution(name: str, settings: str, params: str = 'param { name: "w" } param { name: "b" }') -> str:
    settings = f"convolution_param {{ {settings} }}"
    return f'layer {{ name: "{name}" type: "Convolution" bottom: "x" top: "{name}" {params} {settings} }}\n'


@pytest.mark.parametrize(
    ("first", "second", "name", "owners", "layers"),
    [
        (
            product("a", 'param { name: "w" }', outputs=40),
            product("b", 'param { name: "w" }', outputs=50),
            "w",
            "(40, ?)",
            "(50, ?)",
        ),
        (
            convolution("a", "num_output: 40 kernel_size: 5"),
            convolution("b", "num_output: 40 kernel_size: 3"),
            "w",
            "(40, ?, 5, ...)",
            "(40, ?, 3, ...)",
        ),
        (
            convolution("a", "num_output: 40 kernel_h: 5 kernel_w: 3"),
            convolution("b", "num_output: 40 kernel_h: 5 kernel_w: 2"),
            "w",
            "(40, ?, 5, 3)",
            "(40, ?, 5, 2)",
        ),
        (
            convolution("a", "num_output: 40 kernel_size: 5"),
            convolution("b", "num_output: 40 kernel_size: 5", 'param { name: "b" } param { name: "w" }'),
            "b",
            "(40,)",
            "(40, ?, 5, ...)",
        ),
        (
            convolution("a", "num_output: 40 kernel_size: 5"),
            product("b", 'param { name: "w" }', outputs=40),
            "w",
            "(40, ?, 5, ...)",
            "(40, ?)",
        ),
    ],
)
def test_settings_that_contradict_are_refused_without_a_database(
    first: str, second: str, name: str, owners: str, layers: str
) -> None:
    _, texts = problems(NO_DATABASE + first + second)
    assert texts == [
        f"<text>:3: layer 'b': cannot share param '{name}' with its owner, layer 'a': the owner's shape is {owners}, "
        f"this layer's is {layers}"
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (convolution("a", "num_output: 40 kernel_size: 5"), convolution("b", "num_output: 40 kernel_h: 5 kernel_w: 5")),
        (
            convolution("a", "num_output: 40 kernel_size: 5"),
            convolution("b", "num_output: 40 kernel_size: 5 pad: 2"),
        ),
        (
            convolution("a", "num_output: 40 kernel_size: 5 group: 2"),
            convolution("b", "num_output: 40 kernel_size: 5 group: 4"),
        ),
        (
            product("a", 'param { name: "w" }', outputs=40),
            product("b", 'param { name: "w" share_mode: PERMISSIVE }', outputs=20),
        ),
        (
            product("a", 'param { name: "w" }', outputs=40),
            INPUT.replace('"x"', '"k"').replace('"in"', '"in2"')
            + product("b", 'param { name: "w" share_mode: PERMISSIVE }', outputs=20, bottom="k"),
        ),
    ],
)
def test_settings_that_may_fit_are_accepted_without_a_database(first: str, second: str) -> None:
    assert problems(NO_DATABASE + first + second)[1] == []


def norm(param: str, bottom: str = "x") -> str:
    return f'layer {{ name: "n" type: "BatchNorm" bottom: "{bottom}" top: "n" {param} }}\n'


def test_multipliers_default_to_1_and_those_of_statistics_to_0() -> None:
    graph = build(product("a", 'param { name: "w" } param { decay_mult: 3 }'), norm("", "a"))
    assert [(param.lr_mult, param.decay_mult) for param in graph.params] == [(1, 1), (1, 3), (0, 0), (0, 0), (0, 0)]


@pytest.mark.parametrize("force", [False, True])
def test_force_backward_gives_frozen_parameters_a_gradient_but_statistics_never(force: bool) -> None:
    text = INPUT + product("a", "param { lr_mult: 0 }") + norm("", "a")
    graph = sp.build_graph(sp.parse_net(f"force_backward: {str(force).lower()}\n" + text))
    uses = [use.takes_gradient for node in graph.nodes for use in node.params]
    assert uses == [force, True, False, False, False]


@pytest.mark.parametrize("param", ["", "param { }", "param { lr_mult: 0 }", 'param { name: "m" decay_mult: 1 }'])
def test_a_statistic_takes_no_multiplier_but_0(param: str) -> None:
    graph = build(norm(param))
    name = "m" if "name" in param else ""
    assert [(param.name, param.lr_mult) for param in graph.params] == [(name, 0), ("", 0), ("", 0)]
    with pytest.raises(sp.NetError, match="lr_mult 2 is given for its mean, a statistic that is not learned"):
        build(norm("param { lr_mult: 2 }"))


def test_the_first_layer_of_a_net_may_be_of_unknown_type_and_name_parameters() -> None:
    unheard = 'layer { name: "u" type: "Unheard" top: "x" param { name: "w" } }\n'
    graph, _ = problems(unheard + product("a", 'param { name: "w" }'))
    assert len(graph.problems) == 1
    assert graph.nodes[1].params[0].param is graph.nodes[0].params[0].param
