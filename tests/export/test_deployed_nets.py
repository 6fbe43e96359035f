"""The inference net computes the same as the training net, with the same weights matched by layer name."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import paths
import pytest
import torch

import siamese_proto as sp
from siamese_proto.check.net import check_net
from siamese_proto.export.deploy import Deployment, deploy
from siamese_proto.graph.ir import Shape

GOLDEN = paths.GOLDEN
FLAGSHIP = GOLDEN / "flagship" / "net.prototxt"
PAIRS = {"pair_data": (64, 2, 28, 28)}


def deployed(text: str, *outputs: str, both: bool = False, **shapes: Shape) -> Deployment:
    deployment = deploy(sp.parse_net(text), both=both, outputs=outputs, shapes=shapes)
    assert [finding for finding in check_net(deployment.text) if finding.severity == "error"] == []
    return deployment


def listed(deployment: Deployment) -> list[str]:
    return [f"{', '.join(m.top)} = {m.type}({', '.join(m.bottom)})" for m in deployment.net.message.layer]


def weights_of(text: str | Path, path: Path, **shapes: Shape) -> sp.Net:
    """Save a net with random values in all its arrays to a file."""
    net = sp.Net(text, "TRAIN", shapes=shapes, fuse=False)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in net.tensors.values():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.6 - 0.2)
    net.save_weights(path)
    return net


def test_one_tower_computes_the_features_of_the_twin(tmp_path: Path) -> None:
    deployment = deploy(sp.parse_net(FLAGSHIP), shapes=PAIRS)
    (tmp_path / "deploy.prototxt").write_text(deployment.text)
    tower = sp.Net(tmp_path / "deploy.prototxt", "TEST")
    report = tower.load_weights(GOLDEN / "flagship" / "snap_iter_100.caffemodel")
    assert report.missing == ()
    twin = sp.Net(FLAGSHIP, "TEST", shapes=PAIRS, fuse=False)
    twin.load_weights(GOLDEN / "flagship" / "snap_iter_100.caffemodel")
    pairs = torch.rand(5, 2, 28, 28, generator=torch.Generator().manual_seed(1))
    blobs = twin.blobs(pair_data=pairs, sim=torch.ones(5))
    assert [layer.name for layer in deployment.net.message.layer][:2] == ["data", "conv1"]
    assert tuple(deployment.net.message.layer[0].input_param.shape[0].dim) == (1, 1, 28, 28)
    for side, name in ((0, "feat"), (1, "feat_p")):
        torch.testing.assert_close(tower(data=pairs[:, side : side + 1])["feat"], blobs[name], rtol=1e-6, atol=1e-7)
    assert "scale: 0.00390625" in deployment.comments[0]


def test_both_towers_give_their_distance(tmp_path: Path) -> None:
    deployment = deploy(sp.parse_net(FLAGSHIP), both=True, shapes=PAIRS)
    (tmp_path / "deploy.prototxt").write_text(deployment.text)
    both = sp.Net(tmp_path / "deploy.prototxt", "TEST", fuse=False)
    assert both.load_weights(GOLDEN / "flagship" / "snap_iter_100.caffemodel").missing == ()
    one = sp.Net(deploy(sp.parse_net(FLAGSHIP), shapes=PAIRS).text, "TEST")
    one.load_weights(GOLDEN / "flagship" / "snap_iter_100.caffemodel")
    first, second = torch.rand(2, 5, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    second[4] = first[4]
    expected = (one(data=first)["feat"].double() - one(data=second)["feat"].double()).norm(dim=1)  # (N,)
    results = both(data=first, data_p=second)
    assert list(results) == ["distance"]
    torch.testing.assert_close(results["distance"].double(), expected, rtol=1e-4, atol=1e-5)
    assert results["distance"][4] == 0
    types = {layer.type for layer in deployment.net.message.layer}
    assert types == {"Input", "Convolution", "Pooling", "InnerProduct", "ReLU", "Eltwise", "Reduction", "Power"}
    assert len(both.graph.params) == 10  # still shared


def dense(name: str, bottom: str, outputs: int, params: str = "") -> str:
    settings = f'inner_product_param {{ num_output: {outputs} weight_filler {{ type: "xavier" }} }}'
    return f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {params} {settings} }}\n'


def loss(kind: str, *bottoms: str) -> str:
    return f'layer {{ name: "loss" type: "{kind}" {" ".join(f"bottom: {b!r}" for b in bottoms)} top: "loss" }}\n'


DATA = (
    'layer { name: "d" type: "DummyData" top: "x" top: "y" include { phase: TRAIN }\n'
    "  dummy_data_param { shape { dim: 8 dim: 6 } shape { dim: 8 } } }\n"
    'layer { name: "d" type: "DummyData" top: "x" top: "y" include { phase: TEST }\n'
    "  dummy_data_param { shape { dim: 4 dim: 6 } shape { dim: 4 } } }\n"
)
HEADS = (
    dense("ip1", "x", 5, "param { lr_mult: 1 } param { lr_mult: 2 }")
    + 'layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }\n'
    + dense("ip2", "ip1", 3)
)
TOP = 'layer { name: "acc" type: "Accuracy" bottom: "ip2" bottom: "y" top: "acc" include { phase: TEST } }\n'


@pytest.mark.parametrize(
    ("kind", "last"), [("SoftmaxWithLoss", "Softmax"), ("HingeLoss", None), ("EuclideanLoss", None)]
)
def test_data_labels_and_losses_are_removed_from_a_plain_net(kind: str, last: str | None, tmp_path: Path) -> None:
    text = f'name: "plain"\n{DATA}{HEADS}{TOP if kind != "EuclideanLoss" else ""}'
    label = "y" if kind != "EuclideanLoss" else "t"
    if label == "t":
        text += 'layer { name: "t" type: "DummyData" top: "t" dummy_data_param { shape { dim: 4 dim: 3 } } }\n'
    deployment = deployed((text + loss(kind, "ip2", label)).replace("dim: 8", "dim: 4"))
    expected = ["x = Input()", "ip1 = InnerProduct(x)", "ip1 = Dropout(ip1)", "ip2 = InnerProduct(ip1)"]
    assert listed(deployment) == expected + ([f"prob = {last}(ip2)"] if last else [])
    assert not any(
        m.param or m.include or m.inner_product_param.HasField("weight_filler") for m in deployment.net.message.layer
    )
    trained = weights_of((text + loss(kind, "ip2", label)).replace("dim: 8", "dim: 4"), tmp_path / "w.caffemodel")
    net = sp.Net(deployment.text, "TEST")
    assert net.load_weights(tmp_path / "w.caffemodel").missing == ()
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(2))
    weight, bias, weight2, bias2 = trained.tensors.values()
    scores = (x @ weight.T + bias) @ weight2.T + bias2
    result = net(x=x)["prob" if last else "ip2"]
    torch.testing.assert_close(result, scores.softmax(1) if last else scores)


def twin(before: str = "", after: str = "", first: str = "a", second: str = "b") -> str:
    shared = 'param { name: "w" } param { name: "c" }'
    return (
        'layer { name: "d" type: "DummyData" top: "pairs" top: "sim"\n'
        "  dummy_data_param { shape { dim: 4 dim: 6 } shape { dim: 4 } } }\n"
        + before
        + f'layer {{ name: "cut" type: "Slice" bottom: "{"scaled" if before else "pairs"}" top: "a" top: "b"\n'
        + "  slice_param { axis: 1 } }\n"
        + dense("one", first, 5, shared)
        + dense("two", second, 5, shared)
        + after
        + loss("ContrastiveLoss", "one", "two", "sim")
    )


def test_layers_before_the_slice_are_applied_to_a_single_side_too(tmp_path: Path) -> None:
    text = twin('layer { name: "s" type: "Power" bottom: "pairs" top: "scaled" power_param { scale: 0.5 shift: 2 } }\n')
    deployment = deployed(text)
    assert listed(deployment) == ["pairs = Input()", "scaled = Power(pairs)", "one = InnerProduct(scaled)"]
    assert tuple(deployment.net.message.layer[0].input_param.shape[0].dim) == (1, 3)
    trained = weights_of(text, tmp_path / "w.caffemodel")
    net = sp.Net(deployment.text, "TEST")
    net.load_weights(tmp_path / "w.caffemodel")
    pairs = torch.rand(4, 6, generator=torch.Generator().manual_seed(2))
    blobs = trained.blobs(pairs=pairs, sim=torch.ones(4))
    torch.testing.assert_close(net(pairs=pairs[:, :3])["one"], blobs["one"])
    both = deployed(text, both=True)
    assert listed(both)[:3] == ["pairs = Input()", "scaled = Power(pairs)", "a, b = Slice(scaled)"]


def test_learned_layers_before_the_slice_keep_the_towers_together() -> None:
    text = twin(dense("s", "pairs", 6).replace('top: "s"', 'top: "scaled"'))
    with pytest.raises(sp.NetError) as raised:
        deployed(text)
    assert str(raised.value) == (
        "<text>:3: layer 's' processes the data of all towers before they are split, so one tower needs the others; "
        "deploy all with --both"
    )
    assert listed(deployed(text, both=True))[-1] == "distance = Power(squared_distance)"


def test_three_towers_give_two_distances() -> None:
    text = (
        'layer { name: "d" type: "Input" top: "a" top: "p" top: "n" input_param { shape { dim: 4 dim: 6 } } }\n'
        + "".join(dense(f"f_{side}", side, 5, 'param { name: "w" } param { name: "c" }') for side in "apn")
        + 'layer { name: "t" type: "TripletLoss" bottom: "f_a" bottom: "f_p" bottom: "f_n" top: "t" }\n'
    )
    assert listed(deployed(text)) == ["a = Input()", "f_a = InnerProduct(a)"]
    assert [line.partition(" ")[0] for line in listed(deployed(text, both=True))] == [
        *("a", "p", "n", "f_a", "f_p", "f_n"),
        *("difference1", "squared_distance1", "distance1", "difference2", "squared_distance2", "distance2"),
    ]


def test_towers_that_a_learned_head_joins_keep_it() -> None:
    text = twin(
        after='layer { name: "cat" type: "Concat" bottom: "one" bottom: "two" top: "cat" }\n' + dense("score", "cat", 2)
    ).replace(loss("ContrastiveLoss", "one", "two", "sim"), loss("SoftmaxWithLoss", "score", "sim"))
    deployment = deployed(text, both=True)
    assert listed(deployment)[-3:] == ["cat = Concat(one, two)", "score = InnerProduct(cat)", "prob = Softmax(score)"]


def test_outputs_can_be_specified() -> None:
    assert listed(deployed(DATA + HEADS, "ip1")) == ["x = Input()", "ip1 = InnerProduct(x)", "ip1 = Dropout(ip1)"]
    with pytest.raises(sp.NetError, match="the net has no blob 'ip11'; did you mean 'ip1'"):
        deployed(DATA + HEADS, "ip11")


def test_an_unknown_shape_must_be_specified() -> None:
    parsed = sp.parse_net(FLAGSHIP.read_text())
    with pytest.raises(sp.NetError) as raised:
        deploy(parsed)
    assert str(raised.value) == (
        "the shape of 'data' is unknown, because its data do not exist; give it, for example --shape data=1,3,224,224"
    )
    deployment = deploy(parsed, shapes={"data": (7, 1, 28, 28)})
    assert tuple(deployment.net.message.layer[0].input_param.shape[0].dim) == (7, 1, 28, 28)
    with pytest.raises(
        sp.NetError, match="a shape is given for 'dat', which is no blob of the net; did you mean 'data'"
    ):
        deploy(parsed, shapes={"data": (7, 1, 28, 28), "dat": (1,)})


def test_unknown_fields_and_layers_of_the_tower_are_kept() -> None:
    text = DATA + HEADS.replace("num_output: 5", "num_output: 5 fork: 3") + loss("SoftmaxWithLoss", "ip2", "y")
    text += 'layer { name: "v" type: "Fork" bottom: "ip2" top: "v" fork_param { deep: 1 } }\n'
    deployment = deploy(sp.parse_net(text))
    assert "fork: 3" in deployment.text
    assert "fork_param" in deployment.text


def test_a_net_without_towers_cannot_be_deployed_with_two() -> None:
    with pytest.raises(sp.NetError, match="the net has no towers; leave out --both"):
        deployed(DATA + HEADS, both=True)


PROJECT = sorted((paths.PROTOTXT).glob("*/train_test.prototxt"))
DISTANCES = {"face_siamese", "half_twin", "mnist_siamese", "mnist_triplet", "pseudo_siamese", "signature_siamese"}
# What the included nets read from data, which may be missing.
SIDES = {"face_siamese": (3, 1, 100, 100), "oneshot_siamese": (2, 1, 105, 105), "signature_siamese": (2, 1, 105, 155)}


@pytest.mark.slow
@pytest.mark.parametrize("path", PROJECT, ids=lambda path: path.parent.name)
def test_included_nets_compute_the_same_when_deployed(path: Path, tmp_path: Path) -> None:
    """One tower computes the first features; all towers compute distances, or the learned score of the two."""
    parsed = sp.parse_net(path)
    side = SIDES.get(path.parent.name, ())
    shapes: dict[str, Shape] = {"data": side, "data_p": side, "same": side[:1]} if side else {}
    if path.parent.name == "mnist_siamese":
        shapes = {"pair_data": (4, 2, 28, 28)}
    net = sp.Net(parsed, "TEST", shapes=shapes, fuse=False, seed=1)
    net.save_weights(tmp_path / "w.caffemodel")
    generator = torch.Generator().manual_seed(5)
    sources = [top for node in net.graph.nodes if not node.bottoms for top in node.tops]
    blobs = net.blobs(**{top.name: torch.rand(top.shape, generator=generator) for top in sources})
    for both in (False, True):
        deployment = deploy(parsed, both=both, shapes=shapes)
        used = sp.Net(deployment.text, "TEST", weights=tmp_path / "w.caffemodel", fuse=False)
        inputs = [layer.top[0] for layer in deployment.net.message.layer if layer.type == "Input"]
        values = {top.name: blobs[top.name] for top in sources if top.name in used.graph.blobs()}
        results = used(**{name: blobs[name] for name in inputs}, **{k: v for k, v in values.items() if k not in inputs})
        common = {name: value for name, value in results.items() if name in blobs}
        assert all(torch.equal(value, blobs[name]) for name, value in common.items())
        assert len(inputs) == (1 if not both else len({"anchor", "positive", "negative"} & blobs.keys()) or 2)
        if both and path.parent.name in DISTANCES:
            compared = next(node.bottoms for node in net.graph.nodes if node.layer.is_loss)[: len(inputs)]
            first, *others = (blobs[blob.name] for blob in compared)
            for distance, other in zip(sorted(results), others, strict=True):
                torch.testing.assert_close(results[distance], (first - other).norm(dim=1), rtol=2e-5, atol=1e-5)
        elif both:
            assert next(iter(results)) in ("prob", "similarity")
        else:
            assert len(common) == 1


def test_a_learned_score_of_two_towers_becomes_a_probability() -> None:
    after = (
        'layer { name: "minus" type: "Eltwise" bottom: "one" bottom: "two" top: "minus"\n'
        "  eltwise_param { coeff: 1 coeff: -1 } }\n"
        'layer { name: "abs" type: "AbsVal" bottom: "minus" top: "gap" }\n'
    )
    for kind, count, last in (("SoftmaxWithLoss", 2, "Softmax"), ("SigmoidCrossEntropyLoss", 1, "Sigmoid")):
        score = dense("score", "gap", count)
        text = twin(after=after + score).replace(
            loss("ContrastiveLoss", "one", "two", "sim"), loss(kind, "score", "sim")
        )
        assert listed(deployed(text, both=True))[-1] == f"prob = {last}(score)"
        assert listed(deployed(text))[-1] == "one = InnerProduct(a)"


def test_towers_with_different_layers_are_found_from_the_loss() -> None:
    text = twin().replace(dense("two", "b", 5, 'param { name: "w" } param { name: "c" }'), dense("two", "b", 5))
    text = text.replace('bottom: "b" top: "two"', 'bottom: "more" top: "two"').replace(
        'param { name: "w" } param { name: "c" }', ""
    )
    text = text.replace(
        'layer { name: "two"', 'layer { name: "more" type: "TanH" bottom: "b" top: "more" }\nlayer { name: "two"'
    )
    assert listed(deployed(text)) == ["a = Input()", "one = InnerProduct(a)"]
    assert listed(deployed(text, both=True))[-1] == "distance = Power(squared_distance)"


def test_an_implicit_initial_state_is_no_input() -> None:
    text = (
        'layer { name: "d" type: "Input" top: "x" input_param { shape { dim: 4 dim: 6 } } }\n'
        'layer { name: "s" type: "DummyData" top: "s" dummy_data_param { shape { dim: 4 dim: 6 } } }\n'
        'layer { name: "sum" type: "Eltwise" bottom: "x" bottom: "s" top: "sum" }\n' + dense("ip", "sum", 3)
    )
    assert listed(deployed(text)) == ["x = Input()", "s = DummyData()", "sum = Eltwise(x, s)", "ip = InnerProduct(sum)"]


def side(name: str, layers: str) -> str:
    """A tower: each layer is a type, its number of outputs and the name of what it shares, `-` for nothing."""
    text, bottom = (
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ shape {{ dim: 4 dim: 6 }} }} }}\n',
        name,
    )
    for number, (kind, outputs, label) in enumerate((layer.split() for layer in layers.split(",")), 1):
        params = f'param {{ name: "{label}_w" }} param {{ name: "{label}_b" }}' if label != "-" else ""
        settings = f"inner_product_param {{ num_output: {outputs} }}" if kind == "InnerProduct" else ""
        top = f"{name}{number}"
        text += f'layer {{ name: "{top}" type: "{kind}" bottom: "{bottom}" top: "{top}" {params} {settings} }}\n'
        bottom = top
    return text


def sides(*towers: str) -> str:
    text = "".join(side(name, layers) for name, layers in zip("xyz", towers, strict=False))
    ends = " ".join(f'bottom: "{name}{len(layers.split(","))}"' for name, layers in zip("xyz", towers, strict=False))
    if len(towers) == 2:
        text += 'layer { name: "sim" type: "Input" top: "sim" input_param { shape { dim: 4 } } }\n'
        ends += ' bottom: "sim"'
    kind = "ContrastiveLoss" if len(towers) == 2 else "TripletLoss"
    return text + f'layer {{ name: "loss" type: "{kind}" {ends} top: "loss" }}\n'


SHARED = "InnerProduct 5 a, TanH 0 -, InnerProduct 3 b"
DIFFERING = {
    "unshared": (
        ("InnerProduct 5 -, InnerProduct 3 -", "InnerProduct 5 -, InnerProduct 3 -"),
        "layers 'x1' and 'y1' do not share their parameters (1 more layer differs)",
    ),
    "a half twin": (
        (SHARED, SHARED.replace("3 b", "3 c")),
        "layers 'x3' and 'y3' do not share their parameters",
    ),
    "built differently": (
        (SHARED, SHARED.replace("TanH", "Sigmoid")),
        "tower 2 has no counterpart of layer 'x2' (TanH)",
    ),
    "of other sizes": (
        ("InnerProduct 5 -, InnerProduct 3 -", "InnerProduct 7 -, InnerProduct 3 -"),
        "tower 2 has no counterpart of layer 'x1' (InnerProduct 5) (1 more layer differs)",
    ),
    "the third of three": ((SHARED, SHARED, SHARED.replace("5 a", "5 d")), "layers 'x1' and 'z1' do not share"),
}


@pytest.mark.parametrize(("towers", "difference"), DIFFERING.values(), ids=DIFFERING)
def test_different_towers_are_listed_and_each_can_be_selected(
    towers: tuple[str, ...], difference: str, tmp_path: Path
) -> None:
    text = sides(*towers)
    names = "xyz"[: len(towers)]
    net = weights_of(text, tmp_path / "w.caffemodel")
    batch = {name: torch.rand(4, 6, generator=torch.Generator().manual_seed(2)) for name in names}
    blobs = net.blobs(**batch, **({"sim": torch.ones(4)} if len(towers) == 2 else {}))
    for number, (name, layers) in enumerate(zip(names, towers, strict=True), 1):
        deployment = deploy(sp.parse_net(text), tower=number)
        (note,) = deployment.notes
        assert note.startswith("the towers differ: ")
        assert note.endswith(f"; the net holds tower {number} of {len(towers)}")
        assert difference in note
        if number == 1:
            assert deployment.text == deploy(sp.parse_net(text)).text
        end = f"{name}{len(layers.split(','))}"
        tower = sp.Net(deployment.text, weights=tmp_path / "w.caffemodel")
        assert [layer.name for layer in deployment.net.message.layer if layer.type == "InnerProduct"] == [
            node.name for node in net.graph.nodes if node.type == "InnerProduct" and node.name.startswith(name)
        ]
        torch.testing.assert_close(tower(**{name: batch[name]})[end], blobs[end])
    whole = deploy(sp.parse_net(text), both=True)
    assert whole.notes == ()
    outputs = sp.Net(whole.text, weights=tmp_path / "w.caffemodel").blobs(**batch)
    for name, layers in zip(names, towers, strict=True):
        end = f"{name}{len(layers.split(','))}"
        torch.testing.assert_close(outputs[end], blobs[end])


@pytest.mark.parametrize("towers", [(SHARED, SHARED), (SHARED, SHARED, SHARED)])
def test_towers_that_compute_the_same_need_no_note(towers: tuple[str, ...]) -> None:
    for number in range(1, len(towers) + 1):
        assert deploy(sp.parse_net(sides(*towers)), tower=number).notes == ()


def test_a_missing_tower_is_refused() -> None:
    for text, tower, message in (
        (sides(SHARED, SHARED), 3, "the net has 2 towers, numbered from 1, got tower 3"),
        (sides(SHARED, SHARED), 0, "the net has 2 towers, numbered from 1, got tower 0"),
        (DATA + HEADS, 1, "the net has no towers, got tower 1"),
    ):
        with pytest.raises(sp.NetError, match=message):
            deploy(sp.parse_net(text), tower=tower)
    for options in ({"both": True}, {"outputs": ["x1"]}):
        with pytest.raises(sp.NetError, match=r"tower and (both|outputs) exclude each other"):
            deploy(sp.parse_net(sides(SHARED, SHARED)), tower=1, **options)


@pytest.mark.parametrize("longer", [1, 2])
def test_a_note_says_that_one_tower_has_more_layers_at_its_end(longer: int) -> None:
    towers = [SHARED, SHARED]
    towers[longer - 1] += ", TanH 0 -, Sigmoid 0 -"
    for number in (1, 2):
        deployment = deploy(sp.parse_net(sides(*towers)), tower=number)
        end = f"{'xy'[number - 1]}3"
        assert deployment.notes == (
            f"the towers differ: tower {3 - longer} has no counterpart of layer '{'xy'[longer - 1]}4' (TanH) "
            f"(1 more layer differs); the net holds tower {number} of 2, up to '{end}'",
        )
        assert listed(deployment)[-1].startswith(f"{end} = ")


@pytest.mark.slow
def test_the_memory_to_deploy_a_chain_grows_linearly() -> None:
    peaks = []
    for count in (400, 800):
        text = (
            DATA
            + 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "t0" inner_product_param { num_output: 3 } }'
        )
        for number in range(count):
            text += f'layer {{ name: "t{number}" type: "TanH" bottom: "t{number}" top: "t{number + 1}" }}\n'
        parsed = sp.parse_net(text)
        tracemalloc.start()
        deploy(parsed)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 3 * peaks[0]
