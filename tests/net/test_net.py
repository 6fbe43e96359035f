"""The running net: its inputs, its outputs, and one tensor per shared name."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

import siamese_proto as sp

TWIN = """
name: "twin"
layer { name: "in" type: "Input" top: "x" top: "x_p" top: "same"
  input_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 3 } shape { dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "f" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "ip_p" type: "InnerProduct" bottom: "x_p" top: "f_p" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "ContrastiveLoss" bottom: "f" bottom: "f_p" bottom: "same" top: "loss" }
"""


def pair(rows: int = 7) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(rows)
    return {
        "x": torch.randn(rows, 3, generator=draw),
        "x_p": torch.randn(rows, 3, generator=draw),
        "same": torch.arange(rows) % 2,
    }


def test_a_shared_name_is_one_parameter_everywhere() -> None:
    net = sp.Net(TWIN, phase="TRAIN")
    assert net.params["ip"][0] is net.params["ip_p"][0]
    assert net.params["ip"][1] is net.params["ip_p"][1]
    assert len(list(net.parameters())) == 2
    assert list(net.state_dict()) == ["weights.ip_0", "weights.ip_1"]
    assert list(net.params) == ["ip", "ip_p"]


def test_the_gradient_of_a_shared_parameter_is_the_sum_over_its_users() -> None:
    net = sp.Net(TWIN, phase="TRAIN")
    batch = pair()
    net.loss(net(**batch)).backward()
    weight, bias = (tensor.detach().clone().requires_grad_() for tensor in net.params["ip"])
    towers = [(weight.clone(), bias.clone()) for _ in range(2)]
    for tower in towers:
        for tensor in tower:
            tensor.retain_grad()
    first, second = (
        torch.nn.functional.linear(batch[name], *tower) for name, tower in zip(("x", "x_p"), towers, strict=True)
    )
    distance = (first - second).square().sum(1).sqrt()  # (N,)
    same = batch["same"].float()
    loss = (same * distance**2 + (1 - same) * (1 - distance).clamp(min=0) ** 2).sum() / (2 * len(same))
    loss.backward()
    shared = net.params["ip"][0].grad
    assert shared is not None
    assert towers[0][0].grad is not None
    assert towers[1][0].grad is not None
    torch.testing.assert_close(shared, towers[0][0].grad + towers[1][0].grad, rtol=1e-3, atol=1e-5)


def test_a_net_runs_any_batch_size_on_tensors_or_arrays() -> None:
    net = sp.Net(TWIN)
    for rows in (1, 4, 9):
        batch = pair(rows)
        arrays = {name: tensor.numpy() for name, tensor in batch.items()}
        torch.testing.assert_close(net(**batch)["loss"], net(**arrays)["loss"])
        assert net.blobs(**batch)["f"].shape == (rows, 5)


def test_layers_whose_label_is_missing_are_skipped_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    net = sp.Net(TWIN)
    batch = pair()
    del batch["same"]
    with caplog.at_level(logging.WARNING):
        blobs = net.blobs(**batch)
    assert set(blobs) == {"x", "x_p", "f", "f_p"}
    assert caplog.messages == ["skipped layers that lack an input: 'loss'"]


def test_a_blob_in_the_middle_can_be_passed() -> None:
    net = sp.Net(TWIN)
    features = {"f": torch.zeros(4, 5), "f_p": torch.ones(4, 5), "same": torch.tensor([1, 0, 1, 0])}
    assert net(**features)["loss"].item() == pytest.approx((5 + 5) / 8)


def test_a_blob_changed_in_place_is_returned_in_its_last_version() -> None:
    text = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "double" type: "Power" bottom: "x" top: "x" power_param { scale: 2 } }
    layer { name: "add" type: "Power" bottom: "x" top: "x" power_param { shift: 1 } }
    """
    x = torch.ones(2, 3)
    outputs = sp.Net(text)(x=x)
    assert torch.equal(outputs["x"], torch.full((2, 3), 3.0))
    assert torch.equal(x, torch.ones(2, 3))


def test_the_loss_is_the_weighted_sum_of_every_weighted_blob() -> None:
    text = """
    layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "half" type: "Power" bottom: "x" top: "y" power_param { scale: 0.5 } loss_weight: 3 }
    layer { name: "e" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "e" loss_weight: 0.25 }
    """
    net = sp.Net(text, phase="TRAIN")
    x, t = torch.rand(2, 3), torch.rand(2, 3)
    outputs = net(x=x, t=t)
    assert set(outputs) == {"y", "e"}
    expected = 3 * 0.5 * x.sum() + 0.25 * (0.5 * x - t).square().sum() / 4
    torch.testing.assert_close(net.loss(outputs), expected)


