from __future__ import annotations

import logging

import numpy
import pytest
from feeding import batches, drain, make_layer, noise
from image_sources import GRAY, HEIGHT, KINDS, LABELS, WIDTH, number_of, write_folder, write_list, write_source
from PIL import Image

from siamese_proto.check.net import check_net
from siamese_proto.compiler import build_graph
from siamese_proto.data.images.digits import load_digits
from siamese_proto.errors import DataError, NetError
from siamese_proto.layers.base import DataLayer, RunState
from siamese_proto.proto.reader import parse_net

CROP = 3


def pair_data(source: object, more: str = "", *, tops: int = 3, transform: str = "", phase="TRAIN") -> DataLayer:
    """A PairData layer with batches of four tuples."""
    names = " ".join(f'top: "t{index}"' for index in range(tops))
    return make_layer(
        f'name: "d" type: "PairData" {names} pair_data_param {{ source: "{source}" batch_size: 4 {more} }}'
        f" transform_param {{ {transform} }}",
        phase,
    )


def classes_of(images: numpy.ndarray) -> list[int]:
    return [LABELS[number_of(image)] for image in images]


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_of_every_kind_of_source_have_labels_that_are_true(kind, tmp_path):
    layer = pair_data(write_source(kind, tmp_path))
    assert [tuple(shape) for shape in layer.top_shapes(())] == [(4, 1, HEIGHT, WIDTH), (4, 1, HEIGHT, WIDTH), (4,)]
    seen = []
    for first, second, same in batches(layer, 16):
        assert [top.dtype for top in (first, second, same)] == ["float32"] * 3
        assert (numpy.array(classes_of(first)) == classes_of(second)).tolist() == (same == 1).tolist()
        assert not any(numpy.array_equal(one, other) for one, other in zip(first, second, strict=True))
        seen += same.tolist()
    assert sum(seen) == 32


def test_triplets_are_anchor_positive_negative_and_their_classes(tmp_path):
    layer = pair_data(write_list(tmp_path), "tuple: TRIPLET", tops=4)
    assert list(layer.top_shapes(())) == [(4, 1, HEIGHT, WIDTH)] * 3 + [(4, 3)]
    for *images, classes in batches(layer, 8):
        found = [classes_of(image) for image in images]
        assert classes.T.tolist() == found
        assert found[0] == found[1]
        assert all(one != other for one, other in zip(found[0], found[2], strict=True))


def test_balanced_tuples_are_an_alike_and_a_different_pair_of_one_anchor(tmp_path):
    layer = pair_data(write_list(tmp_path), "tuple: BALANCED", tops=4)
    assert list(layer.top_shapes(())) == [(8, 1, HEIGHT, WIDTH), (8, 1, HEIGHT, WIDTH), (8,), (8, 2)]
    for first, second, same, classes in batches(layer, 8):
        assert same.tolist() == [1, 0] * 4
        assert classes.T.tolist() == [classes_of(first), classes_of(second)]
        numpy.testing.assert_array_equal(first[::2], first[1::2])
        assert (classes[:, 0] == classes[:, 1]).tolist() == [True, False] * 4


@pytest.mark.parametrize(
    ("tuple_kind", "tops", "rows", "width"), [("PAIR", 2, 4, 2), ("BALANCED", 2, 8, 2), ("TRIPLET", 1, 4, 3)]
)
def test_fewer_tops_stack_the_images_on_channels(tuple_kind, tops, rows, width, tmp_path):
    settings = (write_list(tmp_path), f"tuple: {tuple_kind} is_color: true")
    transform = f"crop_size: {CROP} mirror: true"
    together = pair_data(*settings, tops=tops, transform=transform)
    assert together.top_shapes(())[0] == (rows, 3 * width, CROP, CROP)
    apart = batches(pair_data(*settings, tops=3, transform=transform), 5)
    for one, other in zip(apart, batches(together, 5), strict=True):
        numpy.testing.assert_array_equal(numpy.concatenate(one[:width], axis=1), other[0])


