from __future__ import annotations

import io

import h5py
import numpy
import pytest
from feeding import BACKENDS, batches, data_layer, make_database, make_layer, make_raw_database, noise
from PIL import Image

from siamese_proto.proto import schema

HEIGHT, WIDTH, CROP = 7, 9, 4
IMAGES = [noise(2, HEIGHT, WIDTH, seed=seed) for seed in range(5)]


def write_mean(path, mean):
    channels, height, width = mean.shape
    blob = schema.BlobProto(num=1, channels=channels, height=height, width=width, data=mean.ravel().tolist())
    path.write_bytes(blob.SerializeToString())


def crops_of(image, size):
    """Every crop of an image, and its mirror image, with the place it is from."""
    for top in range(image.shape[1] - size + 1):
        for left in range(image.shape[2] - size + 1):
            crop = image[:, top : top + size, left : left + size]
            yield (top, left, False), crop
            yield (top, left, True), crop[:, :, ::-1]


def place_of(found, image, size=CROP):
    """Where a crop was taken; fails unless both channels are from one place."""
    places = [place for place, crop in crops_of(image, size) if numpy.array_equal(crop, found)]
    assert len(places) == 1
    return places[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_random_crop_is_from_one_place_for_both_images_of_a_pair(backend, tmp_path):
    path = make_database(tmp_path / "db", IMAGES, backend)
    layer = data_layer(path, f"transform_param {{ crop_size: {CROP} mirror: true }}", backend=backend, batch_size=5)
    assert layer.top_shapes(())[0] == (5, 2, CROP, CROP)
    places = [
        place_of(found, image) for pixels, _ in batches(layer, 40) for found, image in zip(pixels, IMAGES, strict=True)
    ]
    tops, lefts, mirrored = (set(values) for values in zip(*places, strict=True))
    assert tops == set(range(HEIGHT - CROP + 1))
    assert lefts == set(range(WIDTH - CROP + 1))
    assert mirrored == {False, True}
    assert 60 < sum(place[2] for place in places) < 140  # of 200 tosses of a coin


def test_random_draws_depend_on_seed_and_position_alone(tmp_path):
    path = make_database(tmp_path / "db", IMAGES)
    layer = data_layer(path, f"transform_param {{ crop_size: {CROP} mirror: true }}")
    whole = batches(layer, 6, seed=4)
    for number, batch in enumerate(whole):
        for one, other in zip(batch, batches(layer, 1, seed=4, skip=number)[0], strict=True):
            numpy.testing.assert_array_equal(one, other)
    larger = data_layer(path, f"transform_param {{ crop_size: {CROP} mirror: true }}", batch_size=9)
    joined = numpy.concatenate([pixels for pixels, _ in whole])
    numpy.testing.assert_array_equal(joined, numpy.concatenate([pixels for pixels, _ in batches(larger, 2, seed=4)]))
    assert not numpy.array_equal(joined, numpy.concatenate([pixels for pixels, _ in batches(layer, 6, seed=5)]))


def test_the_test_phase_crops_in_the_middle_rounded_down(tmp_path):
    layer = data_layer(make_database(tmp_path / "db", IMAGES), f"transform_param {{ crop_size: {CROP} }}", phase="TEST")
    pixels, _ = batches(layer, 1)[0]
    numpy.testing.assert_array_equal(pixels, numpy.stack(IMAGES[:3])[:, :, 1:5, 2:6])


def test_the_test_phase_mirrors_too(tmp_path):
    path = make_database(tmp_path / "db", IMAGES)
    layer = data_layer(path, "transform_param { mirror: true }", batch_size=40, phase="TEST")
    pixels, _ = batches(layer, 1)[0]
    mirrored = [numpy.array_equal(found, IMAGES[index % 5][:, :, ::-1]) for index, found in enumerate(pixels)]
    plain = [numpy.array_equal(found, IMAGES[index % 5]) for index, found in enumerate(pixels)]
    assert all(one != other for one, other in zip(mirrored, plain, strict=True))
    assert 8 < sum(mirrored) < 32


def test_the_mean_is_taken_at_the_place_in_the_whole_image_before_cropping_and_mirroring(tmp_path):
    mean = numpy.random.default_rng(3).random((2, HEIGHT, WIDTH)).astype(numpy.float32) * 200
    write_mean(tmp_path / "mean.binaryproto", mean)
    settings = f'mean_file: "{tmp_path}/mean.binaryproto" crop_size: {CROP} mirror: true scale: 0.5'
    path = make_database(tmp_path / "db", IMAGES)
    plain = data_layer(path, f"transform_param {{ crop_size: {CROP} mirror: true }}", batch_size=5)
    layer = data_layer(path, f"transform_param {{ {settings} }}", batch_size=5)
    for (found, _), (untouched, _) in zip(batches(layer, 4), batches(plain, 4), strict=True):
        for index, image in enumerate(IMAGES):
            top, left, mirrored = place_of(untouched[index], image)
            expected = numpy.empty((2, CROP, CROP), numpy.float32)
            for c in range(2):
                for h in range(CROP):
                    for w in range(CROP):
                        value = numpy.float32(image[c, top + h, left + w]) - mean[c, top + h, left + w]
                        expected[c, h, CROP - 1 - w if mirrored else w] = value * numpy.float32(0.5)
            numpy.testing.assert_array_equal(found[index], expected)


def test_one_mean_value_serves_all_channels_and_several_one_each(tmp_path):
    path = make_database(tmp_path / "db", IMAGES)
    single = batches(data_layer(path, "transform_param { mean_value: 7.5 scale: 2 }"), 1)[0][0]
    both = batches(data_layer(path, "transform_param { mean_value: 7.5 mean_value: 20 }"), 1)[0][0]
    images = numpy.stack(IMAGES[:3]).astype(numpy.float32)
    numpy.testing.assert_array_equal(single, (images - 7.5) * 2)
    numpy.testing.assert_array_equal(both[:, 0], images[:, 0] - 7.5)
    numpy.testing.assert_array_equal(both[:, 1], images[:, 1] - 20)


def test_cropped_records_may_differ_in_height_and_width(tmp_path):
    images = [noise(2, 7, 9), noise(2, 4, 6), noise(2, 8, 5)]
    path = make_database(tmp_path / "db", images)
    middle = batches(data_layer(path, "transform_param { crop_size: 4 }", phase="TEST"), 1)[0][0]
    for found, image, (top, left) in zip(middle, images, [(1, 2), (0, 1), (2, 0)], strict=True):
        numpy.testing.assert_array_equal(found, image[:, top : top + 4, left : left + 4])
    somewhere = batches(data_layer(path, "transform_param { crop_size: 4 }"), 1)[0][0]
    for found, image in zip(somewhere, images, strict=True):
        place_of(found, image)


def test_float_records_are_fed_as_they_are(tmp_path):
    values = numpy.random.default_rng(0).normal(size=(4, 2, 3, 5)).astype(numpy.float32)
    datums = [
        schema.Datum(channels=2, height=3, width=5, float_data=value.ravel().tolist(), label=-3).SerializeToString()
        for value in values
    ]
    layer = data_layer(make_raw_database(tmp_path / "db", datums), batch_size=4)
    pixels, labels = batches(layer, 1)[0]
    numpy.testing.assert_array_equal(pixels, values)
    assert labels.tolist() == [-3] * 4


def test_encoded_colours_come_in_the_order_blue_green_red(tmp_path):
    colour = noise(3, 5, 3)  # (H, W, 3) red, green, blue
    for name, image, expected in [
        ("colour", Image.fromarray(colour), colour[:, :, ::-1].transpose(2, 0, 1)),
        ("grey", Image.fromarray(colour[:, :, 0]), colour[None, :, :, 0]),
        ("bilevel", Image.fromarray(colour[:, :, 0] > 99), (colour[None, :, :, 0] > 99) * 255),
        ("palette", Image.fromarray(colour).quantize(15), None),
        ("alpha", Image.fromarray(colour).convert("RGBA"), None),
    ]:
        file = io.BytesIO()
        image.save(file, "PNG")
        datum = schema.Datum(data=file.getvalue(), encoded=True).SerializeToString()
        layer = data_layer(make_raw_database(tmp_path / name, [datum]), batch_size=1)
        ((pixels, _),) = batches(layer, 1)
        assert (
            layer.top_shapes(())[0] == pixels.shape == (1, {"colour": 3, "palette": 3, "alpha": 4}.get(name, 1), 3, 5)
        )
        if expected is not None:
            numpy.testing.assert_array_equal(pixels[0], expected)


def test_grey_and_colour_can_be_forced_on_encoded_records_alone(tmp_path):
    file = io.BytesIO()
    Image.fromarray(noise(3, 5)).save(file, "PNG")
    encoded = make_raw_database(
        tmp_path / "encoded", [schema.Datum(data=file.getvalue(), encoded=True).SerializeToString()]
    )
    forced = data_layer(encoded, "transform_param { force_color: true }", batch_size=1)
    assert batches(forced, 1)[0][0].shape == forced.top_shapes(())[0] == (1, 3, 3, 5)
    raw = data_layer(make_database(tmp_path / "raw", IMAGES), "transform_param { force_gray: true }")
    assert batches(raw, 1)[0][0].shape == (3, 2, HEIGHT, WIDTH)


def test_image_data_shuffles_anew_each_time_round_and_two_lists_stay_in_step(tmp_path):
    for number in range(9):
        for side in ("left", "right"):
            Image.fromarray(numpy.full((3, 5), number, numpy.uint8)).save(tmp_path / f"{side}{number}.png")
    for side in ("left", "right"):
        (tmp_path / side).write_text("".join(f"{side}{number}.png {number}\n" for number in range(9)))
    left, right = (
        make_layer(
            f'name: "{side}" type: "ImageData" top: "x" top: "y" image_data_param {{ source: "{side}" batch_size: 3'
            " shuffle: true is_color: false }",
            folder=str(tmp_path),
        )
        for side in ("left", "right")
    )
    found = batches(left, 6)
    labels = numpy.concatenate([batch[1] for batch in found])
    assert sorted(labels[:9]) == sorted(labels[9:]) == list(range(9))
    assert labels[:9].tolist() != labels[9:].tolist() != sorted(labels[9:])
    numpy.testing.assert_array_equal(numpy.concatenate([pixels[:, 0, 0, 0] for pixels, _ in found]), labels)
    for one, other in zip(found, batches(right, 6), strict=True):
        numpy.testing.assert_array_equal(one[0], other[0])
    numpy.testing.assert_array_equal(batches(left, 1, skip=4)[0][1], labels[12:15])


def test_hdf5_data_shuffles_files_and_rows_together(tmp_path):
    for name, rows in (("a", range(5)), ("b", range(5, 12))):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["x"] = numpy.array([[row, 10 * row] for row in rows], numpy.float64)
            file["y"] = numpy.array(rows, numpy.int32)
    (tmp_path / "list").write_text("a.h5\nb.h5\n")
    text = 'name: "h" type: "HDF5Data" top: "x" top: "y" hdf5_data_param { source: "list" batch_size: 4 shuffle: true }'
    layer = make_layer(text, folder=str(tmp_path))
    assert list(layer.top_shapes(())) == [(4, 2), (4,)]
    found = batches(layer, 6)
    rows = numpy.concatenate([y for _, y in found])
    assert sorted(rows[:12]) == sorted(rows[12:]) == list(range(12))
    assert rows[:12].tolist() != rows[12:].tolist()
    numpy.testing.assert_array_equal(numpy.concatenate([x for x, _ in found]), numpy.stack([rows, 10 * rows], 1))
    numpy.testing.assert_array_equal(batches(layer, 1, skip=5)[0][1], rows[20:])


def test_random_dummy_data_differs_between_batches_and_is_drawn_again_after_skipping():
    layer = make_layer(
        'name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param { shape { dim: 2 dim: 3 }'
        ' data_filler { type: "gaussian" std: 2 } data_filler { type: "constant" value: 4 } }'
    )
    first, second = batches(layer, 2)
    assert not numpy.array_equal(first[0], second[0])
    assert (first[1] == 4).all()
    numpy.testing.assert_array_equal(batches(layer, 1, skip=1)[0][0], second[0])
