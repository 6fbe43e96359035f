"""Commands that end early: by a signal, or because the reader closes the pipe."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from siamese_proto.data.databases.database import create_database
from siamese_proto.data.databases.datum import make_datum
from siamese_proto.proto import schema

NET = """
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 5 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4 } }
layer { name: "relu" type: "Relu" bottom: "ip" top: "ip" }
"""
COMMANDS = [["summary"], ["summary", "--format", "json"], ["check"], ["check", "--format", "json"]]


@pytest.fixture
def net(tmp_path: Path) -> str:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return str(path)


def shell(line: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a shell line in which "$@" is a siamese-proto command."""
    command = [sys.executable, "-m", "siamese_proto", *words]
    return subprocess.run(["sh", "-c", line, "sh", *command], capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("line", ['"$@" | true', '"$@" >&-'], ids=["a closed pipe", "a closed output"])
def test_a_closed_output_ends_a_command_without_a_message(net: str, words: list[str], line: str) -> None:
    done = shell(line, *words, net)
    lines = [text for text in done.stderr.splitlines() if not text.startswith("warning: ")]
    assert (done.stdout, lines) == ("", [])


WRITE_MUCH = [["check"], ["summary"], ["summary", "--format", "json"]]
HELP = [["--help"], ["-h"], ["--version"], ["train", "--help"], ["data", "--help"], ["data", "show", "--help"], ["new"]]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("words", [*WRITE_MUCH, *HELP, ["inspect"], ["data", "show"]], ids=" ".join)
def test_a_full_disk_under_the_output_is_one_line(words: list[str], net: str, tmp_path: Path) -> None:
    files = {"inspect": tmp_path / "w.caffemodel", "data show": tmp_path / "db"}
    if words == ["inspect"]:
        layer = schema.NetParameter().layer.add(name="ip", type="InnerProduct")
        layer.blobs.add(data=[1.0, 2.0]).shape.dim[:] = [1, 2]
        files["inspect"].write_bytes(schema.NetParameter(layer=[layer]).SerializeToString())
    if words == ["data", "show"]:
        with create_database(str(tmp_path / "db"), "LMDB") as writer:
            writer.put([(b"0", make_datum(numpy.zeros((1, 2, 3), numpy.uint8), 4).SerializeToString())])
    own = files.get(" ".join(words), net)
    done = shell('"$@" > /dev/full', *words, *([] if words in HELP else [str(own)]))
    lines = [text for text in done.stderr.splitlines() if not text.startswith("warning: ")]
    assert (done.returncode, lines) == (1, ["No space left on device"])


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_help_without_an_output_is_silent(words: list[str]) -> None:
    done = shell('"$@" >&-', *words)
    assert (done.returncode, done.stderr) == (0, "")


BROKEN = [  # a package, what loading it does, the command that needs it, the message
    (
        "matplotlib",
        "raise ValueError('numpy.dtype size\\n changed')",
        ["plot", "a.log", "a.png"],
        "numpy.dtype size changed",
    ),
    ("matplotlib", "raise ImportError('no mpl', name='matplotlib')", ["plot", "a.log", "a.png"], "no mpl"),
    (
        "torch",
        "raise OSError('libcudart.so: not found')",
        ["time", "--model", "net.prototxt"],
        "libcudart.so: not found",
    ),
    ("h5py", "def x(:", ["inspect", "w.h5"], "invalid syntax"),
    ("click", "raise ImportError('no click', name='click')", ["check", "net.prototxt"], "no click"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("package", "code", "words", "message"), BROKEN)
def test_a_broken_or_missing_package_is_one_line(
    package: str, code: str, words: list[str], message: str, net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.log").write_text("Iteration 1, loss = 3")
    Path("w.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    Path("stubs").mkdir()
    Path(f"stubs/{package}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", "stubs")
    done = shell('"$@"', *words)
    assert done.returncode == 1
    assert re.fullmatch(
        rf"the package '.*\b{package}\b.*' cannot be imported: {message}.*; reinstall it\n", done.stderr
    )


MISSING = [  # a package, the extra that has it, the command that needs it
    ("matplotlib", "evaluation", ["plot", "a.log", "a.png"]),
    ("sklearn", "evaluation", ["plot", "features.npz", "a.png"]),
    ("lmdb", "data", ["data", "digits", ".", "--backend", "lmdb"]),
    ("plyvel", "data", ["data", "digits", "."]),
    ("h5py", "data", ["inspect", "w.h5"]),
    ("onnx", "onnx", ["port", "net.prototxt", "-o", "net.onnx"]),
]


@pytest.mark.slow
@pytest.mark.parametrize(("package", "extra", "words"), MISSING)
def test_a_missing_extra_is_one_line_with_the_command_that_installs_it(
    package: str, extra: str, words: list[str], net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.log").write_text("Iteration 1, loss = 3")
    Path("w.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    Path(net).write_text(NET.replace("Relu", "ReLU"))
    names = numpy.array(["a", "b", "c"])
    numpy.savez("features.npz", features=numpy.eye(3), labels=numpy.arange(3), names=names, class_names=names)
    Path("stubs").mkdir()
    Path(f"stubs/{package}.py").write_text(f"raise ModuleNotFoundError('nothing of that name', name={package!r})")
    monkeypatch.setenv("PYTHONPATH", "stubs")
    done = shell('"$@"', *words)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert package in line
    assert line.endswith(f"python -m pip install 'siamese-proto[{extra}]'")


LITTLE = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
from siamese_proto.cli import main
main(sys.argv[1:])
"""
LARGE = """
layer { name: "in" type: "DummyData" top: "d" dummy_data_param { shape { dim: 2147483647 } } }
layer { name: "l" type: "Reduction" bottom: "d" top: "l" loss_weight: 1 }
"""


@pytest.mark.slow
@pytest.mark.parametrize("words", [["time", "--model", "large.prototxt"], ["plot", "zeros.log", "a.png"]])
def test_too_little_memory_is_one_line(words: list[str], tmp_path: Path) -> None:
    """Of torch, whose error is a RuntimeError, and of Python."""
    (tmp_path / "large.prototxt").write_text(LARGE)
    with open(tmp_path / "zeros.log", "wb") as file:
        file.truncate(8 << 30)  # which needs no space
    code = [sys.executable, "-c", LITTLE, *words]
    done = subprocess.run(code, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch("not enough memory.*; try smaller batches, or a machine with more memory\n", done.stderr)


@pytest.mark.parametrize("program", ["/usr/local/bin/siamese-proto", "-m"])
def test_an_interrupt_while_the_command_loads_is_one_word(program: str) -> None:
    code = f"import sys; sys.argv[0] = {program!r}; import siamese_proto; raise KeyboardInterrupt"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "interrupted\n")


@pytest.mark.slow
def test_the_library_does_not_handle_interrupts_of_other_programs() -> None:
    code = "import siamese_proto; raise KeyboardInterrupt"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert done.stderr.startswith("Traceback")
    error = "import sys; sys.argv[0] = 'siamese-proto'; import siamese_proto; raise ValueError('seven')"
    done = subprocess.run([sys.executable, "-c", error], capture_output=True, text=True, check=False)
    assert done.stderr.endswith("ValueError: seven\n")