def places_of(layer: DataLayer, count: int) -> list[list[tuple[int, int, bool]]]:
    """Where each image of each tuple was cropped, and whether it was mirrored."""
    found = []
    for *images, _ in batches(layer, count):
        for tuple_of_images in zip(*images, strict=True):
            found.append([place_of(image[0]) for image in tuple_of_images])
    return found


def place_of(crop: numpy.ndarray) -> tuple[int, int, bool]:
    places = [
        (top, left, mirrored)
        for gray in GRAY
        for top in range(HEIGHT - CROP + 1)
        for left in range(WIDTH - CROP + 1)
        for mirrored in (False, True)
        if numpy.array_equal(gray[top : top + CROP, left : left + CROP][:, :: -1 if mirrored else 1], crop)
    ]
    assert len(places) == 1
    return places[0]


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", "tuple: BALANCED", "tuple: TRIPLET"])
def test_all_images_of_a_tuple_get_one_crop_and_mirror(more, tmp_path):
    tops = 4 if more.endswith("TRIPLET") else 3
    layer = pair_data(write_list(tmp_path), more, tops=tops, transform=f"crop_size: {CROP} mirror: true")
    places = places_of(layer, 30)
    assert all(len(set(place)) == 1 for place in places)
    assert len({place[0] for place in places}) == 3 * 5 * 2
    if more.endswith("BALANCED"):
        assert all(places[row] == places[row + 1] for row in range(0, len(places), 2))


@pytest.mark.slow
def test_images_of_a_tuple_are_treated_apart_where_told(tmp_path):
    layer = pair_data(write_list(tmp_path), "same_transform: false", transform=f"crop_size: {CROP} mirror: true")
    places = places_of(layer, 30)
    assert sum(first != second for first, second in places) > 100


@pytest.mark.parametrize("kind", ["IDX", "FOLDER", "LEVELDB"])
@pytest.mark.parametrize("more", ["", "tuples: 10 shuffle: true", "tuple: TRIPLET same_transform: false"])
def test_a_run_that_is_resumed_sees_the_same_batches(kind, more, tmp_path):
    layer = pair_data(write_source(kind, tmp_path), more, tops=3, transform=f"crop_size: {CROP} mirror: true")
    whole = batches(layer, 9, seed=5)
    for skip in (1, 4, 8):
        for one, other in zip(whole[skip:], batches(layer, 9 - skip, seed=5, skip=skip), strict=True):
            for left, right in zip(one, other, strict=True):
                numpy.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_order_is_the_same_on_any_number_of_threads(threads, tmp_path, monkeypatch):
    layer = pair_data(write_folder(tmp_path / "faces"), "prefetch: 9", transform=f"crop_size: {CROP} mirror: true")
    expected = batches(layer, 20)
    monkeypatch.setattr("siamese_proto.data.feeder.MOST_MAKERS", threads)
    monkeypatch.setattr("os.cpu_count", lambda: threads)
    for one, other in zip(expected, batches(layer, 20), strict=True):
        for left, right in zip(one, other, strict=True):
            numpy.testing.assert_array_equal(left, right)


def test_a_seed_of_its_own_draws_the_same_whatever_that_of_the_net(tmp_path):
    source = write_list(tmp_path)

    def drawn(more: str, seed: int) -> bytes:
        return b"".join(top.tobytes() for batch in batches(pair_data(source, more), 4, seed=seed) for top in batch)

    assert drawn("seed: 7", 1) == drawn("seed: 7", 2) == drawn("", 7)
    assert len({drawn("", 1), drawn("", 2), drawn("seed: 8", 1)}) == 3


def test_a_set_of_tuples_comes_again_and_again(tmp_path):
    layer = pair_data(write_list(tmp_path), "tuples: 6")
    rows = [numpy.concatenate(tops) for tops in zip(*batches(layer, 3), strict=True)]
    for top in rows:
        numpy.testing.assert_array_equal(top[:6], top[6:])
    assert rows[2][:6].sum() == 3


