"""Layers written for pycaffe: they run only if allowed, and compute the expected results."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

import siamese_proto as sp
from siamese_proto.check.net import check_net

MODULE = '''
import caffe
import json
import numpy as np


class L2Norm(caffe.Layer):
    """Scale rows to length 1."""

    def setup(self, bottom, top):
        if len(bottom) != 1:
            raise Exception("takes one bottom")
        self.eps = json.loads(self.param_str or "{}").get("eps", 0)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        self.norm = np.sqrt((bottom[0].data ** 2).sum(axis=1, keepdims=True) + self.eps)
        top[0].data[...] = bottom[0].data / self.norm

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            y, gradient = top[0].data, top[0].diff
            bottom[0].diff[...] = (gradient - y * (y * gradient).sum(1, keepdims=True)) / self.norm


class L1Loss(caffe.Layer):
    def setup(self, bottom, top):
        assert len(bottom) == 2, "takes two bottoms"

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise Exception("Inputs must have the same dimension.")
        self.diff = np.zeros_like(bottom[0].data)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.abs(self.diff).sum() / bottom[0].num

    def backward(self, top, propagate_down, bottom):
        for i, sign in enumerate((1, -1)):
            if not propagate_down[i]:
                continue
            bottom[i].diff[...] = top[0].diff * sign * np.sign(self.diff) / bottom[i].num


class TripletData(caffe.Layer):
    """Batches of anchors, positives and negatives that count up."""

    def setup(self, bottom, top):
        self.batch = eval(self.param_str)["batch"]
        self.next = 0

    def reshape(self, bottom, top):
        for blob in top:
            blob.reshape(self.batch, 2, 3)

    def forward(self, bottom, top):
        for place, blob in enumerate(top):
            blob.data[...] = 10 * self.next + place
        self.next += 1

    def backward(self, top, propagate_down, bottom):
        pass


class Metric(caffe.Layer):
    """Count the triplets in the right order; there is no gradient."""

    def setup(self, bottom, top):
        self.calls = 0

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        anchor, positive, negative = (blob.data.reshape(blob.num, -1) for blob in bottom)
        near, far = (((anchor - other) ** 2).sum(1) for other in (positive, negative))
        top[0].data[0] = (near < far).mean() + (100 if self.phase == caffe.TEST else 0)


class Affine(caffe.Layer):
    def setup(self, bottom, top):
        self.blobs.add_blob(bottom[0].channels)
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = np.arange(bottom[0].channels) + 1

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        self.x = bottom[0].data.copy()  # an in-place top overwrites it
        top[0].data[...] = self.x * self.blobs[0].data + self.blobs[1].data

    def backward(self, top, propagate_down, bottom):
        gradient = top[0].diff.copy()
        self.blobs[0].diff[...] += (gradient * self.x).sum(0)
        self.blobs[1].diff[...] += gradient.sum()
        if propagate_down[0]:
            bottom[0].diff[...] = gradient * self.blobs[0].data


class Faulty(caffe.Layer):
    def setup(self, bottom, top):
        if self.param_str == "setup":
            self.nothing()

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
        if self.param_str == "reshape":
            top[0].reshape(-1)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data
        if self.param_str == "forward":
            np.zeros(3) + np.zeros(4)

    def backward(self, top, propagate_down, bottom):
        {}["gradient"]


class Plain:
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top): top[0].data[...] = bottom[0].data * 2
'''
LINES = {text.strip(): number for number, text in enumerate(MODULE.splitlines(), start=1)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mylayers.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(kind, bottoms, tops, settings="", more="", name="it"):
    wires = " ".join([*(f'bottom: "{b}"' for b in bottoms), *(f'top: "{t}"' for t in tops)])
    param = f'python_param {{ module: "mylayers" layer: "{kind}" {settings} }}'
    return f'layer {{ name: "{name}" type: "Python" {wires} {param} {more} }}\n'


def inputs(names, shape):
    dims = " ".join(f"dim: {size}" for size in shape)
    tops = " ".join(f'top: "{name}"' for name in names)
    return f'layer {{ name: "in" type: "Input" {tops} input_param {{ shape {{ {dims} }} }} }}\n'


def allowed(text, phase="TEST", **more):
    return sp.Net(text, phase, allow_python_layers=True, **more)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_layer_computes_and_its_gradient_is_that_of_autograd(folder):
    net = allowed(inputs("x", (4, 3)) + python("L2Norm", "x", "y", "param_str: '{\"eps\": 0.25}'"))
    assert net.graph.blobs()["y"].shape == (4, 3)
    x = random(5, 3).requires_grad_()
    weights = random(5, 3, seed=1)
    y = net(x=x)["y"]
    (y * weights).sum().backward()
    other = x.detach().clone().requires_grad_()
    expected = other / (other.square().sum(1, keepdim=True) + 0.25).sqrt()
    (expected * weights).sum().backward()
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(x.grad, other.grad)
    assert torch.autograd.gradcheck(lambda x: net(x=x)["y"], (x,))


def test_a_loss_layer_trains_the_layers_before_it(folder):
    below = """layer { name: "ip" type: "InnerProduct" bottom: "a" top: "ip" inner_product_param {
        num_output: 3 weight_filler { type: "xavier" } } }\n"""
    loss = python("L1Loss", ["ip", "b"], ["loss"], more="loss_weight: 2")
    net = allowed(inputs("a", (4, 5)) + inputs("b", (4, 3)).replace('"in"', '"in2"') + below + loss, "TRAIN")
    a, b = random(4, 5).float(), random(4, 3, seed=1).float()
    outputs = net(a=a, b=b)
    net.loss(outputs).backward()
    weight, bias = (param.detach().clone().requires_grad_() for param in net.params["ip"])
    expected = (a @ weight.T + bias - b).abs().sum() / 4
    (2 * expected).backward()
    torch.testing.assert_close(outputs["loss"], expected.reshape(1))
    torch.testing.assert_close(net.params["ip"][0].grad, weight.grad)
    torch.testing.assert_close(net.params["ip"][1].grad, bias.grad)


TRIPLETS = python("TripletData", [], "apn", "param_str: \"{'batch': 4}\"", name="feed")


def test_a_data_layer_provides_batches_like_any_other(folder):
    net = allowed(TRIPLETS + python("Metric", "apn", ["order"]), "TRAIN")
    assert net.graph.blobs()["a"].shape == (4, 2, 3)
    for batch in range(3):
        blobs = net.blobs()
        assert [float(blobs[name].flatten()[0]) for name in "apn"] == [10 * batch, 10 * batch + 1, 10 * batch + 2]
        assert float(blobs["order"]) == 1
    inputs_by_name = {name: torch.full((2, 2, 3), value) for name, value in zip("apn", (0.0, 5.0, 1.0), strict=True)}
    assert float(net(**inputs_by_name)["order"]) == 0


def test_a_layer_knows_its_phase(folder):
    assert float(allowed(TRIPLETS + python("Metric", "apn", ["order"]), "TEST")()["order"]) == 101


def test_a_data_layer_resumes_after_the_batches_it_has_delivered(folder):
    net = allowed(TRIPLETS)
    net()
    net.close()
    feeder = net.graph.nodes[0].layer.open(net.run_state)
    feeder.skip(3)
    assert float(feeder.next_batch()[0].flatten()[0]) == 30
    again = net.graph.nodes[0].layer.open(net.run_state)
    assert float(again.next_batch()[0].flatten()[0]) == 0


def test_a_metric_without_backward_works_next_to_a_loss(folder):
    loss = 'layer { name: "far" type: "TripletLoss" bottom: "a" bottom: "p" bottom: "n" top: "far" }'
    net = allowed(inputs("apn", (4, 3)) + loss + python("Metric", "apn", ["order"]))
    bottoms = {name: random(4, 3, seed=seed).requires_grad_() for seed, name in enumerate("apn")}
    net.loss(net(**bottoms)).backward()
    assert bottoms["a"].grad is not None


@pytest.mark.parametrize("in_place", [False, True])
def test_blobs_of_a_layer_are_parameters_with_initial_values_from_setup(folder, in_place):
    top = "x" if in_place else "y"
    net = allowed(inputs("x", (4, 3)) + python("Affine", "x", top, more="param { lr_mult: 1 } loss_weight: 1"), "TRAIN")
    scale, shift = net.params["it"]
    assert scale.tolist() == [1, 2, 3]
    assert shift.tolist() == [0]
    x = random(4, 3).float().requires_grad_()
    net.loss(net(x=x)).backward()
    torch.testing.assert_close(scale.grad, x.detach().sum(0))
    assert float(shift.grad) == 12
    torch.testing.assert_close(x.grad, torch.tensor([1.0, 2, 3]).expand(4, 3))
    with torch.no_grad():
        scale.fill_(5)
    torch.testing.assert_close(net.blobs(x=torch.ones(2, 3))[top], torch.full((2, 3), 5.0))


def test_weights_of_a_python_layer_are_saved_and_loaded(folder):
    text = inputs("x", (4, 3)) + python("Affine", "x", "y")
    net = allowed(text)
    with torch.no_grad():
        net.params["it"][0].fill_(7)
    net.save_weights("it.caffemodel")
    assert allowed(text, weights="it.caffemodel").params["it"][0].tolist() == [7, 7, 7]


def test_two_passes_before_their_gradients_do_not_mix(folder):
    net = allowed(inputs("x", (4, 3)) + python("L2Norm", "x", "y"))
    first, second = random(4, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    weights = random(4, 3, seed=2)
    total = (net(x=first)["y"] * weights).sum() + (net(x=second)["y"] * weights).sum()
    total.backward()
    for x in (first, second):
        other = x.detach().clone().requires_grad_()
        (torch.nn.functional.normalize(other) * weights).sum().backward()
        torch.testing.assert_close(x.grad, other.grad)


def test_writes_into_bottoms_are_invisible_to_other_layers(folder):
    (folder / "mylayers.py").write_text(MODULE.replace("bottom[0].data * 2", "bottom[0].data.fill(9)"))
    net = allowed(inputs("x", (4, 3)) + python("Plain", "x", "y"))
    x = torch.ones(4, 3)
    net(x=x)
    assert torch.equal(x, torch.ones(4, 3))


def test_a_class_does_not_need_caffe(folder):
    net = allowed(inputs("x", (4, 3)) + python("Plain", "x", "y"))
    assert torch.equal(net(x=torch.ones(4, 3))["y"], torch.full((4, 3), 2.0))


@pytest.mark.slow
def test_torch_compile_runs_the_layer_uncompiled(folder):
    net = allowed(inputs("x", (4, 3)) + python("Plain", "x", "y"))
    assert torch.equal(torch.compile(net, backend="eager")(x=torch.ones(4, 3))["y"], torch.full((4, 3), 2.0))


# Permission

REFUSED = (
    "<text>:2: layer 'it': the Python layer 'mylayers.L2Norm' is user code, which does not run without permission; "
    "allow it with allow_python_layers=True, or --allow-python-layers, if you trust it"
)


def test_a_layer_that_is_not_allowed_is_shown_but_not_run(folder):
    (folder / "mylayers.py").write_text("open('it_ran', 'w').close()\n" + MODULE)
    text = inputs("x", (4, 3)) + python("L2Norm", "x", "y", more="param { lr_mult: 2 }")
    graph = sp.build_graph(sp.parse_net(text))
    assert graph.nodes[1].layer.describe() == "mylayers.L2Norm"
    assert graph.blobs()["y"].shape is None
    assert "its shapes are unknown" in graph.notes[0]
    assert check_net(text) == []
    assert "mylayers.L2Norm" in sp.draw(graph).source
    with pytest.raises(sp.NetError) as caught:
        sp.Net(text)
    assert str(caught.value) == REFUSED
    assert not (folder / "it_ran").exists()
    allowed(text.replace("param { lr_mult: 2 }", ""))
    assert (folder / "it_ran").exists()


def test_shapes_after_a_layer_that_is_not_allowed_can_be_set(folder):
    text = inputs("x", (4, 3)) + python("L2Norm", "x", "y") + 'layer { name: "r" type: "ReLU" bottom: "y" top: "z" }'
    graph = sp.build_graph(sp.parse_net(text), shapes={"y": (4, 3)})
    assert graph.blobs()["z"].shape == (4, 3)


# The module


def test_a_module_is_looked_up_in_the_working_directory_then_next_to_the_net(tmp_path, monkeypatch):
    here, nets = tmp_path / "here", tmp_path / "nets"
    for place, factor in ((here, 3), (nets, 5)):
        place.mkdir()
        (place / "mylayers.py").write_text(MODULE.replace("data * 2", f"data * {factor}"))
        (place / "net.prototxt").write_text(inputs("x", (4, 3)) + python("Plain", "x", "y"))
    monkeypatch.chdir(here)

    def factor(path):
        return float(allowed(path)(x=torch.ones(4, 3))["y"][0, 0])

    assert factor("net.prototxt") == 3
    assert factor(str(nets / "net.prototxt")) == 3
    (here / "mylayers.py").rename(here / "other.py")
    assert factor(str(nets / "net.prototxt")) == 5


def test_a_module_of_a_package_is_found(folder):
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text("")
    (folder / "pack" / "layers.py").write_text("from pack.helper import FACTOR\n" + MODULE.replace("* 2", "* FACTOR"))
    (folder / "pack" / "helper.py").write_text("FACTOR = 11")
    net = allowed(inputs("x", (4, 3)) + python("Plain", "x", "y").replace("mylayers", "pack.layers"))
    assert float(net(x=torch.ones(4, 3))["y"][0, 0]) == 11


def test_the_caffe_stand_in_exists_only_during_the_import_of_a_module(folder):
    before = list(sys.path)
    allowed(inputs("x", (4, 3)) + python("Plain", "x", "y"))
    assert "caffe" not in sys.modules
    assert sys.path == before


def test_a_folder_named_caffe_does_not_count_as_caffe(folder, monkeypatch):
    (folder / "caffe").mkdir()
    monkeypatch.syspath_prepend(folder)
    assert allowed(inputs("x", (4, 3)) + python("L2Norm", "x", "y")).graph.blobs()["y"].shape == (4, 3)


def test_a_real_caffe_is_not_replaced(folder, monkeypatch):
    class RealLayer:
        """As Boost creates it: from a message only, with read-only blobs."""

        def __init__(self, parameter):
            raise TypeError("no message")

        blobs = property(lambda self: None)

    RealLayer.__module__ = "caffe._caffe"
    real = types.ModuleType("caffe")
    real.Layer, real.TRAIN, real.TEST = RealLayer, 0, 1
    monkeypatch.setitem(sys.modules, "caffe", real)
    net = allowed(inputs("x", (4, 3)) + python("Affine", "x", "y"))
    assert net(x=torch.ones(2, 3))["y"].tolist() == [[1, 2, 3]] * 2
    assert sys.modules["caffe"] is real


# Errors

TWO = inputs("x", (4, 3)) + python("L2Norm", "x", "y")


def error_of(text):
    with pytest.raises(sp.NetError) as caught:
        train_once(text)
    return str(caught.value)


def train_once(text):
    net = allowed(text, "TRAIN")
    net.loss(net(x=torch.ones(4, 3, requires_grad=True))).backward()


@pytest.mark.parametrize(
    ("where", "fault", "line"),
    [
        ("setup", "AttributeError: 'Faulty' object has no attribute 'nothing'", "self.nothing()"),
        ("reshape", "ValueError: a blob cannot have the shape (-1,)", "top[0].reshape(-1)"),
        (
            "forward",
            "ValueError: operands could not be broadcast together with shapes (3,) (4,)",
            "np.zeros(3) + np.zeros(4)",
        ),
        ("backward", "KeyError: 'gradient'", '{}["gradient"]'),
    ],
)
def test_an_exception_of_the_users_code_is_one_error_with_its_line(folder, where, fault, line):
    text = inputs("x", (4, 3)) + python("Faulty", "x", "y", f'param_str: "{where}"', "loss_weight: 1")
    place = f"{folder / 'mylayers.py'}:{LINES[line]}"
    assert (
        error_of(text)
        == f"<text>:2: layer 'it': {where} of the Python layer 'mylayers.Faulty' failed: {fault} ({place})"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            TWO.replace("mylayers", "mylayrs"),
            "no Python module 'mylayrs' in the working directory, the folder of the net or PYTHONPATH",
        ),
        (TWO.replace("mylayers", "../mylayers.py"), "'../mylayers.py' is not a valid name of a Python module"),
        (TWO.replace("mylayers", ".mylayers"), "'.mylayers' is not a valid name of a Python module"),
        (TWO.replace("L2Norm", "L2Nrm"), "module 'mylayers' has no class 'L2Nrm'"),
        (TWO.replace('layer: "L2Norm"', ""), "layer is missing; give the name of a Python layer"),
        (TWO.replace('module: "mylayers"', ""), "module is missing; give the name of a Python module"),
        (
            inputs("x", (4, 3)) + python("L2Norm", ["x"], ["y"], more="param { } param { }"),
            "2 param entries are given, but Python has 0 parameter blobs",
        ),
    ],
)
def test_errors_in_a_python_layer_are_reported(folder, text, expected):
    assert error_of(text) == f"<text>:2: layer 'it': {expected}"


def test_a_module_that_fails_is_reported_with_its_line(folder):
    (folder / "broken.py").write_text("x = 1\nimport nothing_of_the_kind\n")
    assert error_of(TWO.replace("mylayers", "broken")) == (
        "<text>:2: layer 'it': the Python module 'broken' failed: ModuleNotFoundError: "
        f"No module named 'nothing_of_the_kind' ({folder / 'broken.py'}:2)"
    )


def test_a_python_loss_trains_under_a_solver(folder):
    (folder / "net.prototxt").write_text(
        python("TripletData", [], ["a", "b"], "param_str: \"{'batch': 4}\"", name="feed")
        + 'layer { name: "ip" type: "InnerProduct" bottom: "a" top: "ip" inner_product_param { num_output: 6 '
        'weight_filler { type: "xavier" } } }'
        + 'layer { name: "flat" type: "Flatten" bottom: "b" top: "flat" }\n'
        + python("L1Loss", ["ip", "flat"], ["loss"], more="loss_weight: 1")
    )
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.001 lr_policy: "fixed" max_iter: 3 random_seed: 1 snapshot_prefix: "s"'
    )
    with pytest.raises(sp.NetError, match="which does not run without permission"):
        sp.Solver("solver.prototxt")
    solver = sp.Solver("solver.prototxt", allow_python_layers=True)
    before = solver.net.params["ip"][0].detach().clone()
    solver.step(2)
    assert np.isfinite(solver.losses).all()
    assert not torch.equal(before, solver.net.params["ip"][0])
    assert os.path.exists("mylayers.py")
