"""HDF5Output: what it writes, and when the file is there."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy
import pytest
import torch
from feeding import batches, make_layer

import siamese_proto as sp
from siamese_proto.errors import NetError
from siamese_proto.layers.base import RunState, find_layer


def net_text(file: object, *, a: str = "dim: 3 dim: 5 dim: 2", b: str = "dim: 3") -> str:
    return f"""layer {{ name: "in" type: "Input" top: "a" top: "b"
                        input_param {{ shape {{ {a} }} shape {{ {b} }} }} }}
               layer {{ name: "out" type: "HDF5Output" bottom: "a" bottom: "b"
                        hdf5_output_param {{ file_name: "{file}" }} }}"""


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@contextlib.contextmanager
def opened_net(file: Path) -> Iterator[sp.Net]:
    """A net whose files are finished at the end of a block."""
    net = sp.Net(net_text(file))
    try:
        yield net
    finally:
        net.close()


def rows(file: Path) -> dict[str, numpy.ndarray]:
    with h5py.File(file) as opened:
        return {name: dataset[()] for name, dataset in opened.items()}


def test_one_batch_makes_the_file_that_caffe_makes(tmp_path):
    net = sp.Net(net_text(tmp_path / "out.h5"))
    a, b = numbers(3, 5, 2), numbers(3)
    assert net(a=a, b=b) == {}
    net.close()
    found = rows(tmp_path / "out.h5")
    assert {name: (array.shape, array.dtype) for name, array in found.items()} == {
        "data": ((3, 5, 2, 1), numpy.float32),
        "label": ((3, 1, 1, 1), numpy.float32),
    }
    numpy.testing.assert_array_equal(found["data"][..., 0], a)
    numpy.testing.assert_array_equal(found["label"].ravel(), b)


def test_every_batch_adds_its_rows_and_hdf5_data_reads_them_back(tmp_path):
    first, second = (numbers(3, 5, 2), numbers(3)), (numbers(4, 5, 2), numbers(4))
    with opened_net(tmp_path / "out.h5") as net:
        net(a=first[0], b=first[1])
        net(a=second[0], b=second[1])
    (tmp_path / "list").write_text("out.h5\n")
    layer = make_layer(
        'name: "h" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "list" batch_size: 7 }',
        folder=str(tmp_path),
    )
    ((data, label),) = batches(layer, 1)
    numpy.testing.assert_array_equal(data[..., 0], torch.cat([first[0], second[0]]))
    numpy.testing.assert_array_equal(label.ravel(), torch.cat([first[1], second[1]]))


def test_double_precision_stays_double(tmp_path):
    with opened_net(tmp_path / "out.h5") as net:
        net.double()
        net(a=numbers(3, 5, 2).double() / 3, b=numbers(3).double())
    assert rows(tmp_path / "out.h5")["data"].dtype == numpy.float64


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path):
    file = tmp_path / "out.h5"
    file.write_text("old")
    net = sp.Net(net_text(file))
    assert file.read_text() == "old"  # not even a net that is made and never run costs it
    net(a=numbers(3, 5, 2), b=numbers(3))
    assert file.read_text() == "old"
    net.close()
    assert len(rows(file)["data"]) == 3
    assert list(tmp_path.iterdir()) == [file]


def test_after_closing_a_new_file_is_begun(tmp_path):
    with opened_net(tmp_path / "out.h5") as net:
        net(a=numbers(3, 5, 2), b=numbers(3))
        net.close()
        net(a=numbers(2, 5, 2), b=numbers(2))
    assert len(rows(tmp_path / "out.h5")["label"]) == 2


@pytest.mark.slow
def test_a_net_that_is_never_closed_leaves_a_whole_file_at_exit(tmp_path):
    code = f"import torch, siamese_proto as sp; net = sp.Net({net_text('out.h5')!r});"
    code += "net(a=torch.ones(3, 5, 2), b=torch.arange(3))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(tmp_path / "out.h5")["label"].ravel().tolist() == [0, 1, 2]
    assert [file.name for file in tmp_path.iterdir()] == ["out.h5"]


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_old_file_stays(tmp_path):
    pytest.importorskip("resource")
    (tmp_path / "out.h5").write_text("old")
    code = (
        "import resource, signal, torch, siamese_proto as sp\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"net = sp.Net({net_text('out.h5')!r})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        "try:\n"
        "    for _ in range(200): net(a=torch.rand(30, 50, 2), b=torch.arange(30))\n"
        "except sp.NetError as error: print(error)\n"
        "net.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert "layer 'out': out.h5: cannot be written: " in done.stdout, done.stderr
    assert done.stderr == ""
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("out.h5", "old")]


def test_two_layers_cannot_write_one_file(tmp_path):
    one, other = sp.Net(net_text(tmp_path / "out.h5")), sp.Net(net_text(tmp_path / "out.h5"))
    one(a=numbers(3, 5, 2), b=numbers(3))
    with pytest.raises(NetError, match=r"layer 'out': '.*out.h5' is being written by another layer or net already"):
        other(a=numbers(3, 5, 2), b=numbers(3))
    one.close()
    other(a=numbers(2, 5, 2), b=numbers(2))
    other.close()
    assert len(rows(tmp_path / "out.h5")["label"]) == 2


FAULTS = [
    ({"a": "dim: 3 dim: 5", "b": "dim: 4"}, "its bottoms have 3 and 4 rows; the file needs as many of both"),
    (
        {"a": "dim: 3 dim: 1 dim: 1 dim: 1 dim: 2", "b": "dim: 3"},
        "bottom 0 has shape (3, 1, 1, 1, 2), but the file's datasets have four axes at most",
    ),
]


@pytest.mark.parametrize(("shapes", "message"), FAULTS)
def test_bottoms_that_do_not_suit_are_refused(shapes, message, tmp_path):
    with pytest.raises(NetError) as caught:
        sp.Net(net_text(tmp_path / "out.h5", **shapes))
    assert str(caught.value).endswith(f"layer 'out': {message}")


def test_rows_of_another_shape_end_the_run_and_those_before_stay(tmp_path):
    with opened_net(tmp_path / "out.h5") as net:
        net(a=numbers(3, 5, 2), b=numbers(3))
        with pytest.raises(NetError, match=r"rows of its data have shape \(7, 2, 1\), but those before \(5, 2, 1\)"):
            net(a=numbers(3, 7, 2), b=numbers(3))
    assert len(rows(tmp_path / "out.h5")["label"]) == len(rows(tmp_path / "out.h5")["data"]) == 3


def test_a_file_that_cannot_be_written_is_told_before_anything_runs(tmp_path):
    with pytest.raises(NetError, match=r"layer 'out': cannot write '.*out.h5': there is no folder"):
        sp.Net(net_text(tmp_path / "missing/out.h5"))
    with pytest.raises(NetError, match="layer 'out': no file_name is given; write the file's path"):
        sp.build_graph(sp.parse_net(net_text("")))


def test_a_net_with_it_is_built_where_the_folder_is_missing():
    graph = sp.build_graph(sp.parse_net(net_text("nowhere/out.h5")))
    assert graph.outputs == ()
    assert find_layer("HDF5Output").type == "HDF5Output"


def test_a_resumed_run_says_that_the_file_is_begun_anew(tmp_path, caplog):
    (tmp_path / "out.h5").write_text("old")
    layer = make_output(tmp_path / "out.h5")
    run = RunState(iteration=20)
    with caplog.at_level(logging.WARNING):
        layer.forward([numbers(3, 5), numbers(3)], [], run)
    assert "out.h5 is begun anew: it will hold the rows since the run was resumed" in caplog.text
    run.files[layer.key].close()
    assert len(rows(tmp_path / "out.h5")["data"]) == 3


def make_output(file: Path) -> sp.Layer:
    graph = sp.build_graph(sp.parse_net(net_text(file)))
    layer = graph.nodes[1].layer
    assert isinstance(layer, sp.Layer)
    return layer
