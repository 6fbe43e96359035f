"""WindowData against loops that follow Caffe's description pixel by pixel."""

from __future__ import annotations

import math
from pathlib import Path

import numpy
import pytest
from feeding import batches, make_layer, noise
from PIL import Image

import siamese_proto as sp
from siamese_proto.data.layers.windows import Cutting
from siamese_proto.errors import DataError, GraphError
from siamese_proto.graph.ir import SourceMissingError
from siamese_proto.proto import schema

SIZES = [(19, 31), (23, 17), (12, 40)]  # height, width
# label overlap x1 y1 x2 y2: by the thresholds below two objects, one between, two of background
WINDOWS = [
    ["2 0.9 3 2 14 11", "5 0.2 0 0 30 18", "1 0.45 4 4 9 9"],
    ["7 0.5 10 12 16 22"],
    ["0 0 20 3 39 11"],
]
OBJECTS = {2: (0, 3, 2, 14, 11), 7: (1, 10, 12, 16, 22)}
BACKGROUND = [(0, 0, 0, 30, 18), (2, 20, 3, 39, 11)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    text = ""
    for number, (size, windows) in enumerate(zip(SIZES, WINDOWS, strict=True)):
        Image.fromarray(noise(*size, 3, seed=number)).save(tmp_path / f"images/picture {number}.png")
        head = f"# {number}\npicture {number}.png\n3\n{size[0]}\n{size[1]}\n{len(windows)}\n"
        text += head + "".join(f"{window}\n" for window in windows)
    (tmp_path / "windows.txt").write_text(text)
    return tmp_path


def window_layer(folder: Path, more: str = "", transform: str = "crop_size: 9"):
    return make_layer(
        'name: "w" type: "WindowData" top: "x" top: "y" window_data_param { source: "windows.txt"'
        f' root_folder: "images/" batch_size: 8 bg_threshold: 0.3 {more} }} transform_param {{ {transform} }}',
        folder=str(folder),
    )


def nearest(value: float) -> int:
    return math.floor(value + 0.5) if value >= 0 else -math.floor(-value + 0.5)


def bilinear(image: numpy.ndarray, height: int, width: int) -> numpy.ndarray:
    """(H, W, 3) to another size: pixel centres are mapped on each other, and edges repeated."""
    found = numpy.zeros((height, width, 3))
    for row in range(height):
        for column in range(width):
            y = min(max((row + 0.5) * image.shape[0] / height - 0.5, 0), image.shape[0] - 1)
            x = min(max((column + 0.5) * image.shape[1] / width - 0.5, 0), image.shape[1] - 1)
            top, left = int(y), int(x)
            low, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
            for c in range(3):
                upper = image[top, left, c] * (1 - (x - left)) + image[top, right, c] * (x - left)
                lower = image[low, left, c] * (1 - (x - left)) + image[low, right, c] * (x - left)
                found[row, column, c] = upper * (1 - (y - top)) + lower * (y - top)
    return found


def naive(window, crop: int, pad: int = 0, square: bool = False, mirrored: bool = False, mean=0.0, scale: float = 1):
    """The picture of a window, (3, crop, crop) in blue, green, red, and which of its pixels are of the image."""
    number, x1, y1, x2, y2 = window
    image = noise(*SIZES[number], 3, seed=number)[:, :, ::-1].astype(float)
    height, width = SIZES[number]
    left = top = 0
    new_height = new_width = crop
    if pad or square:
        half_w, half_h = (x2 - x1 + 1) / 2, (y2 - y1 + 1) / 2
        middle_x, middle_y = x1 + half_w, y1 + half_h
        if square:
            half_w = half_h = max(half_w, half_h)
        grown = crop / (crop - 2 * pad)
        x1, x2 = nearest(middle_x - half_w * grown), nearest(middle_x + half_w * grown)
        y1, y2 = nearest(middle_y - half_h * grown), nearest(middle_y + half_h * grown)
        full_w, full_h = x2 - x1 + 1, y2 - y1 + 1
        beyond_left, beyond_top = max(0, -x1), max(0, -y1)
        beyond_right, beyond_bottom = max(0, x2 - width + 1), max(0, y2 - height + 1)
        x1, y1, x2, y2 = x1 + beyond_left, y1 + beyond_top, x2 - beyond_right, y2 - beyond_bottom
        new_width, new_height = nearest((x2 - x1 + 1) * crop / full_w), nearest((y2 - y1 + 1) * crop / full_h)
        left = nearest((beyond_right if mirrored else beyond_left) * crop / full_w)
        top = nearest(beyond_top * crop / full_h)
        new_width, new_height = min(new_width, crop - left), min(new_height, crop - top)
    cut = bilinear(image[y1 : y2 + 1, x1 : x2 + 1], new_height, new_width)
    found, there = numpy.zeros((3, crop, crop)), numpy.zeros((3, crop, crop), bool)
    mean = numpy.broadcast_to(mean, (3, crop, crop))
    for c in range(3):
        for row in range(new_height):
            for column in range(new_width):
                pixel = cut[row, new_width - 1 - column if mirrored else column, c]
                place = c, top + row, left + column
                found[place] = (pixel - mean[place]) * scale
                there[place] = True
    return found, there


def matches(found: numpy.ndarray, wanted: tuple[numpy.ndarray, numpy.ndarray], scale: float = 1) -> bool:
    """Within a grey level of resizing; and exactly 0 beyond the image."""
    expected, there = wanted
    return bool((numpy.abs(found - expected) <= 0.51 * scale).all() and (found[~there] == 0).all())


CUTTINGS = [
    ("", {}),
    ('crop_mode: "warp" context_pad: 2', {"pad": 2}),
    ('crop_mode: "square"', {"square": True}),
    ('crop_mode: "square" context_pad: 1 scale: 0.5', {"pad": 1, "square": True, "scale": 0.5}),
]


@pytest.mark.parametrize(("more", "how"), CUTTINGS)
@pytest.mark.parametrize("cached", ["", "cache_images: true"])
def test_windows_are_cut_warped_and_padded_as_caffe_does(more, how, cached, folder):
    layer = window_layer(folder, f"fg_fraction: 0.4 {more} {cached}", "crop_size: 9 mirror: true")
    assert list(layer.top_shapes(())) == [(8, 3, 9, 9), (8,)]
    flips = []
    for pixels, labels in batches(layer, 4):
        assert (pixels.dtype, pixels.shape, labels.dtype) == (numpy.float32, (8, 3, 9, 9), numpy.float32)
        assert labels[:5].tolist() == [0] * 5  # background first; 8 * 0.4, rounded down, are objects
        assert {2.0, 7.0} >= set(labels[5:])
        for picture, label in zip(pixels, labels, strict=True):
            candidates = [OBJECTS[label]] if label else BACKGROUND
            found = [
                flip
                for window in candidates
                for flip in (False, True)
                if matches(picture, naive(window, 9, mirrored=flip, **how), how.get("scale", 1))
            ]
            assert len(found) == 1
            flips += found
    assert 4 < sum(flips) < 28


def test_every_window_of_either_kind_is_drawn_and_no_other(folder):
    layer = window_layer(folder, "fg_fraction: 0.5", "crop_size: 3")
    found = batches(layer, 12)
    assert {label for _, labels in found for label in labels[4:]} == {2.0, 7.0}
    pictures = numpy.concatenate([pixels[:4] for pixels, _ in found])
    for window in BACKGROUND:
        assert any(matches(picture, naive(window, 3)) for picture in pictures)


def test_what_is_drawn_depends_on_the_seed_and_the_position_alone(folder):
    layer = window_layer(folder, "context_pad: 1", "crop_size: 9 mirror: true")
    first = batches(layer, 5, seed=3)
    for one, other in zip(first[2:], batches(layer, 3, seed=3, skip=2), strict=True):
        numpy.testing.assert_array_equal(one[0], other[0])
        numpy.testing.assert_array_equal(one[1], other[1])
    assert not numpy.array_equal(first[0][0], batches(layer, 1, seed=4)[0][0])


def test_the_mean_is_taken_where_the_image_is_and_at_the_place_it_comes_to(folder):
    mean = numpy.random.default_rng(2).normal(100, 30, (3, 15, 13)).astype(numpy.float32)
    blob = schema.BlobProto(num=1, channels=3, height=15, width=13, data=mean.ravel().tolist())
    (folder / "mean.binaryproto").write_bytes(blob.SerializeToString())
    middle = mean[:, 2:11, 2:11]  # (13 - 9) / 2, for rows too
    for text, wanted in [
        ('mean_file: "mean.binaryproto"', middle),
        ("mean_value: 7", 7.0),
        ("mean_value: 10 mean_value: 20 mean_value: 30", numpy.array([10.0, 20.0, 30.0])[:, None, None]),
    ]:
        layer = window_layer(folder, "fg_fraction: 1 context_pad: 2 scale: 0.25", f"crop_size: 9 {text}")
        ((pixels, labels),) = batches(layer, 1)
        for picture, label in zip(pixels, labels, strict=True):
            assert matches(picture, naive(OBJECTS[label], 9, pad=2, mean=wanted, scale=0.25), 0.25)


def test_windows_beyond_the_image_keep_their_place_in_single_precision():
    # 227 and 16 are R-CNN's: every box of an image is cut as Caffe's arithmetic in float has it
    cutting = Cutting(227, 16)
    single = numpy.float32
    generator = numpy.random.default_rng(0)
    for _ in range(300):
        height, width = generator.integers(40, 500, 2)
        x1, y1 = int(generator.integers(0, width - 20)), int(generator.integers(0, height - 20))
        x2, y2 = int(generator.integers(x1 + 4, width)), int(generator.integers(y1 + 4, height))
        rows, columns = cutting.spans((x1, y1, x2, y2), (int(height), int(width)), mirrored=False)
        for span, low, high, length in ((rows, y1, y2, height), (columns, x1, x2, width)):
            half = single((high - low + 1) / 2)
            grown = single(half * single(single(227) / single(195)))
            begin, end = nearest(float(single(single(low) + half) - grown)), nearest(float(single(low) + half + grown))
            assert (span.begin, span.end) == (max(begin, 0), min(end, length - 1) + 1)
            assert 0 <= span.offset <= span.offset + span.size <= 227


def test_a_net_with_windows_is_built_without_its_files():
    text = """layer { name: "w" type: "WindowData" top: "data" top: "label" transform_param { crop_size: 9 }
                      window_data_param { source: "none" batch_size: 4 } }
              layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 5 } }
              layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }"""
    graph = sp.build_graph(sp.parse_net(text), phase="TRAIN")
    assert [graph.blobs()[name].shape for name in ("data", "label", "ip", "loss")] == [(4, 3, 9, 9), (4,), (4, 5), ()]
    assert "window file 'none' is not there" in graph.notes[0]
    assert "graph" in str(sp.draw(graph))
    with pytest.raises(DataError, match="window file 'none' is not there"):
        sp.Net(text, "TRAIN")()


def test_a_net_of_windows_runs(folder):
    text = f"""layer {{ name: "w" type: "WindowData" top: "data" top: "label" transform_param {{ crop_size: 5 }}
        window_data_param {{ source: "{folder}/windows.txt" root_folder: "{folder}/images/" batch_size: 4 }} }}
      layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {{ num_output: 8 }} }}
      layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}"""
    net = sp.Net(text, "TRAIN", seed=1)
    assert float(net()["loss"].detach()) == pytest.approx(math.log(8), rel=1e-4)
    net.close()


SETTINGS = [
    ("", "scale: 2", "transform_param.crop_size", "no crop_size is given; write one above 0"),
    (
        'crop_mode: "Square"',
        "crop_size: 9",
        "window_data_param.crop_mode",
        "crop_mode 'Square' is neither 'warp' nor 'square'; did you mean 'square'?",
    ),
    (
        "context_pad: 5",
        "crop_size: 10",
        "window_data_param.context_pad",
        "context_pad 5 on both sides leaves nothing of crop_size 10",
    ),
    ("fg_fraction: 1.5", "crop_size: 9", "window_data_param.fg_fraction", "fg_fraction must be from 0 to 1"),
    (
        "",
        "crop_size: 9 mean_value: 1 mean_value: 2",
        "transform_param.mean_value",
        "2 mean values for 3 channels; write one, or one a channel",
    ),
]


@pytest.mark.parametrize(("more", "transform", "field", "message"), SETTINGS)
def test_settings_that_cannot_be_are_refused_with_their_field(more, transform, field, message, tmp_path):
    with pytest.raises(GraphError) as caught:
        window_layer(tmp_path, more, transform)
    assert (str(caught.value), caught.value.field) == (message, field)


FILES = [
    ("", "window file 'windows.txt' names no image; see the layer reference for the form of window files"),
    (
        "picture.png\n3\n5\n7\n0\n",
        "windows.txt:1: 'picture.png' is not '# NUMBER', which begins an image; see the layer reference for the form of"
        " window files",
    ),
    ("# 1\na.png\n3\n5\n7\n0\n", "windows.txt:1: the image is given number 1, but it is number 0, from 0 on"),
    (
        "# 0\na.png\n1\n5\n7\n0\n",
        "windows.txt:1: the image has 1 channels; images are read in colour, so write 3",
    ),
    (
        "# 0\na.png\n3\nfive\n7\n0\n",
        "windows.txt:4: 'five' is not the whole number that must stand there, height; see the layer reference for the"
        " form of window files",
    ),
    (
        "# 0\na.png\n3\n5\n",
        "windows.txt: the end of the file is not the whole number that must stand there, width; see the layer reference"
        " for the form of window files",
    ),
    (
        "# 0\na.png\n3\n5\n7\n3\n1 1 0 0 1 1\n",
        "windows.txt:1: the image has 3 windows, but the file ends after 1",
    ),
    (
        "# 0\na.png\n3\n5\n7\n1\n1 0.5 0 0 1.5 1\n",
        "windows.txt:7: '1 0.5 0 0 1.5 1' is not 'label overlap x1 y1 x2 y2', whole numbers but for the overlap",
    ),
    (
        "# 0\na.png\n3\n5\n7\n1\n1 nan 0 0 1 1\n",
        "windows.txt:7: '1 nan 0 0 1 1' is not 'label overlap x1 y1 x2 y2', whole numbers but for the overlap",
    ),
    (
        "# 0\na.png\n3\n5\n7\n1\n0 0.5 0 0 1 1\n",
        "a window of image 'a.png' overlaps an object by 0.5, but has label 0; labels of objects are above 0",
    ),
    (
        "# 0\na.png\n3\n5\n7\n1\n1 0.5 0 0 1 1\n",
        "6 windows of each batch are to be background windows, but window file 'windows.txt' has none for these"
        " thresholds; change them, or fg_fraction",
    ),
    (
        "# 0\na.png\n3\n5\n7\n2\n1 0.5 0 0 1 1\n1 0 0 0 1 1\n",
        "image 'images/a.png' cannot be read: No such file or directory; check the list",
    ),
    (
        "# 0\npicture 0.png\n3\n19\n31\n2\n1 0.5 0 0 31 1\n1 0 0 0 31 1\n",
        "window 0 0 31 1 (x1 y1 x2 y2) cannot be cut out of image 'images/picture 0.png', which is 31 x 19 (width x"
        " height); correct the window file",
    ),
]


@pytest.mark.parametrize(("text", "message"), FILES)
def test_window_files_that_cannot_be_used_are_told_in_one_line(text, message, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "windows.txt").write_text(text)
    with pytest.raises(DataError) as caught:
        batches(window_layer(Path()), 1)
    assert str(caught.value) == message


def test_shapes_are_known_from_the_settings_where_the_window_file_is_missing(tmp_path):
    with pytest.raises(SourceMissingError) as caught:
        window_layer(tmp_path).top_shapes(())
    assert caught.value.shapes == ((8, 3, 9, 9), (8,))


def test_settings_without_effect_are_named(tmp_path):
    layer = window_layer(tmp_path, "crop_size: 7 mirror: true", "crop_size: 9 scale: 2")
    assert layer.unused_fields() == [
        "window_data_param.crop_size",
        "window_data_param.mirror",
        "transform_param.scale",
    ]


@pytest.mark.parametrize(("more", "told"), [("", True), ("scale: 0.5", False)])
def test_a_scale_that_an_upgrade_moved_out_of_sight_is_told_when_reading_begins(more, told, folder, caplog):
    batches(window_layer(folder, more, "crop_size: 9 scale: 0.25"), 1)
    warning = "transform_param.scale has no effect, as in Caffe; write window_data_param { scale: 0.25 }"
    assert (warning in caplog.text) == told
