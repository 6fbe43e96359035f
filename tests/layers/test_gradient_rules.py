"""Gradient flow in a net: propagate_down, force_backward, lr_mult 0 and phases, compared with manual results."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import siamese_proto as sp

HEAD = 'layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } } }\n'
LOSS = 'layer { name: "loss" type: "EuclideanLoss" bottom: "b" bottom: "t" top: "loss" }\n'


def product(name: str, bottom: str, extra: str = "", shared: str = "") -> str:
    names = "".join(f' param {{ name: "{shared}" {extra} }}' for _ in range(bool(shared))) or extra
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {names} inner_product_param '
        '{ num_output: 3 bias_term: false weight_filler { type: "uniform" min: -1 } } }\n'
    )


def batch() -> dict[str, torch.Tensor]:
    x, t = (torch.arange(6.0).reshape(2, 3).sub(shift).div(2).requires_grad_() for shift in (2, 4))
    return {"x": x, "t": t}


def trained(text: str) -> tuple[sp.Net, dict[str, torch.Tensor]]:
    """Return a net after a backward pass, and its inputs."""
    net, inputs = sp.Net(text, phase="TRAIN", seed=5), batch()
    total = net.loss(net(**inputs))
    if total.requires_grad:
        total.backward()
    return net, inputs


def arrays(net: sp.Net, inputs: dict[str, torch.Tensor]) -> tuple[np.ndarray, ...]:
    """Return x, t and the weights of a and b."""
    weights = (net.params[name][0] for name in ("a", "b"))
    return tuple(tensor.detach().numpy() for tensor in (*inputs.values(), *weights))


def close(actual: torch.Tensor | None, expected: np.ndarray) -> None:
    assert actual is not None
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-5, atol=1e-6)


TWO = product("a", "x") + product("b", "a")


@pytest.mark.parametrize("force", [False, True])
def test_propagate_down_false_stops_the_gradient_unless_forced(force: bool) -> None:
    text = f"force_backward: {str(force).lower()}\n" + HEAD
    text += product("a", "x") + product("b", "a", "propagate_down: false") + LOSS
    net, inputs = trained(text)
    x, t, a, b = arrays(net, inputs)
    to_b = (x @ a.T @ b.T - t) / 2  # gradient of the loss's first bottom
    close(net.params["b"][0].grad, to_b.T @ (x @ a.T))
    if force:
        close(net.params["a"][0].grad, (to_b @ b).T @ x)
        close(inputs["x"].grad, to_b @ b @ a)
    else:
        assert net.params["a"][0].grad is None
        assert inputs["x"].grad is None


def test_propagate_down_blocks_one_of_two_paths() -> None:
    text = HEAD + product("a", "x") + product("u", "a") + product("v", "a", "propagate_down: false")
    text += 'layer { name: "b" type: "Eltwise" bottom: "u" bottom: "v" top: "b" }\n' + LOSS
    net, inputs = trained(text)
    a, u, v = (net.params[name][0].detach().numpy() for name in ("a", "u", "v"))
    x, t = (tensor.detach().numpy() for tensor in inputs.values())
    to_sum = (x @ a.T @ (u + v).T - t) / 2
    close(net.params["v"][0].grad, to_sum.T @ (x @ a.T))
    close(net.params["a"][0].grad, (to_sum @ u).T @ x)


def test_propagate_down_of_one_bottom_of_a_loss() -> None:
    text = HEAD + product("a", "x") + product("b", "t")
    text += 'layer { name: "l" type: "EuclideanLoss" bottom: "a" bottom: "b" propagate_down: true '
    net, inputs = trained(text + "propagate_down: false }\n")
    x, t, a, b = arrays(net, inputs)
    close(net.params["a"][0].grad, ((x @ a.T - t @ b.T) / 2).T @ x)
    assert net.params["b"][0].grad is None


def test_force_backward_reaches_every_input_except_labels() -> None:
    text = "force_backward: true\n" + HEAD + product("a", "x", "param { lr_mult: 0 }") + product("b", "a") + LOSS
    net, inputs = trained(text)
    x, t, a, b = arrays(net, inputs)
    to_b = (x @ a.T @ b.T - t) / 2
    close(inputs["x"].grad, to_b @ b @ a)
    close(inputs["t"].grad, -to_b)
    close(net.params["a"][0].grad, (to_b @ b).T @ x)  # forced, even with lr_mult 0

    labels = (
        'layer { name: "in" type: "Input" top: "x" top: "t" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }'
    )
    judged = labels + 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "l" }'
    forced = sp.Net("force_backward: true\n" + judged, phase="TRAIN")
    inputs = {"x": batch()["x"], "t": torch.ones(2, requires_grad=True)}
    forced.loss(forced(**inputs)).backward()
    assert inputs["x"].grad is not None
    assert inputs["t"].grad is None


def test_lr_mult_0_gets_no_gradient_but_passes_it_on() -> None:
    net, inputs = trained(HEAD + product("a", "x") + product("b", "a", "param { lr_mult: 0 }") + LOSS)
    x, t, a, b = arrays(net, inputs)
    assert net.params["b"][0].grad is None
    close(net.params["a"][0].grad, ((x @ a.T @ b.T - t) / 2 @ b).T @ x)


@pytest.mark.parametrize(
    ("owner", "user", "contributions"),
    [
        ("", "", "both"),
        ("lr_mult: 2", "lr_mult: 2", "both"),
        ("lr_mult: 0", "", "user"),  # the default is 1
        ("", "lr_mult: 0", "owner"),
        ("lr_mult: 0", "lr_mult: 0", "none"),
    ],
)
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("fuse", [False, True])
def test_each_use_of_a_shared_weight_adds_its_gradient_by_its_own_lr_mult(
    owner: str, user: str, contributions: str, force: bool, fuse: bool
) -> None:
    text = (
        f"force_backward: {str(force).lower()}\n" + HEAD + product("a", "x", owner, "w") + product("b", "t", user, "w")
    )
    text += 'layer { name: "l" type: "EuclideanLoss" bottom: "a" bottom: "b" top: "l" }\n'
    net, inputs = sp.Net(text, phase="TRAIN", seed=5, fuse=fuse), batch()
    total = net.loss(net(**inputs))
    if total.requires_grad:
        total.backward()
    x, t, weight, _ = arrays(net, inputs)
    difference = (x - t) @ weight.T / 2
    parts = {"owner": difference.T @ x, "user": -difference.T @ t, "none": np.zeros((3, 3))}
    parts["both"] = parts["owner"] + parts["user"]
    expected = parts["both" if force else contributions]
    if not force and contributions == "none":
        assert net.params["a"][0].grad is None
    else:
        close(net.params["a"][0].grad, expected)
    assert net.params["a"][0] is net.params["b"][0]


def test_a_layers_own_phase_overrides_that_of_the_net() -> None:
    text = HEAD + 'layer { name: "d" type: "Dropout" bottom: "x" top: "d" PHASE }\n'
    x = torch.ones(2, 3)

    def is_identity(phase: str, own: str) -> bool:
        net = sp.Net(text.replace("PHASE", own), phase=phase, seed=3)
        return torch.equal(net(x=x)["d"], x)

    assert [is_identity(phase, "") for phase in ("TRAIN", "TEST")] == [False, True]
    assert [is_identity(phase, "phase: TEST") for phase in ("TRAIN", "TEST")] == [True, True]
    assert [is_identity(phase, "phase: TRAIN") for phase in ("TRAIN", "TEST")] == [False, False]
