"""What nets of every form compare, with features and distances checked against plain numpy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from siamese_proto.data.images.labeled_source import LabeledSource
from siamese_proto.errors import DataError, GraphError, NetError
from siamese_proto.evaluation import pair_distances
from siamese_proto.evaluation.pair_distances import measure_data_layers, measure_pairs
from siamese_proto.evaluation.pair_sources import labeled_images, open_pair_images
from siamese_proto.evaluation.twin import Twin, TwinSettings, load_twin
from siamese_proto.net.net import Net

DATA = """
layer { name: "pairs" type: "PairData" top: "a" top: "b" top: "same"
        transform_param { scale: 0.01 mean_value: 30 }
        pair_data_param { source: "digits" batch_size: 10 tuples: 35 seed: 4 } }
"""
TOWERS = """
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "f" param { name: "w" } param { name: "c" }
        inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "act" type: "TanH" bottom: "f" top: "f" }
layer { name: "ip_b" type: "InnerProduct" bottom: "b" top: "g" param { name: "w" } param { name: "c" }
        inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "act_b" type: "TanH" bottom: "g" top: "g" }
"""
CONTRASTIVE = 'layer { name: "loss" type: "ContrastiveLoss" bottom: "f" bottom: "g" bottom: "same" top: "loss" }\n'
DIFFERENCE = """
layer { name: "minus" type: "Eltwise" bottom: "f" bottom: "g" top: "d" eltwise_param { coeff: 1 coeff: -1 } }
layer { name: "abs" type: "AbsVal" bottom: "d" top: "e" }
layer { name: "decide" type: "InnerProduct" bottom: "e" top: "score"
        inner_product_param { num_output: %d weight_filler { type: "gaussian" std: 2 } } }
layer { name: "loss" type: "%s" bottom: "score" bottom: "same" top: "loss" }
"""
INPUT = 'layer { name: "%s" type: "Input" top: "%s" input_param { shape { dim: 1 dim: 1 dim: 28 dim: 28 } } }\n'
MORE = 'layer { name: "more" type: "InnerProduct" bottom: "g" top: "h" inner_product_param { num_output: 3 } }\n'
TOWER = INPUT % ("a", "a") + TOWERS.partition('layer { name: "ip_b"')[0]


def build_twin(text: str, choice: TwinSettings | None = None) -> Twin:
    return Twin(Net(f'name: "twin"\n{text}', "TEST", seed=5), choice)


def tower(twin: Twin, images: np.ndarray) -> np.ndarray:
    """The output of the first layer for inputs, computed without the net."""
    weight, bias = (tensor.detach().double().numpy() for tensor in twin.net.params["ip"])
    return np.tanh(images.reshape(len(images), -1).astype(float) @ weight.T + bias)


def load_records(text: str) -> list[dict[str, np.ndarray]]:
    """The 35 records of the data layer, as another instance loads them."""
    net = Net(text, "TEST", seed=5)
    batches = [{name: tensor.numpy() for name, tensor in net.pull().items()} for _ in range(4)]
    net.close()
    return [{name: array[: 35 - 10 * number] for name, array in batch.items()} for number, batch in enumerate(batches)]


FORMULAS = {
    "EUCLIDEAN": lambda a, b: np.sqrt(((a - b) ** 2).sum(1)),
    "SQUARED": lambda a, b: ((a - b) ** 2).sum(1),
    "L1": lambda a, b: np.abs(a - b).sum(1),
    "COSINE": lambda a, b: 1 - (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1)),
    "DOT": lambda a, b: -(a * b).sum(1),
}


def by_distance(metric: str) -> str:
    return f"""
