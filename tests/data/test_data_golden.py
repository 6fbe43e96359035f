"""What real Caffe fed its nets with."""

from __future__ import annotations

import numpy
import pytest
import torch
from feeding import GOLDEN, batches, data_layer, drain, make_layer

from siamese_proto.graph.ir import LayerContext
from siamese_proto.layers.base import RunState, find_layer
from siamese_proto.proto.reader import parse_net

CASES = sorted(path.stem for path in (GOLDEN / "data/expect").glob("*.prototxt"))
# JPEG decoding and resizing differ between libraries by one grey level.
ONE_LEVEL = {"image_data_resize_gray", "leveldb_encoded_jpg"}


def test_all_cases_are_here():
    assert len(CASES) == 17


@pytest.mark.parametrize("case", CASES)
def test_batches_equal_those_of_caffe(case):
    message = parse_net(str(GOLDEN / f"data/expect/{case}.prototxt")).message.layer[0]
    layer = find_layer(message.type)(message, LayerContext("TEST", str(GOLDEN / "data")))
    expected = numpy.load(GOLDEN / f"data/expect/{case}.npz")
    feeder = layer.open(RunState())
    for number, batch in enumerate(drain(feeder, 4)):
        for top, shape, found in zip(message.top, layer.top_shapes(()), batch, strict=True):
            wanted = expected[f"batch{number}/{top}"]
            assert found.dtype == numpy.float32
            assert found.shape == tuple(shape) == wanted.shape
            numpy.testing.assert_allclose(found, wanted, rtol=0, atol=1 if case in ONE_LEVEL else 0)
    feeder.close()


@pytest.mark.parametrize(("backend", "name"), [("LEVELDB", "pairs_leveldb"), ("LMDB", "pairs_lmdb")])
def test_the_first_batch_of_the_flagship_is_caffes_bit_for_bit(backend, name):
    expected = numpy.load(GOLDEN / "flagship/first_batch.npz")
    layer = data_layer(
        GOLDEN / "flagship" / name, "transform_param { scale: 0.00390625 }", backend=backend, batch_size=64
    )
    pixels, labels = batches(layer, 1)[0]
    numpy.testing.assert_array_equal(pixels, expected["first/pair_data"])
    numpy.testing.assert_array_equal(labels, expected["first/sim"])


def test_hdf5_data_of_the_solver_vectors_goes_round():
    import h5py

    text = 'name: "p" type: "HDF5Data" top: "pair" top: "sim" hdf5_data_param { source: "data_list.txt" batch_size: 8 }'
    layer = make_layer(text, folder=str(GOLDEN / "solver"))
    with h5py.File(GOLDEN / "solver/data.h5") as file:
        rows = {name: file[name][()] for name in ("pair", "sim")}
    count = len(rows["pair"])
    for number, batch in enumerate(batches(layer, 2 * count // 8)):
        index = numpy.arange(number * 8, number * 8 + 8) % count
        for name, found in zip(("pair", "sim"), batch, strict=True):
            numpy.testing.assert_array_equal(found, rows[name][index].astype(numpy.float32))


def test_tensors_are_float32_and_belong_to_the_caller():
    layer = data_layer(GOLDEN / "data/color_lmdb", backend="LMDB", batch_size=8)
    feeder = layer.open(RunState())
    first, _ = feeder.next_batch()
    kept = first.clone()
    first.zero_()
    again, _ = feeder.next_batch()
    feeder.close()
    assert first.dtype == torch.float32
    assert torch.equal(again, kept)
