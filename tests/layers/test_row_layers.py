"""Layers that select rows, positions and parts, compared with plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_harness import make, run, values

import siamese_proto as sp
from siamese_proto.errors import DataError


def argmax(x, top_k):
    """Return positions and values of the highest scores of each row (N, K); the later of equal scores comes first."""
    order = [sorted(range(len(row)), key=lambda place: (-row[place], -place))[:top_k] for row in x]
    return np.array(order), np.array([row[places] for row, places in zip(x, order, strict=True)])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), top_k=st.integers(1, 5), axis=st.sampled_from([None, 1, 2, -1]))
def test_argmax_prefers_the_later_of_equal_values(seed, top_k, axis):
    x = (values((3, 5, 6), seed) * 2).round()  # ties are frequent
    setting = f"top_k: {top_k}" + (f" axis: {axis}" if axis is not None else "")
    (places,) = run(make(f'type: "ArgMax" argmax_param {{ {setting} }}'), x)
    (values_top,) = run(make(f'type: "ArgMax" argmax_param {{ {setting} out_max_val: true }}'), x)
    if axis is None:
        expected, highest = argmax(x.numpy().reshape(3, 30), top_k)
        np.testing.assert_array_equal(places.numpy(), expected[:, None])
        np.testing.assert_array_equal(values_top.numpy(), np.stack([expected, highest], 1))
        return
    last = x.movedim(axis, -1)
    expected, highest = argmax(last.reshape(-1, last.shape[-1]).numpy(), top_k)
    for top, reference in ((places, expected), (values_top, highest)):
        np.testing.assert_array_equal(top.movedim(axis, -1).numpy(), reference.reshape(*last.shape[:-1], top_k))


@pytest.mark.parametrize(
    ("shape", "setting", "expected"),
    [
        ((4, 7), "", (4, 1, 1)),
        ((4, 7), "top_k: 3", (4, 1, 3)),
        ((4, 7), "top_k: 3 out_max_val: true", (4, 2, 3)),
        ((4, 7, 5), "top_k: 3", (4, 1, 3)),
        ((4, 2, 3, 5, 6), "top_k: 3 out_max_val: true", (4, 2, 3, 1, 1)),
        ((4,), "", (4, 1, 1)),
        ((4, 7, 5), "axis: 0 top_k: 2", (2, 7, 5)),
        ((4, 7), "axis: 1 top_k: 2 out_max_val: true", (4, 2)),
    ],
)
def test_argmax_has_at_least_three_axes_without_axis(shape, setting, expected):
    layer = make(f'type: "ArgMax" argmax_param {{ {setting} }}')
    assert tuple(layer.top_shapes([shape])[0]) == expected
    assert tuple(run(layer, values(shape))[0].shape) == expected


def test_filter_selects_rows_and_the_others_have_no_gradient():
    blobs = [values((6, 2, 3), 1).requires_grad_(), values((6, 4), 2).requires_grad_()]
    selector = torch.tensor([0.0, 1.0, 0.0, -0.5, 2.0, 0.0]).reshape(6, 1, 1)
    tops = run(make('type: "Filter"', 3, 2), *blobs, selector)
    for top, blob in zip(tops, blobs, strict=True):
        assert torch.equal(top, blob[[1, 3, 4]])
        top.backward(torch.full_like(top, 7))
        assert blob.grad.flatten(1)[:, 0].tolist() == [0, 7, 0, 7, 7, 0]


def test_filter_can_drop_every_row():
    x = values((3, 5)).requires_grad_()
    (top,) = run(make('type: "Filter"', 2), x, torch.zeros(3))
    assert top.shape == (0, 5)
    top.sum().backward()
    assert not x.grad.any()


def test_a_net_continues_with_the_rows_that_a_filter_keeps():
    text = """
    layer { name: "in" type: "Input" top: "x" top: "s" input_param { shape { dim: 5 dim: 3 } shape { dim: 5 } } }
    layer { name: "f" type: "Filter" bottom: "x" bottom: "s" top: "kept" }
    layer { name: "ip" type: "InnerProduct" bottom: "kept" top: "y" inner_product_param { num_output: 2 } }
    """
    net = sp.Net(text)
    assert net.graph.blobs()["y"].shape == (5, 2)  # as in Caffe, before the first pass
    assert net(x=torch.ones(5, 3), s=torch.tensor([0, 1, 0, 0, 1]))["y"].shape == (2, 2)
    assert net(x=torch.ones(8, 3), s=torch.arange(8))["y"].shape == (7, 2)


def test_batch_reindex_selects_rows_by_number_and_adds_their_gradients():
    x = values((4, 3)).requires_grad_()
    (top,) = run(make('type: "BatchReindex"', 2), x, torch.tensor([3.9, 0.0, 3.0, 1.0, 3.0]))
    assert torch.equal(top, x[[3, 0, 3, 1, 3]])
    top.backward(torch.arange(15.0).reshape(5, 3).double())
    assert x.grad.tolist() == [[3, 4, 5], [9, 10, 11], [0, 0, 0], [18, 21, 24]]


@pytest.mark.parametrize("number", [4, -1])
def test_a_row_number_outside_the_batch_is_named(number):
    with pytest.raises(DataError) as caught:
        run(make('type: "BatchReindex" name: "pick"', 2), values((4, 3)), torch.tensor([0.0, number]))
    assert str(caught.value) == f"layer 'pick': row number {number} is outside the batch of 4, 0 to 3"


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("", lambda x: x[:, :, 0:3, 0:2]),
        ("offset: 2", lambda x: x[:, :, 2:5, 2:4]),
        ("offset: 4 offset: 1", lambda x: x[:, :, 4:7, 1:3]),
        ("axis: -1 offset: 5", lambda x: x[:, :, :, 5:7]),
        ("axis: 1 offset: 1 offset: 0 offset: 3", lambda x: x[:, 1:5, 0:3, 3:5]),
        ("axis: 0 offset: 1", lambda x: x[1:3, 1:5, 1:4, 1:3]),
    ],
)
def test_crop_cuts_at_the_offsets(setting, expected):
    x = values((4, 5, 8, 7), dtype=torch.float32).requires_grad_()
    reference = torch.zeros(2, 4, 3, 2, requires_grad=True)
    (top,) = run(make(f'type: "Crop" crop_param {{ {setting} }}', 2), x, reference)
    assert torch.equal(top, expected(x))
    top.sum().backward()
    assert x.grad.sum() == top.numel()
    assert reference.grad is None


def test_tile_repeats_the_content_of_an_axis():
    x = torch.arange(6.0).reshape(2, 3, 1)
    assert run(make('type: "Tile" tile_param { tiles: 2 }'), x)[0].flatten(1).tolist() == [
        [0, 1, 2, 0, 1, 2],
        [3, 4, 5, 3, 4, 5],
    ]


@pytest.mark.parametrize(
    ("setting", "of_row"),
    [
        ("operation: SUM coeff: 3", lambda row: 3 * sum(row)),
        ("operation: ASUM", lambda row: sum(abs(x) for x in row)),
        ("operation: SUMSQ coeff: -0.5", lambda row: -0.5 * sum(x * x for x in row)),
        ("operation: MEAN coeff: 2", lambda row: 2 * sum(row) / len(row)),
    ],
)
def test_reduction_reduces_everything_from_its_axis_on(setting, of_row):
    x = values((2, 3, 4, 5))
    rows = np.array([of_row(row) for row in x.numpy().reshape(6, 20)])
    (top,) = run(make(f'type: "Reduction" reduction_param {{ {setting} axis: -2 }}'), x)
    np.testing.assert_allclose(top.numpy(), rows.reshape(2, 3), rtol=1e-12)
    (top,) = run(make(f'type: "Reduction" reduction_param {{ {setting} }}'), x)
    assert top.shape == ()
    np.testing.assert_allclose(top.item(), of_row(x.numpy().ravel()), rtol=1e-12)


def test_the_sum_of_magnitudes_has_no_slope_at_zero():
    x = torch.tensor([-2.0, 0.0, 3.0], requires_grad=True)
    run(make('type: "Reduction" reduction_param { operation: ASUM }'), x)[0].backward()
    assert x.grad.tolist() == [-1, 0, 1]


def test_a_parameter_is_a_blob_that_learns():
    text = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "p" type: "Parameter" top: "w" param { name: "shared" } parameter_param { shape { dim: 2 dim: 3 } } }
    layer { name: "q" type: "Parameter" top: "v" param { name: "shared" } parameter_param { shape { dim: 2 dim: 3 } } }
    layer { name: "e" type: "EuclideanLoss" bottom: "x" bottom: "w" top: "loss" }
    layer { name: "f" type: "EuclideanLoss" bottom: "x" bottom: "v" top: "more" }
    """
    net = sp.Net(text, phase="TRAIN")
    assert not net.params["p"][0].any()  # it has no filler
    assert net.params["p"][0] is net.params["q"][0]
    x = values((2, 3), dtype=torch.float32)
    net.loss(net(x=x)).backward()
    torch.testing.assert_close(net.params["p"][0].grad, -2 * x / 2)