layer {{ name: "d" type: "Distance" bottom: "f" bottom: "g" top: "d" distance_param {{ metric: {metric} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "d" bottom: "same" top: "loss" }}
"""


@pytest.mark.parametrize(
    ("joined", "metric"),
    [
        (CONTRASTIVE, "EUCLIDEAN"),
        (DIFFERENCE % (2, "HingeLoss"), "EUCLIDEAN"),
        (by_distance("EUCLIDEAN"), "EUCLIDEAN"),
        (by_distance("SQUARED"), "SQUARED"),
        (by_distance("L1"), "L1"),
        (by_distance("EXP_L1"), "L1"),
        (by_distance("COSINE_SIMILARITY"), "COSINE"),
        (by_distance("COSINE_DISTANCE"), "COSINE"),
        (by_distance("DOT"), "DOT"),
    ],
)
def test_the_nets_own_pairs_have_the_distance_of_its_loss(joined: str, metric: str) -> None:
    text = DATA + TOWERS + joined
    choice = TwinSettings(distance="EUCLIDEAN", label="same") if "HingeLoss" in joined else None
    twin = build_twin(text, choice)
    assert twin.metric.kind == metric
    measured = measure_data_layers(twin)
    records = load_records(text)
    a, b = (tower(twin, np.concatenate([batch[name] for batch in records])) for name in "ab")
    np.testing.assert_allclose(measured.distances.distance, FORMULAS[metric](a, b), atol=1e-5)
    np.testing.assert_array_equal(measured.distances.same, np.concatenate([batch["same"] for batch in records]) == 1)
    assert len(measured.distances) == 35


def test_label_1_means_different_if_the_loss_specifies_it() -> None:
    reverse = CONTRASTIVE.replace("top: ", "contrastive_loss_param { label: DIFFERENT } top: ")
    same = measure_data_layers(build_twin(DATA + TOWERS + CONTRASTIVE)).distances.same
    assert (measure_data_layers(build_twin(DATA + TOWERS + reverse)).distances.same == ~same).all()
    chosen = TwinSettings(one_is_same=True)
    assert (measure_data_layers(build_twin(DATA + TOWERS + reverse, chosen)).distances.same == same).all()


@pytest.mark.parametrize(
    ("joined", "outputs"), [(DIFFERENCE % (2, "SoftmaxWithLoss"), 2), (DIFFERENCE % (1, "SigmoidCrossEntropyLoss"), 1)]
)
def test_a_learned_metric_is_one_minus_the_probability_of_the_same(joined: str, outputs: int) -> None:
    twin = build_twin(DATA + TOWERS + joined)
    assert twin.metric.kind == "LEARNED"
    records = load_records(DATA + TOWERS + joined)
    a, b = (tower(twin, np.concatenate([batch[name] for batch in records])) for name in "ab")
    weight, bias = (tensor.detach().double().numpy() for tensor in twin.net.params["decide"])
    score = np.abs(a - b) @ weight.T + bias
    logit = score[:, 1] - score[:, 0] if outputs == 2 else score[:, 0]
    expected = 1 - 1 / (1 + np.exp(-logit))
    np.testing.assert_allclose(measure_data_layers(twin).distances.distance, expected, atol=1e-5)
    np.testing.assert_allclose(twin.metric.rows(a, b), expected, atol=1e-5)
    np.testing.assert_allclose(twin.metric.matrix(a[:4], b)[3, 3], expected[3], atol=1e-5)


def test_an_inference_net_that_ends_in_a_probability_is_a_learned_metric_too() -> None:
    joined = DIFFERENCE.rpartition("layer {")[0] % 2 + 'layer { name: "p" type: "Softmax" bottom: "score" top: "p" }'
    twin = build_twin(INPUT % ("a", "a") + INPUT % ("b", "b") + TOWERS + joined)
    a, b = np.random.default_rng(0).normal(size=(2, 7, 3))
    weight, bias = (tensor.detach().double().numpy() for tensor in twin.net.params["decide"])
    score = np.abs(a - b) @ weight.T + bias
    np.testing.assert_allclose(twin.metric.rows(a, b), 1 / (1 + np.exp(score[:, 1] - score[:, 0])), atol=1e-5)


def test_triplets_are_two_pairs_each() -> None:
    third = (
        TOWERS[TOWERS.index('layer { name: "ip_b"') :].replace("_b", "_n").replace('"b"', '"n"').replace('"g"', '"h"')
    )
    data = DATA.replace('top: "same"', 'top: "n"').replace("tuples", "tuple: TRIPLET tuples")
    loss = 'layer { name: "loss" type: "TripletLoss" bottom: "f" bottom: "g" bottom: "h" top: "loss" }'
    twin = build_twin(data + TOWERS + third + loss)
    measured = measure_data_layers(twin, 10)
    a, b, n = (tower(twin, load_records(data + TOWERS + third + loss)[0][name]) for name in "abn")
    expected = np.concatenate([FORMULAS["SQUARED"](a, b), FORMULAS["SQUARED"](a, n)])
    np.testing.assert_allclose(measured.distances.distance, expected, atol=1e-5)
    assert measured.distances.same.tolist() == [True] * 10 + [False] * 10
    assert {pair.names[0].split()[0] for pair in measured.hardest} == {"triplet"}


def test_the_hardest_pairs_of_all_batches_have_their_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pair_distances, "HARDEST", 3)
    twin = build_twin(DATA + TOWERS + CONTRASTIVE)
    measured = measure_data_layers(twin)
    distance, same = measured.distances.distance, measured.distances.same
    expected = [*sorted(distance[same])[::-1][:3], *sorted(distance[~same])[:3]]
    assert [pair.distance for pair in measured.hardest] == pytest.approx(expected)
    records = np.concatenate([batch["b"] for batch in load_records(DATA + TOWERS + CONTRASTIVE)])
    row = int(measured.hardest[0].names[0].split()[1])
    np.testing.assert_array_equal(measured.hardest[0].pictures[1], np.rint(records[row, 0] / 0.01 + 30))


def test_one_tower_over_both_images_joined_in_a_batch_is_a_twin() -> None:
    joined = """
layer { name: "join" type: "Concat" bottom: "a" bottom: "b" top: "both" concat_param { axis: 0 } }
layer { name: "ip" type: "InnerProduct" bottom: "both" top: "fg" inner_product_param { num_output: 3
        weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "act" type: "TanH" bottom: "fg" top: "fg" }
layer { name: "part" type: "Slice" bottom: "fg" top: "f" top: "g" slice_param { axis: 0 } }
"""
    twin = build_twin(DATA + joined + CONTRASTIVE)
    images = np.random.default_rng(1).normal(size=(13, 1, 28, 28)).astype(np.float32)
    for side in (0, 1):
        np.testing.assert_allclose(twin.embed(images, side), tower(twin, images), atol=1e-5)


def test_a_single_tower_embeds_any_number_of_images() -> None:
    twin = build_twin(TOWER)
    images = np.random.default_rng(1).normal(size=(301, 1, 28, 28)).astype(np.float32)
    np.testing.assert_allclose(twin.embed(images), tower(twin, images), atol=1e-5)
    assert not twin.towers_differ


def test_towers_with_different_weights_each_take_their_side() -> None:
    apart = TOWERS.replace('name: "ip_b"', 'name: "ip_other"').rpartition('layer { name: "ip_other"')
    text = apart[0] + apart[1] + apart[2].replace('{ name: "w" }', "{ }").replace('{ name: "c" }', "{ }")
    twin = build_twin(DATA + text + CONTRASTIVE)
    assert twin.towers_differ
    images = labeled_images(LabeledSource("digits:test"), twin.preprocessing())
    one, other = (twin.embed_images(images, np.arange(5), side) for side in (0, 1))
    assert np.abs(one - other).max() > 0.1
    pairs = open_pair_images(LabeledSource("digits:test"), twin.preprocessing(), count=9)
    measured = measure_pairs(twin, pairs)
    expected = [
        math.dist(*(twin.embed_images(images, rows[[n]], side)[0] for side, rows in enumerate(pairs.rows)))
        for n in range(9)
    ]
    np.testing.assert_allclose(measured.distances.distance, expected, atol=1e-4)


def test_layers_with_a_fixed_batch_size_get_padded_batches() -> None:
    fixed = """
layer { name: "ones" type: "DummyData" top: "ones"
        dummy_data_param { shape { dim: 10 dim: 3 } data_filler { value: 2 } } }
layer { name: "times" type: "Eltwise" bottom: "f" bottom: "ones" top: "f2" eltwise_param { operation: PROD } }
"""
    loss = CONTRASTIVE.replace('bottom: "f"', 'bottom: "f2"')
    twin = build_twin(DATA + TOWERS + fixed + loss)
    images = np.random.default_rng(1).normal(size=(23, 1, 28, 28)).astype(np.float32)
    np.testing.assert_allclose(twin.embed(images), 2 * tower(twin, images), atol=1e-5)


def test_images_are_preprocessed_as_in_the_data_layer() -> None:
    twin = build_twin(DATA + TOWERS + CONTRASTIVE)
    assert str(twin.preprocessing()) == "gray, resized to 28 x 28, mean 30 subtracted, times 0.01 (from layer 'pairs')"
    images = labeled_images(LabeledSource("digits:test"), twin.preprocessing())
    expected = tower(twin, (images.images(np.arange(6)).astype(float) - 30) * 0.01)
    np.testing.assert_allclose(twin.embed_images(images, np.arange(6)), expected, atol=1e-5)


def test_specified_settings_replace_those_of_the_net() -> None:
    twin = build_twin(TOWER, TwinSettings(scale=0.5, mean_values=(10.0,), resize=(40, 36)))
    assert str(twin.preprocessing()) == (
        "gray, resized to 40 x 36, center crop of 28 x 28, mean 10 subtracted, times 0.5 (as specified)"
    )
    pixels = np.arange(40 * 36, dtype=np.uint8).reshape(1, 1, 40, 36)
    expected = (pixels[:, :, 6:34, 4:32].astype(float) - 10) * 0.5
    np.testing.assert_array_equal(twin.preprocessing()(pixels), expected)


@pytest.mark.parametrize(
    ("text", "choice", "message"),
    [
        (TOWER, TwinSettings(features=("ff",)), "the net has no blob 'ff'; did you mean 'f'?"),
        (
            TOWER,
            TwinSettings(distance="LEARNED"),
            "the net has no learned score of two features; choose another --distance",
        ),
        (TOWER, TwinSettings(inputs=("a", "a")), "2 inputs are named for 1 features; give one --input for each"),
        (
            TOWER,
            TwinSettings(resize=(20, 20)),
            "images of 20 x 20 (height x width) cannot be cropped to the 28 x 28 of the net: expected a square of",
        ),
        (INPUT % ("a", "a"), None, "the net has no towers and computes nothing with parameters; name the blob that is"),
        (
            TOWER
            + TOWER[TOWER.index('layer { name: "ip"') :]
            .replace('"f"', '"g"')
            .replace('"w"', '"v"')
            .replace('"c"', '"d"'),
            None,
            "the net has no towers and computes 'f', 'g'; name the blob that is its feature with --feature",
        ),
        (
            DATA + TOWERS + CONTRASTIVE + MORE + CONTRASTIVE.replace('"loss"', '"again"').replace('"g"', '"h"'),
            None,
            "several layers compare features: 'loss' 'f', 'g'; 'again' 'f', 'h'; choose with --feature, once for",
        ),
    ],
)
def test_errors_about_what_the_net_does_not_specify_name_the_option(
    text: str, choice: TwinSettings | None, message: str
) -> None:
    with pytest.raises(NetError) as caught:
        build_twin(text, choice).preprocessing()
    assert message in str(caught.value)


def test_a_net_without_data_or_label_has_no_pairs_of_its_own() -> None:
    with pytest.raises(GraphError, match=r"^the net has no data layer in phase TEST; give pairs with --pairs"):
        measure_data_layers(build_twin(TOWER))
    with pytest.raises(GraphError, match="which blob is the label of the pairs cannot be determined"):
        measure_data_layers(build_twin(DATA + TOWERS + 'layer { name: "s" type: "Silence" bottom: "same" }'))


def test_features_that_are_not_finite_are_reported_with_the_image() -> None:
    twin = build_twin(TOWER)
    twin.net.params["ip"][0].data[0, 0] = math.nan
    images = labeled_images(LabeledSource("digits:test"), twin.preprocessing())
    with pytest.raises(
        DataError, match=r"^the feature of 'digits:test\[0\]' is not finite; the training of these weights"
    ):
        twin.embed_images(images, np.arange(3))


def test_layers_without_weights_are_reported(tmp_path: Path) -> None:
    Net(TOWER.replace('"ip"', '"other"').replace('"act"', '"act2"')).save_weights(tmp_path / "w.caffemodel")
    with pytest.raises(NetError):
        load_twin(Net(TOWER, "TEST"), tmp_path / "w.caffemodel")
    two = (
        TOWER + 'layer { name: "more" type: "InnerProduct" bottom: "f" top: "h" inner_product_param { num_output: 2 } }'
    )
    Net(TOWER).save_weights(tmp_path / "w.caffemodel")
    with pytest.raises(
        NetError, match="no weights for 1 layers of the net, the first is 'more'; give the weights that were"
    ):
        load_twin(Net(two, "TEST"), tmp_path / "w.caffemodel")