def test_a_loss_without_a_top_counts_under_its_layers_name() -> None:
    text = """
    layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "distance" type: "EuclideanLoss" bottom: "x" bottom: "t" }
    """
    net = sp.Net(text, phase="TRAIN")
    x, t = torch.rand(2, 3), torch.rand(2, 3)
    torch.testing.assert_close(net.loss(net(x=x, t=t)), (x - t).square().sum() / 4)


def test_a_permissive_sharer_sees_values_and_gradient_in_its_own_shape() -> None:
    text = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "encode" type: "InnerProduct" bottom: "x" top: "h" param { name: "w" }
      inner_product_param { num_output: 5 bias_term: false weight_filler { type: "xavier" } } }
    layer { name: "decode" type: "InnerProduct" bottom: "h" top: "y" param { name: "w" share_mode: PERMISSIVE }
      inner_product_param { num_output: 3 bias_term: false } }
    """
    net = sp.Net(text)
    net(x=torch.rand(2, 3))["y"].sum().backward()
    owner, view = net.params["encode"][0], net.params["decode"][0]
    assert owner.shape == (5, 3)
    assert view.shape == (3, 5)
    assert owner.data_ptr() == view.data_ptr()
    assert owner.grad is not None
    assert view.grad is not None
    assert torch.equal(view.grad.flatten(), owner.grad.flatten())


def test_lr_mult_zero_stops_the_gradient_unless_force_backward_is_set() -> None:
    text = TWIN.replace('param { name: "w" }', 'param { name: "w" lr_mult: 0 }')
    net = sp.Net(text, phase="TRAIN")
    net.loss(net(**pair())).backward()
    assert net.params["ip"][0].grad is None
    forced = sp.Net("force_backward: true\n" + text, phase="TRAIN")
    batch = pair()
    batch["x"].requires_grad_()
    forced.loss(forced(**batch)).backward()
    assert forced.params["ip"][0].grad is not None
    assert batch["x"].grad is not None


def test_a_seed_determines_the_first_values() -> None:
    first, again, other = (sp.Net(TWIN, seed=seed).params["ip"][0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_test_net_takes_the_training_nets_tensors_by_layer_name() -> None:
    train = sp.Net(TWIN, phase="TRAIN")
    extra = 'layer { name: "own" type: "InnerProduct" bottom: "f" top: "g" inner_product_param { num_output: 2 } }'
    test = sp.Net(TWIN + extra, share_with=train)
    assert test.params["ip_p"][0] is train.params["ip"][0]
    assert "own" not in train.params


def test_a_net_moves_to_float64_as_a_whole() -> None:
    net = sp.Net(TWIN).double()
    batch = {name: tensor.double() for name, tensor in pair().items()}
    assert net(**batch)["loss"].dtype == torch.float64
    assert net.params["ip"][0] is net.params["ip_p"][0]


def test_names_that_torch_or_python_forbid_are_accepted() -> None:
    names = ["conv1.a/b", "forward", "class", "1", "É\n'\"", "ip", "ip", "training"]
    layers = "".join(
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "x" top: "y{index}" '
        "inner_product_param { num_output: 2 } }\n"
        for index, name in enumerate(names)
    ).replace("\n'\"", "\\n'\\\"")
    net = sp.Net('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }' + layers)
    assert len(net(x=torch.rand(2, 3))) == len(names)
    assert len(list(net.parameters())) == 2 * len(names)
    assert "É\n'\"" in net.params


@pytest.mark.parametrize(
    ("blobs", "message"),
    [
        (
            {"x": np.zeros((4, 2)), "x_p": np.zeros((4, 3)), "same": np.zeros(4)},
            "<text>:5: layer 'ip': its weight has shape (5, 3), but bottoms of shape [(4, 2)] need (5, 2); the net was "
            "built for bottoms of shape (2, 3)",
        ),
        ({"xp": np.zeros((4, 3))}, "the net has no blob 'xp'; did you mean 'x_p'?"),
        ({"same": np.zeros(4)}, "nothing can be computed from 'same'; the net's inputs are 'x', 'x_p', 'same'"),
        (
            {},
            "<text>:3: layer 'in': its blobs have no data; pass them when the net is called ('x', 'x_p', 'same'), or "
            "use a data layer",
        ),
        ({"x": None}, "blob 'x' is given as NoneType; give a tensor or an array of numbers"),
        ({"x": "abc"}, "blob 'x' is given as str; give a tensor or an array of numbers"),
    ],
)
def test_unsuitable_inputs_are_explained(blobs: dict[str, Any], message: str) -> None:
    with pytest.raises(sp.NetError) as caught:
        sp.Net(TWIN)(**blobs)
    assert str(caught.value) == message


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 3, 3), "<text>:2: layer 'c': kernel size 5 is larger than the padded bottom, 3 + 2 x 0 = 3"),
        ((12,), "<text>:2: layer 'c': axis 1 does not exist in a bottom of shape (12,)"),
        ((2, 3, 5, 5), "<text>:3: layer 'p': kernel size 4 is larger than the padded bottom, 1 + 2 x 0 = 1"),
    ],
)
def test_unsuitable_images_are_explained(shape: tuple[int, ...], message: str, fuse: bool) -> None:
    text = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 12 dim: 12 } } }
      layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 5 } }
      layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 4 stride: 2 } }"""
    with pytest.raises(sp.NetError) as caught:
        sp.Net(text, fuse=fuse)(x=torch.zeros(shape))
    assert str(caught.value) == message


