"""Layers that deliver images, against loops: files, memory, and what a program hands over."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from feeding import batches, data_layer, make_database, make_layer, noise
from PIL import Image

import siamese_proto as sp
from siamese_proto.data.databases.database import open_database
from siamese_proto.errors import DataError
from siamese_proto.proto import schema


def write_images(folder: Path, count: int, size: tuple[int, int] = (6, 8)) -> list[numpy.ndarray]:
    """Images with a list of them, labelled by their number; as Caffe delivers them, (3, H, W) in blue, green, red."""
    (folder / "pictures").mkdir()
    found = []
    for number in range(count):
        picture = noise(*size, 3, seed=number)
        Image.fromarray(picture).save(folder / f"pictures/a {number}.png")
        found.append(picture[:, :, ::-1].transpose(2, 0, 1))
    (folder / "list").write_text("".join(f"a {number}.png {number}\n" for number in range(count)))
    return found


def image_layer(folder: Path, more: str, transform: str = "", phase: str = "TRAIN"):
    return make_layer(
        'name: "i" type: "ImageData" top: "x" top: "y"'
        f' image_data_param {{ source: "list" root_folder: "pictures/" {more} }} transform_param {{ {transform} }}',
        phase,
        str(folder),
    )


def test_training_images_are_cropped_mirrored_and_scaled_as_loops_would(tmp_path):
    images = write_images(tmp_path, 7)
    mean = numpy.random.default_rng(1).normal(120, 20, (3, 6, 8)).astype(numpy.float32)
    blob = schema.BlobProto(num=1, channels=3, height=6, width=8, data=mean.ravel().tolist())
    (tmp_path / "mean").write_bytes(blob.SerializeToString())
    layer = image_layer(tmp_path, "batch_size: 5", 'crop_size: 4 mirror: true scale: 0.5 mean_file: "mean"')
    places = set()
    for pixels, labels in batches(layer, 12):
        assert (pixels.dtype, labels.dtype, pixels.shape) == (numpy.float32, numpy.float32, (5, 3, 4, 4))
        for found, label in zip(pixels, labels, strict=True):
            ways = [
                (top, left, flip)
                for top in range(3)
                for left in range(5)
                for flip in (False, True)
                if numpy.allclose(found, treated(images[int(label)], mean, top, left, flip), atol=1e-4)
            ]
            assert len(ways) == 1
            places.update(ways)
    assert {top for top, _, _ in places} == {0, 1, 2}
    assert {left for _, left, _ in places} == {0, 1, 2, 3, 4}
    assert {flip for _, _, flip in places} == {False, True}


def treated(image: numpy.ndarray, mean: numpy.ndarray, top: int, left: int, flip: bool) -> numpy.ndarray:
    found = numpy.zeros((3, 4, 4))
    for c in range(3):
        for row in range(4):
            for column in range(4):
                place = c, top + row, left + column
                found[c, row, 3 - column if flip else column] = (float(image[place]) - mean[place]) * 0.5
    return found


@pytest.mark.slow
def test_rand_skip_passes_over_some_images_as_the_seed_says(tmp_path):
    write_images(tmp_path, 9, (2, 3))
    layer = image_layer(tmp_path, "batch_size: 4 rand_skip: 6")
    firsts = set()
    for seed in range(30):
        labels = numpy.concatenate([labels for _, labels in batches(layer, 3, seed=seed)])
        assert labels.tolist() == [(int(labels[0]) + step) % 9 for step in range(12)]
        firsts.add(int(labels[0]))
    assert firsts == {0, 1, 2, 3, 4, 5}  # below rand_skip
    again = batches(layer, 1, seed=3, skip=2)[0][1]
    numpy.testing.assert_array_equal(again, batches(layer, 3, seed=3)[2][1])


def test_rand_skip_goes_on_in_the_shuffled_order(tmp_path):
    write_images(tmp_path, 9, (2, 3))
    skipped = image_layer(tmp_path, "batch_size: 3 rand_skip: 6 shuffle: true")
    shuffled = image_layer(tmp_path, "batch_size: 3 shuffle: true")
    order = numpy.concatenate([labels for _, labels in batches(shuffled, 9, seed=2)]).tolist()
    found = numpy.concatenate([labels for _, labels in batches(skipped, 6, seed=2)]).tolist()
    begin = order.index(found[0])
    assert begin < 6
    assert found == order[begin : begin + 18]


def test_batches_of_one_may_have_any_size(tmp_path):
    sizes = [(5, 7), (8, 3), (6, 6)]
    images = [noise(3, *size, seed=number) for number, size in enumerate(sizes)]
    path = make_database(tmp_path / "db", images)
    found = batches(data_layer(path, "transform_param { scale: 2 }", batch_size=1), 4)
    for (pixels, labels), number in zip(found, (0, 1, 2, 0), strict=True):
        numpy.testing.assert_array_equal(pixels[0], images[number] * 2.0)
        assert labels.tolist() == [number]
    with pytest.raises(DataError, match="has size 3 x 8 x 3, but the first one has 3 x 5 x 7"):
        batches(data_layer(path, batch_size=2), 1)


def test_a_net_takes_images_of_any_size_one_by_one(tmp_path):
    for number, size in enumerate([(9, 11), (14, 10)]):
        Image.fromarray(noise(*size)).save(tmp_path / f"{number}.png")
    (tmp_path / "list").write_text(f"{tmp_path}/0.png 4\n{tmp_path}/1.png 2\n")
    net = sp.Net(
        f"""layer {{ name: "i" type: "ImageData" top: "x" top: "y"
                     image_data_param {{ source: "{tmp_path}/list" is_color: false }} }}
            layer {{ name: "c" type: "Convolution" bottom: "x" top: "c"
                     convolution_param {{ num_output: 2 kernel_size: 3 }} }}
            layer {{ name: "s" type: "Silence" bottom: "y" }}"""
    )
    assert [tuple(net()["c"].shape) for _ in range(3)] == [(1, 2, 7, 9), (1, 2, 12, 8), (1, 2, 7, 9)]
    net.close()


def test_memory_and_input_layers_take_what_a_program_hands_over_as_floats():
    net = sp.Net(
        """layer { name: "m" type: "MemoryData" top: "x" top: "y"
                   memory_data_param { batch_size: 4 channels: 2 height: 3 width: 5 } }
           layer { name: "in" type: "Input" top: "z" input_param { shape { dim: 4 dim: 7 } } }
           layer { name: "p" type: "Power" bottom: "x" top: "p" power_param { scale: 2 } }
           layer { name: "q" type: "Power" bottom: "z" top: "q" }
           layer { name: "r" type: "Power" bottom: "y" top: "r" }"""
    )
    shapes = {name: blob.shape for name, blob in net.graph.blobs().items()}
    assert (shapes["x"], shapes["y"], shapes["z"]) == ((4, 2, 3, 5), (4,), (4, 7))
    images, labels, more = noise(4, 2, 3, 5), numpy.array([3, 1, 0, 2]), noise(4, 7, seed=2)
    found = net(x=images, y=labels, z=more)
    for name, wanted in (("p", images * 2.0), ("q", more), ("r", labels)):
        assert found[name].dtype == torch.float32
        numpy.testing.assert_array_equal(found[name], wanted)


def test_the_log_says_that_another_process_holds_a_leveldb(tmp_path, caplog):
    path = make_database(tmp_path / "made", [noise(1, 2, 3)] * 5)
    holder = "import sys; from siamese_proto.data.databases.leveldb_store import _library;"
    holder += f"d = _library().DB({path!r}); print('held', flush=True); sys.stdin.read()"
    caplog.set_level("INFO")
    with subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with open_database(path) as database:
            assert database.count() == 5
        process.communicate()
    told = [f"LevelDB '{path}' is held open by process {process.pid}; it is read as it was when reading began"]
    assert caplog.messages == (told if sys.platform == "linux" else [])
    caplog.clear()
    with open_database(path):
        assert caplog.messages == []


@pytest.mark.parametrize("written", ["./0.png", ".//0.png", "part/../0.png"])
def test_paths_of_a_list_are_taken_as_they_are_written(tmp_path, monkeypatch, written):
    (tmp_path / "part").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Image.fromarray(noise(6, 8, 3, seed=1)).save(tmp_path / "0.png")
    (tmp_path / "list.txt").write_text(f"{written} 3\n./0.png 4\n")
    monkeypatch.chdir(elsewhere)
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "d" type: "ImageData" top: "d" top: "l" image_data_param { source: "list.txt" batch_size: 2 } }'
    )
    batch = sp.Net(tmp_path / "net.prototxt", phase="TEST")()
    assert batch["l"].tolist() == [3, 4]
    assert torch.equal(batch["d"][0], batch["d"][1])
    assert batch["d"].shape == (2, 3, 6, 8)
