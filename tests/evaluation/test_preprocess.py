"""Images as data layers preprocess them, sliced from records, back to pictures, and files of every pixel mode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from siamese_proto.data.databases.pairs import draw_pairs, write_pairs
from siamese_proto.data.images.labeled_source import LabeledSource
from siamese_proto.errors import DataError
from siamese_proto.evaluation.pair_distances import measure_data_layers, measure_pairs
from siamese_proto.evaluation.pair_sources import image_files, open_pair_images
from siamese_proto.evaluation.twin import Twin, TwinSettings
from siamese_proto.net.net import Net
from siamese_proto.proto import schema

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 3, 8, 10), np.uint8)
LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2], np.uint8)
TWIN = """name: "twin"
layer { name: "pairs" type: "Data" top: "pairs" top: "sim" data_param { source: "db" batch_size: 4 backend: LMDB }
        transform_param { scale: 0.5 %s } }
layer { name: "cut" type: "Slice" bottom: "pairs" top: "a" top: "b" slice_param { axis: 1 } }
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "f" param { name: "w" } inner_product_param { num_output: 5
        bias_term: false weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "ip_b" type: "InnerProduct" bottom: "b" top: "g" param { name: "w" } inner_product_param { num_output: 5
        bias_term: false weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "loss" type: "ContrastiveLoss" bottom: "f" bottom: "g" bottom: "sim" top: "loss" }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_pairs("db", "LMDB", IMAGES, draw_pairs(LABELS, 11, seed=1))
    mean = np.random.default_rng(1).normal(100, 9, (6, 8, 10))
    blob = schema.BlobProto(data=mean.ravel().tolist())
    blob.shape.dim.extend([1, 6, 8, 10])
    Path("mean.binaryproto").write_bytes(blob.SerializeToString())
    return tmp_path


@pytest.mark.parametrize(
    "settings",
    ["", "mean_value: 3", "crop_size: 6", "mirror: true", *['mean_file: "mean.binaryproto" crop_size: 6']],
    ids=["scale", "mean", "crop", "mirror", "mean file"],
)
def test_a_database_read_pair_by_pair_has_the_distances_of_the_nets_own_layer(settings: str, folder: Path) -> None:
    twin = Twin(Net(TWIN % settings, "TEST", seed=2))
    plain = Twin(Net(TWIN % settings.replace("mirror: true", ""), "TEST", seed=2))
    measured = measure_pairs(twin, open_pair_images(LabeledSource("db"), twin.preprocessing()))
    own = measure_data_layers(plain)
    assert len(own.distances) == 11
    np.testing.assert_allclose(measured.distances.distance, own.distances.distance, rtol=1e-4)
    np.testing.assert_array_equal(measured.distances.same, own.distances.same)


def test_label_0_can_mean_the_same(folder: Path) -> None:
    twin = Twin(Net(TWIN % "", "TEST"))
    same, other = (
        open_pair_images(LabeledSource("db"), twin.preprocessing(), one_is_same=one).same for one in (True, False)
    )
    assert (same == ~other).all()


@pytest.mark.parametrize(
    "settings", ["", "mean_value: 3", "crop_size: 6", 'mean_file: "mean.binaryproto" crop_size: 6']
)
def test_pictures_of_preprocessed_images_are_the_images(settings: str, folder: Path) -> None:
    preprocessing = Twin(Net(TWIN % settings, "TEST")).preprocessing()
    pictures = preprocessing.to_pictures(preprocessing(IMAGES))
    cut = slice(1, 7) if "crop" in settings else slice(None), slice(2, 8) if "crop" in settings else slice(None)
    assert (pictures == IMAGES[:, ::-1, cut[0], cut[1]].transpose(0, 2, 3, 1)).all()


def test_pairs_are_drawn_from_a_labeled_database(folder: Path) -> None:
    write_pairs("db", "LMDB", IMAGES, draw_pairs(LABELS, 5, seed=1), overwrite=True)
    twin = Twin(Net(TWIN % "", "TEST"))
    tower = TWIN[TWIN.index('layer { name: "ip"') : TWIN.index('layer { name: "ip_b"')]
    six = 'layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 1 dim: 6 dim: 8 dim: 10 } } }'
    single = Twin(Net(six + tower, "TEST"))
    assert "pairs of db" in open_pair_images(LabeledSource("db"), twin.preprocessing()).description
    assert (
        "drawn from the 5 images of db"
        in open_pair_images(LabeledSource("db"), single.preprocessing(), count=4).description
    )


GRAY = 'layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 1 dim: 1 dim: 6 dim: 4 } } }'
TOWER = GRAY + 'layer { name: "f" type: "InnerProduct" bottom: "a" top: "f" inner_product_param { num_output: 2 } }'


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "CMYK", "I;16"])
def test_a_gray_picture_is_the_same_in_every_mode(mode: str, tmp_path: Path) -> None:
    gray = np.array([[0, 255, 0, 255]] * 3 + [[255, 0, 0, 255]] * 3, np.uint8)
    image = Image.fromarray(gray)
    converted = Image.fromarray(gray.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    assert converted.mode == mode
    converted.save(tmp_path / ("x.tif" if mode == "CMYK" else "x.png"))
    preprocessing = Twin(Net(TOWER)).preprocessing()
    pixels = image_files([str(tmp_path)], preprocessing).image(0)
    np.testing.assert_allclose(pixels, gray[None], atol=1)


def test_images_of_another_size_are_resized_for_the_net(tmp_path: Path) -> None:
    Image.new("L", (40, 90), 77).save(tmp_path / "x.png")
    preprocessing = Twin(Net(TOWER)).preprocessing()
    assert (preprocessing(image_files([str(tmp_path)], preprocessing).images(np.array([0]))) == 77).all()
    assert str(preprocessing) == "gray, resized to 6 x 4, values from 0 to 255 (a deploy net does not describe it)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "its 0 bytes are not an image file that Pillow can read"),
        (b"P5 9 9 255 ", "its image file is damaged (image file is truncated"),
        (None, "No such file or directory"),
    ],
)
def test_a_file_that_is_not_an_image_is_named_in_the_error(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.png").write_bytes(content)
    twin = Twin(Net(TOWER))
    with pytest.raises(DataError) as caught:
        twin.embed_images(image_files([str(tmp_path / "x.png")], twin.preprocessing()))
    assert str(caught.value).startswith(f"image '{tmp_path / 'x.png'}' cannot be read: ")
    assert message in str(caught.value)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".hidden.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"^no images in "):
        image_files([str(tmp_path)], Twin(Net(TOWER)).preprocessing())


def test_specified_settings_replace_the_mean_image(folder: Path) -> None:
    choice = TwinSettings(mean_values=(1.0, 2.0, 3.0), scale=2.0)
    preprocessing = Twin(Net(TWIN % 'mean_file: "mean.binaryproto"', "TEST"), choice).preprocessing()
    expected = (IMAGES.astype(float) - np.array([1, 2, 3])[:, None, None]) * 2
    np.testing.assert_array_equal(preprocessing(IMAGES), expected)