def test_only_the_classes_asked_for_are_drawn_from(tmp_path):
    source = write_folder(tmp_path / "faces")
    for phase, choice, expected in (("TRAIN", 'classes: "0:2"', {0, 1}), ("TEST", 'exclude_classes: "bert"', {0, 2})):
        found = batches(pair_data(source, choice, tops=4, phase=phase), 10)
        assert set(numpy.concatenate([classes.ravel() for *_, classes in found]).tolist()) == expected
    few = batches(pair_data(source, "images_per_class: 2", tops=4), 20)
    assert len({image.tobytes() for first, second, *_ in few for image in (*first, *second)}) == 6


def test_the_digits_of_the_training_net_are_not_met_in_the_test():
    (train, _), (test, _) = load_digits()
    for phase, images in (("TRAIN", train), ("TEST", test)):
        known = {image.tobytes() for image in images}
        for first, second, _ in batches(pair_data("digits", phase=phase), 20):
            assert all(image.astype(numpy.uint8).tobytes() in known for image in (*first, *second))


def test_pairs_of_a_csv_come_in_their_order_or_shuffled(tmp_path):
    write_list(tmp_path)
    pairs = [(1, 4, 0), (0, 3, 1), (2, 5, 0), (6, 1, 1), (7, 0, 1), (4, 3, 0)]
    names = (tmp_path / "list.txt").read_text().split()[::2]
    lines = "".join(f"{names[first]},{names[second]},{label}\n" for first, second, label in pairs)
    (tmp_path / "pairs.csv").write_text(lines)

    def read(more: str) -> list[tuple[int, int, int]]:
        found = batches(pair_data(tmp_path / "pairs.csv", more), 3)
        return [
            (number_of(one), number_of(other), int(label))
            for first, second, labels in found
            for one, other, label in zip(first, second, labels, strict=True)
        ]

    assert read("") == pairs * 2
    shuffled = read("shuffle: true")
    assert sorted(shuffled[:6]) == sorted(shuffled[6:]) == sorted(pairs)
    assert shuffled[:6] != pairs or shuffled[6:] != pairs


def test_images_of_several_sizes_are_resized_or_cropped_or_refused_by_name(tmp_path):
    folder = write_folder(tmp_path / "faces")
    Image.fromarray(noise(9, 8)).save(tmp_path / "faces/carl/9.png")
    assert batches(pair_data(folder, "new_height: 4 new_width: 6"), 8)[0][0].shape == (4, 1, 4, 6)
    assert batches(pair_data(folder, transform="crop_size: 3"), 8)[0][0].shape == (4, 1, 3, 3)
    with pytest.raises(DataError, match=r"image '.*/carl/9.png' has size 1 x 9 x 8, but the first one has 1 x 5 x 7"):
        batches(pair_data(folder), 40)