@pytest.mark.parametrize(
    ("text", "bottoms", "expected"),
    [
        ('type: "Tile" tile_param { tiles: 3 axis: -1 }', 1, "3 x axis -1"),
        ('type: "Crop"', 2, "axis 2 offset 0"),
        ('type: "Crop" crop_param { axis: 1 offset: 3 offset: 4 }', 2, "axis 1 offset 3, 4"),
        ('type: "Filter" bottom: "x" bottom: "wanted"', 2, "by 'wanted'"),
        ('type: "BatchReindex" bottom: "x" bottom: "order"', 2, "by 'order'"),
        ('type: "Reduction" reduction_param { operation: MEAN axis: 1 coeff: 0.5 }', 1, "0.5 x MEAN from axis 1"),
        ('type: "Reduction"', 1, "SUM from axis 0"),
        ('type: "ArgMax" argmax_param { top_k: 5 axis: 1 out_max_val: true }', 1, "top 5 axis 1 values"),
        ('type: "Parameter" parameter_param { shape { dim: 2 dim: 3 } }', 0, "(2, 3)"),
        ('type: "LSTM" recurrent_param { num_output: 7 expose_hidden: true }', 4, "7 exposed"),
        ('type: "RNN" recurrent_param { num_output: 7 }', 2, "7"),
        ('type: "HingeLoss" hinge_loss_param { norm: L2 }', 2, "L2"),
        ('type: "InfogainLoss" loss_param { ignore_label: 0 }', 3, "ignore 0"),
        ('type: "InfogainLoss" infogain_loss_param { source: "H.bin" axis: 2 }', 2, "axis 2 H 'H.bin'"),
    ],
)
def test_row_layer_settings_are_described_briefly(text, bottoms, expected):
    assert make(text, bottoms).describe() == expected
