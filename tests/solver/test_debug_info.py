"""The lines of debug_info, compared with gradients and means computed by hand."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest

from siamese_proto.solver import Solver
from siamese_proto.solver.log import number

# One number per blob, so that everything can be written out.
NET = """
name: "twin"
layer { name: "in" type: "Input" top: "x" top: "x_p" input_param { shape { dim: 1 dim: 1 } shape { dim: 1 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" param { name: "w" }
  inner_product_param { num_output: 1 bias_term: false weight_filler { value: 3 } } }
layer { name: "double" type: "Power" bottom: "ip" top: "ip" power_param { scale: 2 } }
layer { name: "ip_p" type: "InnerProduct" bottom: "x_p" top: "ip_p" param { name: "w" }
  inner_product_param { num_output: 1 bias_term: false weight_filler { value: 3 } } }
layer { name: "apart" type: "EuclideanLoss" bottom: "ip" bottom: "ip_p" top: "apart" }
layer { name: "small" type: "Reduction" bottom: "ip" top: "small" loss_weight: 0.5 }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0 lr_policy: "fixed" max_iter: 4 display: 3 debug_info: true snapshot_prefix: "snap"
"""
# x = 1, x_p = -4, w = 3: ip = 3, doubled 6, ip_p = -12, their difference 18.
EXPECTED = """
[Forward] Layer in, top blob x data: 1
[Forward] Layer in, top blob x_p data: 4
[Forward] Layer ip, top blob ip data: 3
[Forward] Layer ip, param blob w data: 3
[Forward] Layer double, top blob ip data: 6
[Forward] Layer ip_double_0_split, top blob ip_double_0_split_0 data: 6
[Forward] Layer ip_double_0_split, top blob ip_double_0_split_1 data: 6
[Forward] Layer ip_p, top blob ip_p data: 12
[Forward] Layer ip_p, param blob w data: 3
[Forward] Layer apart, top blob apart data: 162
[Forward] Layer small, top blob small data: 6
[Backward] Layer small, bottom blob ip_double_0_split_1 diff: 0.5
[Backward] Layer apart, bottom blob ip_double_0_split_0 diff: 18
[Backward] Layer apart, bottom blob ip_p diff: 18
[Backward] Layer ip_p, param blob 0 diff: 72
[Backward] Layer ip_double_0_split, bottom blob ip diff: 18.5
[Backward] Layer double, bottom blob ip diff: 37
[Backward] Layer ip, param blob 0 diff: 109
[Backward] All net params (data, diff): L1 norm = (3, 109); L2 norm = (3, 109)
"""


def debug_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    texts = [record.getMessage() for record in caplog.records if record.name == "siamese_proto.solver"]
    return [text.removeprefix("    ") for text in texts if text.startswith(("    [Forward]", "    [Backward]"))]


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
def test_every_value_and_gradient_is_logged_as_in_caffe(
    in_tmp: Path, caplog: pytest.LogCaptureFixture, fuse: bool
) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    batches = [{"x": np.array([[1.0]], np.float32), "x_p": np.array([[-4.0]], np.float32)}]
    solver = Solver("solver.prototxt", data={"in": batches}, fuse=fuse)
    solver.step(3)
    assert debug_lines(caplog) == EXPECTED.split("\n")[1:-1]  # at iteration 0, and not at 1 and 2
    solver.step(1)
    assert debug_lines(caplog) == 2 * EXPECTED.split("\n")[1:-1]
    assert [record.levelname for record in caplog.records if "All net params" in record.getMessage()] == 2 * ["ERROR"]


def test_logged_gradients_accumulate_over_the_passes_of_an_iteration(
    in_tmp: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER + "iter_size: 2")
    batches = [{"x": np.array([[1.0]], np.float32), "x_p": np.array([[-4.0]], np.float32)}]
    Solver("solver.prototxt", data={"in": batches}).step(1)
    shown = [line.rpartition(" ")[2] for line in debug_lines(caplog) if "param blob 0 diff" in line]
    assert shown == ["72", "109", str(109 + 72), "218"]


def test_test_nets_log_the_forward_pass_of_every_batch(write_run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    solver = Solver(write_run(debug_info="true", display=None))
    (means,) = solver.test_all()
    solver.close()
    lines = debug_lines(caplog)
    assert not [line for line in lines if "Backward" in line]
    losses = [float(match[1]) for line in lines if (match := re.search(r"Layer loss, top blob loss data: (\S+)", line))]
    assert len(losses) == 3
    assert means["loss"].item() == pytest.approx(sum(losses) / 3, rel=1e-5)
    weight = solver.net.params["hidden"][0].abs().mean().item()
    assert lines.count(f"[Forward] Layer hidden, param blob w data: {number(weight)}") == 3


def test_debug_info_does_not_change_a_run(write_run) -> None:
    runs = []
    for shown in ("true", "false"):
        # Not fused: logged passes run tower by tower, which may round differently.
        solver = Solver(write_run(debug_info=shown, random_seed=5, display=1), fuse=False)
        solver.step(4)
        solver.close()
        runs.append(solver.losses)
    assert runs[0] == runs[1]


OVERWRITTEN = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }
layer { name: "f" type: "InnerProduct" bottom: "x" top: "f" loss_weight: 2
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "f" top: "f" }
layer { name: "loss" type: "Reduction" bottom: "f" top: "loss" loss_weight: 1 }
"""


@pytest.mark.parametrize("shown", ["true", "false"])
def test_the_loss_of_a_blob_overwritten_in_place_counts(in_tmp: Path, shown: str) -> None:
    Path("net.prototxt").write_text(OVERWRITTEN)
    settings = f'net: "net.prototxt" base_lr: 0 lr_policy: "fixed" max_iter: 1 display: 1 debug_info: {shown}'
    x = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    solver = Solver(settings + " random_seed: 3", data={"in": [{"x": x}]})
    solver.step(1)
    weight, bias = (tensor.detach().numpy() for tensor in solver.net.params["f"])
    f = x @ weight.T + bias
    np.testing.assert_allclose(solver.losses, [2 * f.sum() + f.clip(0).sum()], rtol=1e-5)
    assert sorted(solver.outputs) == ["f@0", "loss"]


@pytest.mark.parametrize(("display", "shows"), [(1, True), (2, False)])
def test_the_last_pass_is_logged_if_the_last_iteration_was(
    in_tmp: Path, caplog: pytest.LogCaptureFixture, display: int, shows: bool
) -> None:
    """Caffe sets the flag in each iteration, and the pass for the final loss does not change it (solver.cpp: Step)."""
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    Path("net.prototxt").write_text(NET)
    text = SOLVER.replace("max_iter: 4 display: 3", f"max_iter: 2 display: {display} snapshot_after_train: false")
    batches = [{"x": np.array([[1.0]], np.float32), "x_p": np.array([[-4.0]], np.float32)}]
    Solver(text.replace("net.prototxt", str(in_tmp / "net.prototxt")), data={"in": batches}).solve()
    whole = EXPECTED.split("\n")[1:-1]
    forward = [line for line in whole if line.startswith("[Forward]")]
    assert debug_lines(caplog) == (2 * whole + forward if shows else whole)


@pytest.mark.parametrize(
    ("net", "added"),
    [
        ("force_backward: true" + NET, {"ip_p": "x_p diff: 54", "ip": "x diff: 111"}),  # 18 times 3, 37 times 3
        (NET.replace('param { name: "w" }', 'param { name: "w" } propagate_down: true', 1), {"ip": "x diff: 111"}),
    ],
    ids=["force_backward", "propagate_down"],
)
def test_the_gradient_of_data_is_logged_on_request(
    in_tmp: Path, caplog: pytest.LogCaptureFixture, net: str, added: dict[str, str]
) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    Path("net.prototxt").write_text(net)
    Path("solver.prototxt").write_text(SOLVER)
    x = np.array([[1.0]], np.float32)
    Solver("solver.prototxt", data={"in": [{"x": x, "x_p": -4 * x}]}).step(1)
    expected = []
    for line in EXPECTED.split("\n")[1:-1]:
        for layer, text in added.items():
            if line.startswith(f"[Backward] Layer {layer}, param blob 0"):
                expected.append(f"[Backward] Layer {layer}, bottom blob {text}")
        expected.append(line)
    assert debug_lines(caplog) == expected


def test_force_backward_logs_a_split_of_labels(in_tmp: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="siamese_proto.solver")
    text = """
    force_backward: true
    layer { name: "in" type: "Input" top: "x" top: "y" input_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 4 } }
    layer { name: "a" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "a" }
    layer { name: "b" type: "MultinomialLogisticLoss" bottom: "ip" bottom: "y" top: "b" }"""
    Path("net.prototxt").write_text(text)
    Path("solver.prototxt").write_text(SOLVER)
    Solver("solver.prototxt", data={"in": [{"x": np.ones((2, 3), np.float32), "y": np.zeros(2, np.float32)}]}).step(1)
    assert "[Backward] Layer y_in_1_split, bottom blob y diff: 0" in debug_lines(caplog)