def test_images_that_cannot_be_read_end_the_run_before_it_begins(tmp_path):
    folder = write_folder(tmp_path / "faces")
    (tmp_path / "faces/bert/broken.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match=r"image '.*/bert/broken.png' cannot be read: "):
        pair_data(folder).open(RunState())


@pytest.mark.parametrize("given", [False, True])
def test_images_that_cannot_be_read_are_left_out_where_told(given, tmp_path, caplog):
    folder = write_folder(tmp_path / "faces")
    Image.fromarray(noise(HEIGHT, WIDTH)).save(tmp_path / "whole.png")
    data = bytearray((tmp_path / "whole.png").read_bytes())
    data[len(data) // 2] ^= 255  # its end is whole
    (tmp_path / "faces/bert/broken.png").write_bytes(data)
    pairs = "faces/anna/1.png,faces/bert/broken.png,0\nfaces/anna/1.png,faces/bert/4.png,0\n"
    (tmp_path / "pairs.csv").write_text(pairs)
    run = RunState(skip_bad_records=True)
    feeder = pair_data(tmp_path / "pairs.csv" if given else folder).open(run)
    for first, second, _ in drain(feeder, 20):
        classes_of(first), classes_of(second)
    feeder.close()
    assert run.bad_records == {"d": {f"{folder}/bert/broken.png"}}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_lone_images_are_told_when_reading_begins(tmp_path, caplog):
    folder = write_folder(tmp_path / "faces")
    (tmp_path / "faces/dora").mkdir()
    Image.fromarray(GRAY[0]).save(tmp_path / "faces/dora/only.png")
    with caplog.at_level(logging.WARNING):
        pair_data(folder).open(RunState()).close()
    lone = f"'{folder}/dora/only.png' of class 'dora'"
    assert caplog.messages == [f"layer 'd': 1 of 4 classes have one image, which no other is alike to: {lone}"]


def test_a_net_is_checked_without_its_source():
    settings = 'pair_data_param { source: "no" batch_size: 2 }'
    graph = build_graph(f'layer {{ name: "d" type: "PairData" top: "a" top: "b" {settings} }}')
    assert [top.shape for top in graph.nodes[0].tops] == [None, None]
    assert not graph.problems


WRONG = [
    ("same_fraction: 1.5", 3, "same_fraction is 1.5; it must be from 0 to 1"),
    ("new_height: 3", 3, "new_height and new_width must be given together"),
    ("kind: CSV tuple: TRIPLET", 3, "a CSV names pairs and no classes; write tuple: PAIR, and two or three tops"),
    ("kind: CSV", 4, "a CSV names pairs and no classes; write tuple: PAIR, and two or three tops"),
]


@pytest.mark.parametrize(("more", "tops", "message"), WRONG)
def test_wrong_settings_are_refused(more, tops, message):
    with pytest.raises(NetError) as caught:
        pair_data("digits", more, tops=tops)
    assert caught.value.message == message


WRONG_AT_START = [
    ('classes: "4"', "all images are of one class, so no pair can differ; give more classes, or same_fraction 1"),
    ('classes: "ten"', "there is no class 'ten'"),
    ('tuple: TRIPLET classes: "4"', "all images are of one class, so there is no negative; give more classes"),
]


@pytest.mark.parametrize(("more", "message"), WRONG_AT_START)
def test_what_cannot_be_drawn_is_refused_when_reading_begins(more, message):
    with pytest.raises(DataError) as caught:
        pair_data("digits", more).open(RunState())
    assert caught.value.message == message


IDLE = [
    ("shuffle: true", ["pair_data_param.shuffle"]),
    ("tuples: 4 shuffle: true", []),
    ("tuple: TRIPLET same_fraction: 0.5", ["pair_data_param.same_fraction"]),
    ('kind: CSV shuffle: true classes: "1" tuples: 3', ["pair_data_param.classes", "pair_data_param.tuples"]),
]


@pytest.mark.parametrize(("more", "fields"), IDLE)
def test_settings_without_effect_are_named(more, fields):
    assert list(pair_data("digits", more).unused_fields()) == fields


def test_check_tells_of_a_source_that_cannot_be_read(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "d" type: "PairData" top: "x" top: "y"\n  pair_data_param { source: "empty" batch_size: 2 } }'
    )
    findings = [str(finding) for finding in check_net(tmp_path / "net.prototxt")]
    where = f"{tmp_path}/net.prototxt:2: error[net]: layer 'd'"
    assert findings[0].startswith(f"{where}: folder '{tmp_path}/empty' has no sub-folders with images")


def test_reading_stops_when_the_feeder_is_closed(tmp_path):
    feeder = pair_data(write_folder(tmp_path / "faces")).open(RunState())
    drain(feeder, 2)
    feeder.close()
    feeder.close()
    with pytest.raises(ValueError, match="closed"):
        feeder.next_batch()


def test_shapes_are_known_from_the_settings_where_the_source_is_missing(tmp_path):
    graph = build_graph(
        parse_net(
            'layer { name: "p" type: "PairData" top: "a" top: "b" top: "same" transform_param { crop_size: 7 }\n'
            '  pair_data_param { source: "nowhere" batch_size: 5 new_height: 9 new_width: 11 is_color: true } }'
        ),
        phase="TRAIN",
    )
    assert [blob.shape for blob in graph.nodes[0].tops] == [(5, 3, 7, 7), (5, 3, 7, 7), (5,)]
    assert graph.notes
