"""Names with line breaks, carriage returns and terminal codes break no line of what commands print and log."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from cli_runner import run
from click.testing import CliRunner

from siamese_proto.cli import main
from siamese_proto.errors import DataError, escaped, quoted

NAME = "a\rb\n\x1b[31mc\td\x85e\u2028f"
WRITTEN = r"a\rb\n\x1b[31mc\td\x85e\u2028f"
# In a prototxt.
TEXT = r"a\rb\n\033[31mc\td" + "\x85e\u2028f"
NET = """
layer {{ name: "in" type: "DummyData" top: "d" dummy_data_param {{ shape {{ dim: 2 dim: 3 }} }} }}
layer {{ name: "{0}" type: "InnerProduct" bottom: "d" top: "ip" inner_product_param {{ num_output: 4 }} }}
layer {{ name: "loss" type: "Reduction" bottom: "ip" top: "{0}" loss_weight: 1 }}
"""
SOLVER = """net: "net.prototxt" test_iter: 1 test_interval: 1 base_lr: 0.01 lr_policy: "fixed" max_iter: 1 display: 1
debug_info: true snapshot_prefix: "s" random_seed: 1
"""
COMMANDS = [
    ["summary", "net.prototxt"],
    ["summary", "net.prototxt", "--format", "md"],
    ["check", "net.prototxt", "wrong.prototxt"],
    ["train", "--solver", "solver.prototxt"],
    ["test", "--model", "net.prototxt", "--weights", "s_iter_1.caffemodel", "--iterations", "1"],
    ["inspect", "s_iter_1.caffemodel"],
    ["time", "--model", "net.prototxt", "--iterations", "1"],
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder whose names are nasty, and the same with plain ones."""
    folders = []
    for name in (TEXT, "plain"):
        folder = tmp_path_factory.mktemp("names")
        (folder / "net.prototxt").write_text(NET.format(name))
        (folder / "wrong.prototxt").write_text(NET.format(name).replace('bottom: "ip"', f'bottom: "{name}"'))
        (folder / "solver.prototxt").write_text(SOLVER)
        assert run("train", "--solver", "solver.prototxt", folder=folder).returncode == 0
        folders.append(folder)
    return folders[0], folders[1]


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:1] + words[-1:]))
def test_names_with_control_characters_break_no_line(
    words: list[str], folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = []
    for folder in folders:
        monkeypatch.chdir(folder)
        done = CliRunner().invoke(main, words)
        assert done.exit_code == (1 if words[0] == "check" else 0), done.output
        texts.append(done.output)
    assert len(texts[0].split("\n")) == len(texts[1].split("\n"))
    lines = [line.replace("\t", "") for line in texts[0].split("\n")] if words[0] == "time" else texts[0].split("\n")
    logged = [line for line in lines if not line.startswith(("net:", "debug_info"))]
    assert [line for line in logged if not line.isprintable()] == []
    assert WRITTEN.replace("\\", "") in texts[0].replace("\\", "")


def test_csv_and_json_contain_the_unchanged_name(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders[0])
    done = CliRunner().invoke(main, ["summary", "net.prototxt", "--format", "csv"])
    rows = list(csv.reader(io.StringIO(done.stdout_bytes.decode(), newline="")))
    assert [len(row) for row in rows] == [len(rows[0])] * 4
    assert rows[2][0] == NAME
    done = CliRunner().invoke(main, ["summary", "net.prototxt", "--format", "json"])
    assert json.loads(done.stdout)["rows"][1]["layer"] == NAME


def test_names_that_the_output_cannot_encode_are_escapes(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    (folders[1] / "kanji.prototxt").write_text(NET.format("漢字"))
    done = run("summary", "kanji.prototxt", "--format", "csv", folder=folders[1])
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u6f22\u5b57,InnerProduct" in done.stdout


def test_the_text_of_an_error_is_always_one_line() -> None:
    assert str(DataError(f"image {NAME} is gone")) == r"image a\rb \x1b[31mc\td\x85e\u2028f is gone"
    assert quoted(NAME) == f"'{WRITTEN}'"
    assert escaped("größe 漢字") == "größe 漢字"
