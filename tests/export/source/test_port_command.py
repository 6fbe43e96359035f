"""The command that writes PyTorch source, and the file that it writes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import paths
import pytest
import torch
from click.testing import CliRunner, Result
from ported_nets import executed, some_values
from problem_lines import problem_lines

import siamese_proto as sp
from siamese_proto.cli import main
from siamese_proto.export.onnx import make_onnx
from siamese_proto.export.source import port

GOLDEN = paths.GOLDEN
FLAGSHIP = GOLDEN / "flagship"
TWIN = paths.PROTOTXT / "mnist_siamese" / "train_test.prototxt"
SHAPE = {"pair_data": (64, 2, 28, 28)}


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["port", *map(str, arguments)])


def test_the_flagship_is_written_in_readable_source() -> None:
    written = sp.emit(sp.build_graph(sp.parse_net(TWIN.read_text()), phase="TEST", shapes=SHAPE))
    assert written == (GOLDEN / "emit" / "mnist_siamese.py").read_text()


@pytest.mark.slow
def test_source_and_weights_need_only_torch(tmp_path: Path) -> None:
    result = command(
        FLAGSHIP / "net.prototxt",
        *("--shape", "pair_data=64,2,28,28", "--weights", FLAGSHIP / "snap_iter_100.caffemodel"),
        *("-o", tmp_path / "twin.py"),
    )
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["twin.py", "twin.safetensors"]
    only_torch = (
        "import runpy, sys\n"
        "for name in ('siamese_proto', 'safetensors', 'google', 'numpy'): sys.modules[name] = None\n"
        f"sys.argv = ['twin.py']; runpy.run_path({str(tmp_path / 'twin.py')!r}, run_name='__main__')"
    )
    quiet = ["-W", "ignore"]  # torch warns of a missing numpy
    ran = subprocess.run([sys.executable, *quiet, "-c", only_torch], capture_output=True, text=True, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "loss ()\n"), ran.stderr


def test_the_weights_written_equal_those_of_the_file(tmp_path: Path) -> None:
    weights = FLAGSHIP / "snap_iter_100.caffemodel"
    result = command(FLAGSHIP / "net.prototxt", "--weights", weights, "-o", tmp_path / "twin.py")
    assert result.exit_code == 0, result.output
    net = sp.Net(FLAGSHIP / "net.prototxt", weights=weights, fuse=False)
    ported = port(net.graph)
    module = executed(ported).eval()
    reader: dict[str, object] = {"__name__": "twin"}
    exec((tmp_path / "twin.py").read_text(), reader)
    module.load_state_dict(reader["read_weights"](tmp_path / "twin.safetensors"))
    values = some_values(net)
    np.testing.assert_allclose(module(**values).detach().numpy(), net(**values)["loss"].detach().numpy(), rtol=1e-6)


def test_weights_saved_by_torch_can_be_read(tmp_path: Path) -> None:
    namespace: dict[str, object] = {"__name__": "twin"}
    exec((GOLDEN / "emit" / "mnist_siamese.py").read_text(), namespace)
    state = namespace["MnistSiamese"]().state_dict()
    torch.save(state, tmp_path / "twin.pt")
    weights = namespace["read_weights"](tmp_path / "twin.pt")
    assert weights.keys() == state.keys()
    assert all(torch.equal(weights[key], state[key]) for key in state)


@pytest.mark.slow
def test_a_layer_without_a_plain_form_is_named_with_its_line(tmp_path: Path) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'
        'layer { name: "odd" type: "WithoutSource" bottom: "x" top: "y" }\n'
    )
    layers = tmp_path / "odd.py"
    layers.write_text(
        "import siamese_proto as sp\n"
        '@sp.layer("WithoutSource")\n'
        "class WithoutSource(sp.Layer):\n"
        "    def top_shapes(self, bottoms): return bottoms\n"
    )
    # In a separate process: a registered layer type stays registered.
    words = [sys.executable, "-m", "siamese_proto", "port", net, "--layers", layers, "-o", tmp_path / "net.py"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert problem_lines(result.stderr) == [
        f"{net}:2: layer 'odd': a layer of type WithoutSource (as set) has no plain PyTorch form; "
        "give its class a method `torch_source`, or port the net without it"
    ]
    assert not (tmp_path / "net.py").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }', "computes nothing"),
        ('layer { name: "x" type: "Odd" top: "x" }', "unknown layer type 'Odd'"),
        (
            'layer { name: "x" type: "Input" top: "x" } layer { name: "y" type: "ReLU" bottom: "x" top: "y" }',
            "the shape is missing",
        ),
    ],
)
def test_nets_that_cannot_run_are_refused(tmp_path: Path, text: str, message: str) -> None:
    net = tmp_path / "net.prototxt"
    net.write_text(text)
    result = command(net, "-o", tmp_path / "net.py")
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "net.py").exists()


def test_the_output_file_must_be_python_source(tmp_path: Path) -> None:
    result = command(TWIN, "-o", tmp_path / "net.txt")
    assert result.exit_code == 1
    assert "must end with .py" in result.output


LAYERS_AT_FAULT = {
    'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 0 } }': (
        "net.prototxt:2: layer 'c': num_output 0 must be at least 1"
    ),
    'layer { name: "i" type: "ImageData" top: "c" top: "l" image_data_param { source: "list.txt" batch_size: 2 } }': (
        "net.prototxt:2: layer 'i': list.txt:1: 'no label' is not 'path label' with a whole number as label"
    ),
    'layer { name: "d" type: "Data" top: "c" data_param { source: "database" batch_size: 2 backend: LMDB } }': (
        "net.prototxt:2: layer 'd': LMDB database 'database' is damaged"
    ),
    'layer { name: "u" type: "Relu6" bottom: "x" top: "c" }': "net.prototxt:2: layer 'u': unknown layer type 'Relu6'",
    'layer { name: "m" type: "ReLU" bottom: "y" top: "c" }': "net.prototxt:2: layer 'm': unknown bottom blob 'y'",
}


@pytest.mark.parametrize("out", ["net.py", "net.onnx"])
@pytest.mark.parametrize(("fault", "message"), LAYERS_AT_FAULT.items())
def test_an_error_in_a_layer_is_one_line(
    fault: str, message: str, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 5 dim: 7 } } }\n'
    text += fault + '\nlayer { name: "ip" type: "InnerProduct" bottom: "c" top: "ip" '
    text += "inner_product_param { num_output: 4 } }\n"
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(text)
    Path("list.txt").write_text("no label\n")
    Path("database").mkdir()
    Path("database/data.mdb").write_bytes(b"no database" * 1000)
    done = command("net.prototxt", "-o", out)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(message)
    # The line of the file may be shown below, indented.
    assert [line for line in done.stderr.splitlines() if not line.startswith(" ")] == done.stderr.splitlines()[:1]
    assert not Path(out).exists()
    graph = sp.build_graph(sp.parse_net("net.prototxt"), phase="TEST", on_problem=lambda problem: None)
    for write in (port, lambda graph: make_onnx(graph, {}), sp.Net):
        with pytest.raises(sp.NetError, match=re.escape(message)):
            write(graph)
