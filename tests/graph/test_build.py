"""Graphs: blobs and their versions, shapes, outputs, where gradients flow, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import siamese_proto as sp
from siamese_proto.check.lint import lint
from siamese_proto.errors import Names
from siamese_proto.graph.gradient_flow import gradient_flow
from siamese_proto.graph.ir import Graph

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'


def build(text: str, **options: Any) -> Graph:
    return sp.build_graph(sp.parse_net(INPUT + text), **options)


def test_a_graph_prints_as_a_listing() -> None:
    graph = build(
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "h" param { name: "w" } '
        "inner_product_param { num_output: 5 } }\n"
        'layer { name: "r" type: "ReLU" bottom: "h" top: "h" }\n'
        'layer { name: "quiet" type: "Silence" bottom: "h" }\n'
    )
    assert str(graph).splitlines() == [
        "net (TRAIN)",
        "  x = Input()  (2, 3)",
        "  h = InnerProduct(x)  [w, ip_1]  (2, 5)",
        "  h@1 = ReLU(h)  (2, 5)",
        "  Silence(h@1)",
    ]


def test_outputs_are_the_unread_blobs_in_alphabetical_order() -> None:
    graph = build(
        'layer { name: "s" type: "Split" bottom: "x" top: "b" top: "c" top: "a" }\n'
        'layer { name: "p" type: "Power" bottom: "c" top: "Z" }\n'
        'layer { name: "q" type: "Power" bottom: "b" top: "b" }\n'
    )
    assert [blob.id for blob in graph.outputs] == ["Z", "a", "b@1"]


def test_repeated_and_odd_layer_names_get_unique_ids() -> None:
    graph = build(
        "".join(f'layer {{ name: "{n}" type: "Power" bottom: "x" top: "t{i}" }}\n' for i, n in enumerate("aa.1/ "))
    )
    ids = [node.id for node in graph.nodes]
    assert len(set(ids)) == len(ids)
    assert all(identifier.isidentifier() for identifier in ids)


def product(name: str, bottom: str, extra: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {extra} '
        "inner_product_param { num_output: 3 } }\n"
    )


FROZEN = "param { lr_mult: 0 } param { lr_mult: 0 }"


def cut(bottom: str, extra: str = "") -> str:
    """Return a blob of three columns sliced into parts of two and one."""
    return (
        f'layer {{ name: "s" type: "Slice" bottom: "{bottom}" top: "s0" top: "s1" {extra} '
        "slice_param { axis: 1 slice_point: 2 } }\n"
    )


LOSS = 'layer { name: "loss" type: "EuclideanLoss" bottom: "c" bottom: "x" top: "loss" }\n'


@pytest.mark.parametrize(
    ("layers", "needing", "flags"),
    [
        # Everything under the loss learns; the data needs no gradient.
        (product("a", "x") + product("b", "a") + product("c", "b") + LOSS, "a b c loss", {"a": (False,), "b": (True,)}),
        # Frozen layers before the first learning layer are skipped.
        (
            product("a", "x", FROZEN) + product("b", "a") + product("c", "b") + LOSS,
            "b c loss",
            {"a": (False,), "b": (False,), "c": (True,)},
        ),
        # Frozen layers after one are not.
        (product("a", "x") + product("b", "a", FROZEN) + product("c", "b") + LOSS, "a b c loss", {"b": (True,)}),
        # A branch that no loss depends on is dropped.
        (product("a", "x") + product("c", "x") + LOSS, "c loss", {"a": (False,), "loss": (True, False)}),
        # propagate_down: false stops the gradient for all layers before it.
        (
            product("a", "x") + product("c", "a", "propagate_down: false") + LOSS,
            "c loss",
            {"a": (False,), "c": (False,)},
        ),
        # ... and true asks for the gradient of the data.
        (product("c", "x", "propagate_down: true") + LOSS, "c loss", {"c": (True,)}),
        # A blob with a loss weight has a gradient even if its only reader needs none.
        (
            product("a", "x", "loss_weight: 1") + product("c", "a", "propagate_down: false") + LOSS,
            "a c loss",
            {"a": (False,), "c": (False,)},
        ),
        # One of two tops under a loss is enough,
        (
            product("a", "x") + cut("a") + product("c", "s0") + LOSS,
            "a s c loss",
            {"s": (True,), "c": (True,)},
        ),
        # also if the other's reader needs no gradient,
        (
            product("a", "x") + cut("a") + product("c", "s0") + product("d", "s1", "propagate_down: false") + LOSS,
            "a s c loss",
            {"s": (True,), "d": (False,)},
        ),
        # and if no layer reads the other.
        (
            product("a", "x") + cut("a") + product("c", "s0", "propagate_down: false") + LOSS,
            "a s c loss",
            {"s": (True,), "c": (False,)},
        ),
        # One loss weight on two tops is enough.
        (product("a", "x") + cut("a", "loss_weight: 2 loss_weight: 0"), "a s", {"s": (True,)}),
        # A blob read only by a branch without a loss is dropped, with another top that no layer reads.
        (
            product("a", "x") + cut("a") + product("d", "s0") + product("c", "x") + LOSS,
            "c loss",
            {"s": (False,), "d": (False,)},
        ),
    ],
)
def test_gradients_flow_as_in_caffe(layers: str, needing: str, flags: dict[str, tuple[bool, ...]]) -> None:
    graph = build(layers)
    gradients = gradient_flow(graph)
    assert [node.name for node in graph.nodes if node.id in gradients.nodes] == needing.split()
    assert {name: gradients.bottoms[name] for name in flags} == flags
    assert gradients.blobs == {
        blob.id
        for node in graph.nodes
        for blob, flag in zip(node.bottoms, gradients.bottoms[node.id], strict=True)
        if flag
    }


def test_shared_statistics_learn_nothing() -> None:
    text = 'layer { name: "n" type: "BatchNorm" bottom: "x" top: "n" param { name: "mean" } }\n'
    text += product("c", "n", "param { lr_mult: 0 } param { name: 'mean' }") + LOSS
    assert not gradient_flow(build(text)).nodes


def test_force_backward_gives_every_bottom_a_gradient_but_labels() -> None:
    text = """
    force_backward: true
    layer { name: "in" type: "Input" top: "x" top: "l" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
    layer { name: "s" type: "SoftmaxWithLoss" bottom: "x" bottom: "l" top: "loss" }
    """
    graph = sp.build_graph(sp.parse_net(text))
    assert gradient_flow(graph).bottoms["s"] == (True, False)
    assert graph.nodes[1].cut == (False, True)
    assert gradient_flow(graph).blobs == {"x"}
    unknown = sp.build_graph(sp.parse_net(text.replace("SoftmaxWithLoss", "Nobody")))
    assert gradient_flow(unknown).bottoms["s"] == (True, True)


def test_a_missing_database_leaves_shapes_unknown_and_is_noted() -> None:
    text = """
    layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "nowhere" batch_size: 4 } }
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 5 } }
    """
    graph = sp.build_graph(sp.parse_net(text))
    assert [blob.shape for blob in graph.blobs().values()] == [None, None, None]
    assert len(graph.params) == 2
    assert "<text>:2: layer 'd': database 'nowhere' is not there" in graph.notes[0]
    graph = sp.build_graph(sp.parse_net(text), shapes={"data": (7, 2, 5, 3)})
    assert [blob.shape for blob in graph.blobs().values()] == [(7, 2, 5, 3), (7,), (7, 5)]
    assert graph.params[0].shape == (5, 30)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            'layer { name: "a" type: "ReLU" bottom: "y" top: "z" }',
            "<text>:2: layer 'a': unknown bottom blob 'y' (index 0)",
        ),
        (
            'layer { name: "a" type: "Power" bottom: "x" top: "feature" }\n'
            'layer { name: "b" type: "Eltwise" bottom: "x" bottom: "featuer" top: "z" }',
            "<text>:3: layer 'b': unknown bottom blob 'featuer' (index 1); did you mean 'feature'?",
        ),
        (
            'layer { name: "a" type: "Power" bottom: "x" top: "y" }\n'
            'layer { name: "b" type: "Power" bottom: "x" top: "y" }',
            "<text>:3: layer 'b': top blob 'y' is produced by more than one layer; only a layer that has it as bottom "
            "0 too may change it in place",
        ),
        (
            'layer { name: "a" type: "Power" bottom: "x" top: "y"\n'
            "  include { phase: TRAIN }\n"
            '  exclude { stage: "s" } }',
            "<text>:4: layer 'a': has both include and exclude rules; give one kind only",
        ),
        (
            'layer { name: "a" type: "InnerProduct" bottom: "x"\n bottom: "x" top: "y" '
            "inner_product_param { num_output: 2 } }",
            "<text>:3: layer 'a': InnerProduct takes 1 bottom, got 2",
        ),
        (
            'layer { name: "a" type: "ContrastiveLoss" bottom: "x" bottom: "x" top: "y" }',
            "<text>:2: layer 'a': ContrastiveLoss takes 3 bottoms, got 2: the label is missing",
        ),
        (
            'layer { name: "a" type: "Eltwise" bottom: "x" bottom: "x" top: "y" loss_weight: 1 loss_weight: 0 }',
            "<text>:2: layer 'a': loss_weight is given 2 times for 1 tops; give it once a top or not at all",
        ),
        (
            'layer { name: "a" type: "Eltwise" bottom: "x" bottom: "x" top: "y" propagate_down: true }',
            "<text>:2: layer 'a': propagate_down is given 1 times for 2 bottoms; give it once a bottom or not at all",
        ),
        ('layer { name: "a" bottom: "x" top: "y" }', "<text>:2: layer 'a': the layer has no type"),
    ],
)
def test_contradictory_nets_are_refused(layers: str, message: str) -> None:
    with pytest.raises(sp.NetError) as caught:
        build(layers)
    assert str(caught.value) == message


def test_a_phase_or_shape_that_does_not_exist_is_refused() -> None:
    with pytest.raises(sp.NetError, match="phase is 'train'; it must be 'TRAIN' or 'TEST'"):
        build("", phase="train")
    with pytest.raises(sp.NetError, match="a shape is given for 'xx', which is no blob of the net"):
        build("", shapes={"xx": (1, 2)})


def test_check_reports_nothing_for_a_twin_that_shares_everything() -> None:
    names = 'param { name: "w" } param { name: "b" }'
    assert lint(build(product("a", "x", names) + product("a_p", "x", names))) == []


def test_check_reports_a_misspelt_name_and_a_missing_bias() -> None:
    graph = build(
        product("a", "x", 'param { name: "ip2_w" } param { name: "ip2_b" }')
        + product("a_p", "x", 'param { name: "ip2_w" } param { name: "ip2_right" }')
        + product("c", "x", 'param { name: "ip3_w" }')
        + product("c_p", "x", 'param { name: "ip3_w" }')
    )
    assert [str(finding) for finding in lint(graph)] == [
        "<text>:3: warning[shared-once]: layer 'a_p': param name 'ip2_right' is used by this layer only, so its bias "
        "is not shared; did you mean 'ip2_b', as in layer 'a'?",
        "<text>:5: warning[partly-shared]: layer 'c_p': shares parameters with layer 'c', but not its bias",
    ]


@pytest.mark.parametrize(
    ("source", "others"),
    [
        ('type: "Data" data_param { source: "nowhere" batch_size: 3 }', (4,)),
        ('type: "HDF5Data" hdf5_data_param { source: "nowhere" batch_size: 3 }', None),
        ('type: "Input" input_param { shape { dim: 1 dim: 2 } shape { dim: 5 dim: 6 } }', (5, 6)),
        ('type: "SomebodysData"', None),
    ],
    ids=["labels", "anything", "its shape", "unknown shape"],
)
def test_the_first_shape_of_a_source_determines_its_other_shapes(source: str, others: tuple[int, ...] | None) -> None:
    graph = sp.build_graph(f'layer {{ name: "d" top: "data" top: "more" {source} }}', shapes={"data": (4, 9)})
    assert [blob.shape for blob in graph.nodes[0].tops] == [(4, 9), others]


def test_a_misspelt_field_is_reported_instead_of_the_problems_it_causes() -> None:
    text = (
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } } }\n'
        'layer { name: "flat" type: "Flatten" bottom: "x" top: "flat" flatten_param { axis: 2 end_axs: 2 } }\n'
        'layer { name: "pool" type: "Pooling" bottom: "flat" top: "pool" pooling_param { kernel_size: 2 } }\n'
    )
    with pytest.raises(sp.NetError, match="<text>:2: layer 'flat': unknown field 'end_axs' in flatten_param; did you"):
        sp.build_graph(text)


def test_a_layer_of_an_unknown_type_has_no_problems_about_its_fields() -> None:
    text = INPUT + (
        'layer { name: "u" type: "Nobody" bottom: "x" top: "u"\n  nobody_param { a: 1 } }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "u" top: "ip" inner_product_param { num_output: 0 } }\n'
    )
    with pytest.raises(sp.NetError, match="num_output"):
        sp.build_graph(text)


def test_every_blob_has_a_unique_output_name() -> None:
    """A version that is changed in place later carries its number, unless a blob of the file has that name."""
    relus = 'layer { name: "r%d" type: "ReLU" bottom: "f" top: "f" }'
    text = f"""
    layer {{ name: "in" type: "Input" top: "f" top: "f@1" input_param {{ shape {{ dim: 2 }} }} }}
    {relus % 1} {relus % 2}"""
    graph = sp.build_graph(text)
    names = [graph.output_name(top) for node in graph.nodes for top in node.tops]
    assert names == ["f@0", "f@1", "f@1_", "f"]
    x, y = torch.tensor([-1.0, 2.0]), torch.tensor([3.0, 4.0])
    blobs = sp.Net(text).blobs(**{"f": x, "f@1": y})
    assert {name: blob.tolist() for name, blob in blobs.items()} == {
        "f@0": [-1, 2],
        "f@1": [3, 4],
        "f@1_": [0, 2],
        "f": [0, 2],
    }


class Counted(str):
    """A name that counts how often it is compared for a hint."""

    looks = 0

    def casefold(self) -> str:
        Counted.looks += 1
        return super().casefold()


def test_hints_for_many_unknown_blobs_compare_each_name_once() -> None:
    names, blobs = Names(), dict[str, None]()
    for number in range(500):
        blobs[Counted(f"blob{number}")] = None
        assert names.with_all(blobs).hint(f"blob{number}x") == f"; did you mean 'blob{number}'?"
    assert Counted.looks == 500
