"""Nets that are copied, pickled or saved, before and after a run, continue as the original does."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import siamese_proto as sp
from siamese_proto.data.databases.database import create_database
from siamese_proto.errors import DataError, SolverError
from siamese_proto.proto import schema


def saved(net: sp.Net) -> sp.Net:
    file = io.BytesIO()
    torch.save(net, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


WAYS: dict[str, Callable[[sp.Net], sp.Net]] = {
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "deepcopy": copy.deepcopy,
    "torch.save": saved,
}
INPUT = """
layer { name: "in" type: "Input" top: "x" top: "x_p"
  input_param { shape { dim: 2 dim: 3 dim: 12 dim: 10 } shape { dim: 2 dim: 3 dim: 12 dim: 10 } } }"""
TOWER = """
layer { name: "conv%(s)s" type: "Convolution" bottom: "x%(s)s" top: "c%(s)s" param { name: "w" } param { name: "b" }
  convolution_param { num_output: 4 kernel_size: 5 pad: 2 weight_filler { type: "xavier" } } }
layer { name: "act%(s)s" type: "PReLU" bottom: "c%(s)s" top: "c%(s)s" param { name: "slope" } }
layer { name: "pool%(s)s" type: "Pooling" bottom: "c%(s)s" top: "p%(s)s" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "bn%(s)s" type: "BatchNorm" bottom: "p%(s)s" top: "n%(s)s" }
layer { name: "scale%(s)s" type: "Scale" bottom: "n%(s)s" top: "n%(s)s" }
layer { name: "drop%(s)s" type: "Dropout" bottom: "n%(s)s" top: "n%(s)s" }
layer { name: "fc%(s)s" type: "InnerProduct" bottom: "n%(s)s" top: "f%(s)s" param { name: "fw" } param { name: "fb" }
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }"""
TWIN = INPUT + TOWER % {"s": ""} + TOWER % {"s": "_p"}


def batch(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(2, 3, 12, 10, generator=draw) for name in ("x", "x_p")}


def assert_same(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert list(mine) == list(theirs)
    for name, value in theirs.items():
        assert torch.equal(mine[name], value), name


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "plain"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("passes", [0, 2])
def test_a_copy_of_a_net_continues_as_the_net_does(way: str, passes: int, fuse: bool) -> None:
    net = sp.Net(TWIN, "TRAIN", seed=3, fuse=fuse)
    for seed in range(passes):
        net.eval()(**batch(seed))
        net.train()(**batch(seed))
    other = WAYS[way](net)
    assert other.training
    assert other.params["conv"][0] is other.params["conv_p"][0]
    assert other.params["conv"][0] is not net.params["conv"][0]
    for mode in (True, False):
        outputs = [each.train(mode)(**batch(7)) for each in (other, net)]
        assert_same(*outputs)
        for each, blobs in zip((other, net), outputs, strict=True):
            each.zero_grad()
            (blobs["f"].square().sum() + blobs["f_p"].sin().sum()).backward()
        for mine, theirs in zip(other.parameters(), net.parameters(), strict=True):
            assert torch.equal(mine.grad, theirs.grad)
    assert_same(other.state_dict(), net.state_dict())


def test_nets_that_share_parameters_share_them_in_a_copy_of_both() -> None:
    train = sp.Net(TWIN, "TRAIN", seed=3)
    test = sp.Net(TWIN, "TEST", share_with=train)
    for net in (train, test):
        net(**batch(1))
    mine, other = pickle.loads(pickle.dumps((train, test)))
    assert mine.params["fc"][0] is other.params["fc"][0]
    mine(**batch(2))
    assert torch.equal(other.params["bn"][0], mine.params["bn"][0])


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_continues_after_the_batches_that_the_net_has_read(way: str, tmp_path: Path) -> None:
    with create_database(str(tmp_path / "db"), "LMDB") as writer:
        data = [schema.Datum(channels=1, height=2, width=3, data=bytes([n] * 6), label=n) for n in range(7)]
        writer.put([(b"%d" % n, datum.SerializeToString()) for n, datum in enumerate(data)])
    text = f"""
    layer {{ name: "db" type: "Data" top: "x" top: "y" transform_param {{ mirror: true }}
      data_param {{ source: "{tmp_path / "db"}" backend: LMDB batch_size: 2 }} }}"""
    net = sp.Net(text, "TRAIN", seed=1)
    for expected in ([0, 1], [2, 3]):
        assert net()["y"].tolist() == expected
    other = WAYS[way](net)
    for expected in ([4, 5], [6, 0]):
        assert other()["y"].tolist() == expected
    assert WAYS[way](other)()["y"].tolist() == [1, 2]
    assert net()["y"].tolist() == [4, 5]
    fresh = WAYS[way](net)
    fresh.close()  # then it begins with the first record, as a net does that is closed
    assert fresh()["y"].tolist() == [0, 1]
    for each in (net, other, fresh):
        each.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_does_not_write_into_the_file_of_the_net(way: str, tmp_path: Path) -> None:
    path = tmp_path / "out.h5"
    text = (
        INPUT
        + f"""
    layer {{ name: "out" type: "HDF5Output" bottom: "x" bottom: "x_p" hdf5_output_param {{ file_name: "{path}" }} }}"""
    )
    net = sp.Net(text, "TRAIN")
    net(**batch(1))
    other = WAYS[way](net)
    with pytest.raises(DataError, match="is being written by another layer or net already"):
        other(**batch(2))
    net.close()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["data"], batch(1)["x"])


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_has_the_states_of_recurrent_layers(way: str) -> None:
    text = """
    layer { name: "in" type: "Input" top: "x" top: "cont"
      input_param { shape { dim: 2 dim: 3 dim: 4 } shape { dim: 2 dim: 3 } } }
    layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "y"
      recurrent_param { num_output: 5 weight_filler { type: "xavier" } } }"""
    net = sp.Net(text, "TRAIN", seed=1)
    x, cont = torch.randn(2, 3, 4), torch.ones(2, 3)
    first = net(x=x, cont=cont)["y"]
    other = WAYS[way](net)
    again = other(x=x, cont=cont)["y"]
    assert not torch.equal(again, first)
    assert torch.equal(again, net(x=x, cont=cont)["y"])


PYTHON = """
class Shift:
    def setup(self, bottom, top):
        self.passes = lambda: 0  # what no pickle can hold
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 5
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data + self.blobs[0].data[0] + 100 * self.phase
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff

