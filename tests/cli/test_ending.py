"""How commands end that are not let finish: by a signal, or by a reader that has seen enough."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

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
    """Run a line of the shell in which "$@" is a command of ours."""
    command = [sys.executable, "-m", "siamese_proto", *words]
    return subprocess.run(["sh", "-c", line, "sh", *command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("line", ['"$@" | true', '"$@" >&-'], ids=["a reader that is gone", "no output at all"])
def test_output_that_nobody_takes_ends_a_command_in_silence(net: str, words: list[str], line: str) -> None:
    done = shell(line, *words, net)
    told = [text for text in done.stderr.splitlines() if not text.startswith("warning: ")]
    assert (done.stdout, told) == ("", [])


def test_a_full_disk_under_the_output_is_told_in_one_line(net: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("the system has no /dev/full")
    done = shell('"$@" > /dev/full', "check", net)
    assert (done.returncode, done.stderr) == (1, "No space left on device\n")


@pytest.mark.parametrize("program", ["/usr/local/bin/siamese-proto", "-m"])
def test_an_interrupt_while_the_command_loads_is_one_word(program: str) -> None:
    code = f"import sys; sys.argv[0] = {program!r}; import siamese_proto; raise KeyboardInterrupt"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "interrupted\n")


def test_the_library_leaves_the_interrupts_of_other_programs_alone() -> None:
    code = "import siamese_proto; raise KeyboardInterrupt"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.endswith("KeyboardInterrupt\n")
    assert done.stderr.startswith("Traceback")
    error = "import sys; sys.argv[0] = 'siamese-proto'; import siamese_proto; raise ValueError('seven')"
    done = subprocess.run([sys.executable, "-c", error], capture_output=True, text=True, check=False)
    assert done.stderr.endswith("ValueError: seven\n")