def test_a_net_with_an_unknown_layer_is_built_but_not_run() -> None:
    text = TWIN + 'layer { name: "odd" type: "Contrastive" bottom: "f" top: "odd" }'
    assert sp.build_graph(sp.parse_net(text)).nodes[-1].layer is None
    with pytest.raises(sp.NetError, match=r"^<text>:10: layer 'odd': unknown layer type 'Contrastive'; did you mean"):
        sp.Net(text)


HOSTILE = ["data/left", "a-b", "a b", 'a"b', "a,b", "0", "x=__import__('os').abort(), *q", "y@1", "é\n"]


@pytest.mark.parametrize("name", HOSTILE)
def test_blobs_of_any_name_run_and_no_name_is_code(name: str) -> None:
    written = name.replace('"', '\\"').replace("\n", "\\n")
    text = f"""
    layer {{ name: "in" type: "Input" top: "{written}" top: "y" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
    layer {{ name: "blob" type: "InnerProduct" bottom: "{written}" top: "z" inner_product_param {{ num_output: 5 }} }}
    layer {{ name: "change" type: "Power" bottom: "y" top: "y" power_param {{ shift: 1 }} }}
    """
    outputs = sp.Net(text)(**{name: torch.ones(4, 3), "y": torch.zeros(4, 3)})
    assert outputs["z"].shape == (4, 5)
    assert torch.equal(outputs["y"], torch.ones(4, 3))


def test_features_are_computed_without_the_label(caplog: pytest.LogCaptureFixture) -> None:
    batch = pair()
    outputs = sp.Net(TWIN, phase="TRAIN")(x=batch["x"], x_p=batch["x_p"])
    assert list(outputs) == ["f", "f_p"]
    assert caplog.messages == ["skipped layers that lack an input: 'loss'"]
    assert list(sp.Net(TWIN, phase="TRAIN")(x=batch["x"])) == ["f"]


def test_dropout_draws_again_in_every_pass_and_for_every_layer() -> None:
    text = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 30 } } }
    layer { name: "drop" type: "Dropout" bottom: "x" top: "a" }
    layer { name: "drop" type: "Dropout" bottom: "x" top: "b" }
    """
    net = sp.Net(text, phase="TRAIN", seed=1)
    first, second = net(x=torch.ones(4, 30)), net(x=torch.ones(4, 30))
    assert not torch.equal(first["a"], second["a"])
    assert not torch.equal(first["a"], first["b"])
    again = sp.Net(text, phase="TRAIN", seed=1)(x=torch.ones(4, 30))
    assert torch.equal(first["a"], again["a"])


def test_data_layers_of_one_name_each_read_their_own_source() -> None:
    text = "".join(
        f'layer {{ name: "d" type: "DummyData" top: "{top}" dummy_data_param {{ shape {{ dim: 2 dim: {size} }} '
        f"data_filler {{ value: {size} }} }} }}\n"
        for top, size in (("x", 3), ("y", 5))
    )
    outputs = sp.Net(text)()
    assert torch.equal(outputs["x"], torch.full((2, 3), 3.0))
    assert torch.equal(outputs["y"], torch.full((2, 5), 5.0))


def test_without_a_seed_the_seed_of_torch_determines_the_first_values() -> None:
    torch.manual_seed(5)
    first, other = (sp.Net(TWIN).params["ip"][0] for _ in range(2))
    torch.manual_seed(5)
    again = sp.Net(TWIN).params["ip"][0]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            "num_output: 4294967295",
            "a top of shape (2, 4294967295) would have 8589934590 values, more than the 2147483647 of Caffe",
        ),
        ("num_output: 2 weight_filler { type: 'uniform' min: 2 }", "min 2 of the filler 'uniform' is above its max 1"),
        ("num_output: 2 weight_filler { type: 'gaussian' std: -1 }", "std -1 of the filler 'gaussian' is below 0"),
    ],
)
def test_invalid_numbers_are_refused(settings: str, message: str) -> None:
    text = f"""
    layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
    layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {{ {settings} }} }}
    """
    with pytest.raises(sp.NetError) as caught:
        sp.Net(text)
    assert str(caught.value).startswith("<text>:3: layer 'ip': " + message)


def test_a_net_without_parameters_computes_on_the_device_of_its_blobs() -> None:
    text = """
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "r" type: "ReLU" bottom: "x" top: "y" }
    """
    assert sp.Net(text)(x=torch.empty(4, 3, device="meta"))["y"].device.type == "meta"