class Count:
    def setup(self, bottom, top):
        self.count = 0
    def reshape(self, bottom, top):
        top[0].reshape(2, 3)
    def forward(self, bottom, top):
        top[0].data[...] = self.count
        self.count += 1
    def backward(self, top, propagate_down, bottom):
        pass
"""


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_creates_new_objects_of_python_layers(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("copied_layers.py").write_text(PYTHON)
    text = """
    layer { name: "count" type: "Python" top: "x" python_param { module: "copied_layers" layer: "Count" } }
    layer { name: "shift" type: "Python" bottom: "x" top: "y"
      python_param { module: "copied_layers" layer: "Shift" } }"""
    net = sp.Net(text, "TRAIN", allow_python_layers=True)
    assert [net()["y"][0, 0].item() for _ in range(3)] == [5, 6, 7]
    with torch.no_grad():
        net.params["shift"][0].fill_(10)
    other = WAYS[way](net)
    assert other()["y"].tolist() == [[13] * 3] * 2
    assert other.eval()()["y"].tolist() == [[114] * 3] * 2
    assert net()["y"].tolist() == [[13] * 3] * 2


def test_a_solver_explains_how_to_copy_it() -> None:
    solver = sp.Solver(
        """base_lr: 0.1 lr_policy: "fixed" max_iter: 1 net_param {
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 4 } } }"""
    )
    for way in WAYS.values():
        with pytest.raises(SolverError, match=r"give solver.snapshot\(\) to a new Solver, or copy solver.net"):
            way(solver)
    assert list(copy.deepcopy(solver.net).params) == ["ip"]


TEXT = 'layer { name: "in" type: "Input" top: "x" }'
MISTAKES = {
    "bytes": (TEXT.encode(), "got an object of type bytes; decode it first: data.decode()"),
    "BytesIO": (io.BytesIO(TEXT.encode()), "got an object of type BytesIO; pass the path of the file, or file.read()"),
    "StringIO": (io.StringIO(TEXT), "got an object of type StringIO; pass the path of the file, or file.read()"),
    "None": (None, "got an object of type NoneType"),
    "number": (3, "got an object of type int"),
    "dict": ({}, "got an object of type dict"),
}
MAKERS = {"Net": sp.Net, "build_graph": sp.build_graph, "parse_net": sp.parse_net, "Solver": sp.Solver}


@pytest.mark.parametrize("maker", [*MAKERS, "parse_solver"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_arguments_other_than_paths_or_text_are_refused_in_one_line(maker: str, mistake: str) -> None:
    value, text = MISTAKES[mistake]
    with pytest.raises(sp.NetError) as caught:
        {**MAKERS, "parse_solver": sp.parse_solver}[maker](value)
    assert str(caught.value) == f"expected the path or the text of a prototxt, {text}"


@pytest.mark.parametrize("maker", MAKERS)
def test_an_open_file_is_refused_in_one_line(maker: str, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(TEXT)
    with (
        (tmp_path / "net.prototxt").open() as file,
        pytest.raises(sp.NetError, match="got an object of type TextIOWrapper; pass"),
    ):
        MAKERS[maker](file)


@pytest.mark.parametrize(
    "weights",
    [b"net.caffemodel", io.BytesIO(b"some bytes"), [3], [None]],
    ids=lambda weights: type(weights).__name__ + (repr(weights) if isinstance(weights, list) else ""),
)
def test_weights_other_than_a_path_are_refused_in_one_line(weights: object) -> None:
    net = sp.Net(INPUT)
    for value in weights if isinstance(weights, list) else [weights]:
        with pytest.raises(sp.NetError, match="expected the path of a weights file, got "):
            net.load_weights(value)
    with pytest.raises(sp.NetError, match="expected the path of a weights file, got "):
        sp.Net(INPUT, weights=weights)
