from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import paths
import pytest
from cli_runner import NET, SHAPES, SOLVER, run
from click.testing import CliRunner
from problem_lines import problem_lines

import siamese_proto
from siamese_proto.cli import COMMANDS, main
from siamese_proto.proto.reader import parse_net, parse_solver

GOLDEN = paths.GOLDEN


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


def test_help_lists_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.partition("Commands:\n")[2].splitlines()] == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_listed_command_exists(command: str) -> None:
    done = CliRunner().invoke(main, [command, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output


def test_version() -> None:
    assert run("--version").stdout.split()[-1] == siamese_proto.__version__


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["draw", "net.prototxt", "net.svg"],
        ["check", "net.prototxt"],
        ["summary", "net.prototxt"],
        ["upgrade", "net.prototxt", "new.prototxt"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_that_do_not_run_nets_never_load_torch(arguments: list[str], folder: Path) -> None:
    """They also work if the net's database is missing."""
    code = f"""
import sys
from siamese_proto.cli import main
status = main({arguments!r}, standalone_mode=False)
assert not status, status
assert "torch._C" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_missing_database_is_a_note_with_the_option_to_use(folder: Path) -> None:
    done = run("summary", "net.prototxt", folder=folder)
    assert done.returncode == 0
    assert done.stderr == (
        "note: net.prototxt:3: layer 'pairs': database 'nowhere' is not there in the working directory; make it with "
        "'siamese-proto data'; to set the shape, use --shape BLOB=N,C,H,W\n"
    )


@pytest.mark.slow
def test_errors_of_a_layer_are_printed_and_the_rest_is_shown(folder: Path) -> None:
    (folder / "bad.prototxt").write_text(
        'layer { name: "r" type: "ReLU" bottom: "y" top: "z" }\n'
        'layer { name: "s" type: "ReLU" bottom: "z" top: "z" }\n'
        'layer { name: "i" type: "Input" top: "z" input_param { shape { dim: 2 } } include { } exclude { } }\n'
    )
    for command in (["summary", "bad.prototxt"], ["draw", "bad.prototxt", "bad.svg"]):
        done = run(*command, folder=folder)
        assert done.returncode == 0
        assert done.stderr.splitlines() == [
            "warning: bad.prototxt:1: layer 'r': unknown bottom blob 'y' (index 0)",
            "warning: bad.prototxt:3: layer 'i': has both include and exclude rules; give one kind only",
        ]
    assert (folder / "bad.svg").stat().st_size > 500


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["svg", "png", "pdf", "dot"])
def test_draw_writes_every_format(ending: str, folder: Path) -> None:
    done = run("draw", "net.prototxt", f"net.{ending}", "--rankdir", "LR", *SHAPES, folder=folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (folder / f"net.{ending}").stat().st_size > 500


@pytest.mark.slow
def test_draw_takes_style_detail_towers_and_fusing(folder: Path) -> None:
    look = ["--style", "dark", "--detail", "full", "--towers", "collapsed", "--fused", "--phase", "all"]
    done = run("draw", "net.prototxt", "net.dot", *look, *SHAPES, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "style-dark detail-full" in (folder / "net.dot").read_text(encoding="utf-8")


def test_drawing_prints_a_note_if_no_towers_can_be_fused(folder: Path) -> None:
    (folder / "plain.prototxt").write_text("""
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }""")
    done = run("draw", "plain.prototxt", "net.dot", "--fused", folder=folder)
    assert done.returncode == 0
    assert done.stderr == (
        "note: nothing is fused: no towers share all their parameters, or their shapes are unknown\n"
    )


@pytest.mark.slow
def test_shape_options_replace_the_database(folder: Path) -> None:
    assert run("draw", "net.prototxt", "net.dot", *SHAPES, folder=folder).returncode == 0
    assert "7\u00d72\u00d75\u00d74" in (folder / "net.dot").read_text(encoding="utf-8")


@pytest.mark.slow
def test_phase_level_and_stage_choose_layers(folder: Path) -> None:
    (folder / "net.prototxt").write_text("""
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "always" type: "ReLU" bottom: "x" top: "always" }
        layer { name: "tested" type: "ReLU" bottom: "x" top: "tested" include { phase: TEST } }
        layer { name: "staged" type: "ReLU" bottom: "x" top: "staged" include { stage: "deep" } }
        layer { name: "high" type: "ReLU" bottom: "x" top: "high" include { min_level: 2 } }
    """)

    def layers(*options: str) -> list[str]:
        done = run("summary", "net.prototxt", "--format", "json", *options, folder=folder)
        return [row["layer"] for row in json.loads(done.stdout)["rows"]]

    assert layers() == ["in", "always"]
    assert layers("--phase", "test") == ["in", "always", "tested"]
    assert layers("--stage", "wide,deep") == ["in", "always", "staged"]
    assert layers("--level", "2") == ["in", "always", "high"]


def test_summary_is_a_table_that_counts_shared_parameters_once(folder: Path) -> None:
    """One weight of 3 x 20 and one bias of 3, used twice; 7 * 3 * 20 multiply-adds per tower."""
    done = run("summary", "net.prototxt", *SHAPES, folder=folder)
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "twin (TRAIN)"
    assert "ip InnerProduct 3 7x3 63 ip_b yes 1, 1 420 84 B" in lines
    assert "ip_b InnerProduct 3 7x3 63 ip yes 1, 1 420 84 B" in lines
    assert lines[-3:] == [
        "Parameters: 63 (126 if nothing were shared)",
        "Multiply-adds of a forward pass: 840",
        f"Memory of all outputs: {4 * (7 * 2 * 5 * 4 + 7 + 2 * 7 * 5 * 4 + 2 * 7 * 3 + 1) / 1000:.2f} kB",
    ]


def test_summary_reports_unknown_values(folder: Path) -> None:
    done = run("summary", "net.prototxt", folder=folder)
    assert done.returncode == 0
    assert "Parameters: not known" in done.stdout
    assert "Note: " in done.stdout


@pytest.mark.slow
def test_summary_in_csv_and_markdown(folder: Path) -> None:
    rows = list(
        csv.DictReader(run("summary", "net.prototxt", "--format", "csv", *SHAPES, folder=folder).stdout.splitlines())
    )
    assert [row["layer"] for row in rows] == ["pairs", "cut", "ip", "ip_b", "loss"]
    assert (rows[2]["outputs"], rows[2]["parameters"], rows[2]["shared_with"]) == ("7x3", "63", "ip_b")
    table = run("summary", "net.prototxt", "--format", "md", *SHAPES, folder=folder).stdout.splitlines()
    assert {line.count("|") for line in table[:7]} == {11}
    assert "| ip\\_b | InnerProduct | 3 | 7x3 | 63 | ip | yes | 1, 1 | 420 | 84 B |" in table


@pytest.mark.slow
def test_check_recognizes_nets_and_solvers_and_reports_nothing_for_valid_files(folder: Path) -> None:
    done = run("check", "net.prototxt", "solver.prototxt", folder=folder)
    assert (done.returncode, done.stdout) == (0, "net.prototxt: no problems\nsolver.prototxt: no problems\n")


@pytest.mark.slow
def test_check_reports_every_problem_with_its_line(folder: Path) -> None:
    (folder / "net.prototxt").write_text(NET.replace('bottom: "b"', 'bottom: "bb"').replace("axis: 1", "axes: 1"))
    done = run("check", "net.prototxt", folder=folder)
    assert done.returncode == 1
    rows = [line.split(": ")[:2] for line in done.stdout.splitlines()]
    assert ["net.prototxt:4", "error[unknown-field]"] in rows
    assert ["net.prototxt:7", "error[net]"] in rows
    assert "unknown bottom blob 'bb'" in done.stdout


@pytest.mark.slow
def test_check_warns_about_partly_shared_parameters_and_exits_with_0(folder: Path) -> None:
    text = NET.replace(
        'top: "ip_b" param { name: "w" } param { name: "c" }', 'top: "ip_b" param { name: "w" } param { }'
    )
    (folder / "net.prototxt").write_text(text)
    done = run("check", "net.prototxt", folder=folder)
    assert done.returncode == 0
    assert any(line.startswith("net.prototxt:7: warning[") for line in done.stdout.splitlines())


@pytest.mark.slow
def test_check_of_a_solver_reports_all_unknown_fields(folder: Path) -> None:
    (folder / "solver.prototxt").write_text(SOLVER + "gama: 0.1\nsnapshoot: 3\n")
    done = run("check", "solver.prototxt", folder=folder)
    assert done.returncode == 1
    assert [line.split(": ")[0] for line in problem_lines(done.stdout)] == ["solver.prototxt:5", "solver.prototxt:6"]
    assert "did you mean 'gamma'?" in done.stdout


@pytest.mark.slow
def test_check_of_a_solver_checks_its_net(folder: Path) -> None:
    (folder / "net.prototxt").write_text(NET.replace('bottom: "b"', 'bottom: "bb"'))
    done = run("check", "solver.prototxt", folder=folder)
    assert done.returncode == 1
    assert "net.prototxt:7: error[net]: " in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"layer {", "file.prototxt:1: error[syntax]: "),
        (b"\x0a\x03\x00\x01", "file.prototxt:"),
        (b"", "file.prototxt:1: error[syntax]: "),
        (None, "file.prototxt:1: error[syntax]: no such file"),
    ],
    ids=["open brace", "binary", "empty", "missing"],
)
def test_check_of_a_file_that_is_no_prototxt_is_one_error(content: bytes | None, line: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "file.prototxt").write_bytes(content)
    done = run("check", "file.prototxt", folder=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith(line)
    assert len(problem_lines(done.stdout)) == 1


def test_upgrade_writes_old_nets_in_the_current_format(tmp_path: Path) -> None:
    old = next((GOLDEN / "upgrade").glob("legacy_input.prototxt"))
    done = run("upgrade", old, "new.prototxt", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = parse_net(GOLDEN / "upgrade" / "legacy_input.expected.prototxt").message
    assert parse_net(tmp_path / "new.prototxt").message == expected
    assert done.stdout.endswith("new.prototxt: written\n")


@pytest.mark.slow
def test_upgrade_writes_old_solvers_in_the_current_format(tmp_path: Path) -> None:
    (tmp_path / "solver.prototxt").write_text(SOLVER + "solver_type: ADAM\n")
    assert run("upgrade", "solver.prototxt", "new.prototxt", folder=tmp_path).returncode == 0
    assert parse_solver(tmp_path / "new.prototxt").message.type == "Adam"
    assert "solver_type" not in (tmp_path / "new.prototxt").read_text()


@pytest.mark.slow
def test_upgrade_of_weights_keeps_every_number(tmp_path: Path) -> None:
    from siamese_proto.weights.formats import read_weights

    source = GOLDEN / "flagship" / "init.caffemodel"
    done = run("upgrade", source, "new.caffemodel", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    before, after = read_weights(source), read_weights(tmp_path / "new.caffemodel")
    assert [layer.name for layer in before.layers] == [layer.name for layer in after.layers]
    for old, new in zip(before.layers, after.layers, strict=True):
        assert [blob.tobytes() for blob in old.blobs] == [blob.tobytes() for blob in new.blobs]


PROBLEMS = [
    (["draw", "missing.prototxt", "x.svg"], 1, "missing.prototxt: no such file"),
    (
        ["draw", "net.prototxt", "x.jpg"],
        1,
        "cannot draw to 'x.jpg': its name must end in one of .svg, .png, .pdf, .dot, .html",
    ),
    (["draw", "net.prototxt", "no/x.svg"], 1, "cannot write 'no/x.svg': there is no folder 'no'"),
    (["upgrade", "net.prototxt", "no/x.prototxt"], 1, "cannot write 'no/x.prototxt': there is no folder 'no'"),
    (
        ["summary", "net.prototxt", "--shape", "pair=7,2,5,4"],
        1,
        "a shape is given for 'pair', which is no blob of the net",
    ),
]


@pytest.mark.parametrize(("arguments", "status", "message"), PROBLEMS, ids=lambda value: str(value)[:40])
def test_problems_are_one_line_on_stderr(arguments: list[str], status: int, message: str, folder: Path) -> None:
    (folder / "bad.prototxt").write_text('name: "bad"\nlayer { name: "r" type: "ReLU" bottom: "y" top: "z" }')
    done = run(*arguments, folder=folder)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(message), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["drw"], "no such command 'drw'; did you mean 'draw'?"),
        (["frobnicate"], "no such command 'frobnicate'; `python -m siamese_proto --help` lists them"),
        (["draw", "net.prototxt"], "Missing argument 'OUT' or option '--html'."),
        (["draw", "net.prototxt", "x.svg", "--phase", "DEPLOY"], "'DEPLOY' is not one of"),
        (["summary", "net.prototxt", "--shape", "pairs"], "'pairs' is not of the form pair_data=64,2,28,28"),
        (["summary", "net.prototxt", "--shape", "pairs=7,x"], "'pairs=7,x' is not of the form pair_data=64,2,28,28"),
        (["check"], "Missing argument 'FILES...'"),
        (["summary"], "Missing argument 'NET'."),
        (["time"], "Missing argument 'NET'."),
        (["compare", "net.prototxt", "a.png"], "Missing argument 'B'."),
        (["search", "--model", "net.prototxt"], "Missing argument 'QUERY'."),
        (["summary", "--model", "net.prototxt", "net.prototxt"], "the net is given twice, as NET and as --model"),
        (["check", "net.prototxt", "--model", "net.prototxt"], "the net is given twice, as FILES... and as --model"),
        (["draw", "net.prototxt", "x.svg", "-model", "net.prototxt"], "the net is given twice, as NET and as --model"),
        (["search", "net.prototxt", "a.png", "--model", "b"], "the net is given twice, as NET and as --model"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_usage_exits_with_2(arguments: list[str], message: str, folder: Path) -> None:
    done = run(*arguments, folder=folder)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["summary", "check", "draw"])
@pytest.mark.parametrize("net", [["net.prototxt"], ["--model", "net.prototxt"], ["-model=net.prototxt"]])
def test_the_net_is_an_argument_or_an_option(command: str, net: list[str], folder: Path) -> None:
    done = run(command, *net, *(["net.dot"] if command == "draw" else []), *SHAPES, folder=folder)
    assert (done.returncode, done.stderr) == (0, "")


def test_help_lists_options_by_section() -> None:
    done = CliRunner().invoke(main, ["draw", "--help"])
    sections = [line for line in done.output.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert sections == ["Which net:", "Output:", "Appearance:", "Options:"]
    assert done.output.index("--phase") < done.output.index("Output:") < done.output.index("--html FILE")


@pytest.mark.slow
def test_a_failed_drawing_leaves_the_old_file(folder: Path) -> None:
    (folder / "net.svg").write_text("old")
    (folder / "net.prototxt").write_text("layer {")
    assert run("draw", "net.prototxt", "net.svg", folder=folder).returncode == 1
    assert (folder / "net.svg").read_text() == "old"


@pytest.mark.slow
def test_the_output_may_be_closed_early(folder: Path) -> None:
    many = "".join(f'layer {{ name: "relu{i}" type: "ReLU" bottom: "x" top: "x{i}" }}\n' for i in range(2000))
    (folder / "net.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }\n' + many
    )
    command = f"{sys.executable} -m siamese_proto summary net.prototxt | head -n 1"
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_an_interrupt_exits_with_130(folder: Path) -> None:
    code = """
import os, signal, sys
from siamese_proto.cli import check, main
def interrupted(path):
    os.kill(os.getpid(), signal.SIGINT)
check.kind_of = interrupted
main(["check", "net.prototxt", "--shape", "pairs=7,2,5,4"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "interrupted\n")


@pytest.mark.slow
def test_warnings_are_one_line(folder: Path) -> None:
    code = """
import warnings
from siamese_proto.cli import check, main
def warned(path):
    warnings.warn("look\\nhere", stacklevel=1)
    return "net"
check.kind_of = warned
main(["check", "net.prototxt", "--shape", "pairs=7,2,5,4"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == "warning: look here\n"
