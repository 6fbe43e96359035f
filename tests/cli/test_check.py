"""siamese-proto check as editors and CI call it: JSON, exit status, stages, solvers and the sets they test."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from cli_runner import NET, SHAPES, SOLVER, run
from click.testing import CliRunner, Result
from PIL import Image
from problem_lines import problem_lines

from siamese_proto.cli import main
from siamese_proto.data.databases.database import create_database
from siamese_proto.data.databases.store import Backend
from siamese_proto.proto import schema


def check(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


def database(path: Path, backend: Backend, records: int) -> None:
    datum = schema.Datum(channels=2, height=3, width=4, data=bytes(24), label=1).SerializeToString()
    with create_database(str(path), backend, overwrite=True) as writer:
        writer.put([(f"{i:08}".encode(), datum) for i in range(records)])


def test_findings_as_json(folder: Path) -> None:
    (folder / "net.prototxt").write_text(NET.replace("axis: 1", "axes: 1").replace('name: "ip_b"', 'name: "i\u00e9"'))
    done = check("--format", "json", "net.prototxt")
    assert done.exit_code == 1
    assert json.loads(done.stdout) == [
        {
            "file": "net.prototxt",
            "line": 4,
            "column": 83,
            "severity": "error",
            "code": "unknown-field",
            "text": "layer 'cut': unknown field 'axes' in slice_param; did you mean 'axis'?",
        }
    ]
    (folder / "net.prototxt").write_text(NET)
    assert json.loads(check("--format", "json", "net.prototxt", "solver.prototxt").stdout) == []


@pytest.mark.slow
def test_the_exit_status_is_1_for_errors_and_0_for_warnings(folder: Path) -> None:
    (folder / "warned.prototxt").write_text(NET.replace('param { name: "w" } param { name: "c" }', "", 1))
    done = run("check", "warned.prototxt", folder=folder)
    assert done.returncode == 0
    assert "warning[" in done.stdout
    (folder / "wrong.prototxt").write_text(NET.replace('"Slice"', '"Slise"'))
    assert run("check", "warned.prototxt", "wrong.prototxt", folder=folder).returncode == 1
    assert run("check", "wrong.prototxt", "net.prototxt", "--format", "json", folder=folder).returncode == 1


MISSING = "net.prototxt:10: error[net]: layer 's': unknown bottom blob 'missing' (index 0)"


def test_layers_of_a_stage_are_checked_when_it_is_specified(folder: Path) -> None:
    staged = 'layer { name: "s" type: "ReLU" bottom: "missing" top: "s" include { stage: "deploy" min_level: 2 } }\n'
    (folder / "net.prototxt").write_text(NET + staged)
    assert check("net.prototxt").exit_code == 0
    assert check("net.prototxt", "--stage", "deploy").exit_code == 0
    done = check("net.prototxt", "--stage", "deploy", "--level", "2")
    assert done.exit_code == 1
    assert problem_lines(done.stdout) == [
        "net.prototxt:10: error[net]: layer 's': unknown bottom blob 'missing' (index 0)"
    ]


def test_the_state_of_a_solver_chooses_the_layers_of_its_nets(folder: Path) -> None:
    staged = 'layer { name: "s" type: "ReLU" bottom: "missing" top: "s" include { stage: "extra" } }\n'
    (folder / "net.prototxt").write_text(NET + staged)
    assert check("solver.prototxt").exit_code == 0
    (folder / "solver.prototxt").write_text(SOLVER + 'train_state { stage: "extra" }\n')
    done = check("solver.prototxt")
    assert done.exit_code == 1
    assert problem_lines(done.stdout) == [
        "net.prototxt:10: error[net]: layer 's': unknown bottom blob 'missing' (index 0)"
    ]


def test_an_old_solver_is_reported_with_the_command_that_upgrades_it(folder: Path) -> None:
    (folder / "solver.prototxt").write_text(SOLVER + "solver_type: ADAM\n")
    done = check("solver.prototxt")
    assert done.exit_code == 0
    assert problem_lines(done.stdout) == [
        'solver.prototxt:5: warning[old-dialect]: solver_type replaced by type: "Adam". '
        "To upgrade the file: siamese-proto upgrade solver.prototxt solver_new.prototxt"
    ]


def test_the_command_that_upgrades_an_old_net_works(folder: Path) -> None:
    (folder / "my net.prototxt").write_text(
        'layers { name: "d" type: DUMMY_DATA top: "d" dummy_data_param { num: 2 channels: 3 height: 4 width: 5 } }'
    )
    done = check("my net.prototxt")
    command = problem_lines(done.stdout)[0].partition("To upgrade the file: siamese-proto ")[2]
    assert command == "upgrade 'my net.prototxt' 'my net_new.prototxt'"
    assert run("upgrade", "my net.prototxt", "my net_new.prototxt", folder=folder).returncode == 0
    assert check("my net_new.prototxt").stdout == "my net_new.prototxt: no problems\n"


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
@pytest.mark.parametrize(("iterations", "is_reported"), [(2, True), (3, False), (9, False)])
def test_a_test_that_skips_records_is_reported(
    backend: Backend, iterations: int, is_reported: bool, folder: Path
) -> None:
    database(folder / "nowhere", backend, 15)
    (folder / "net.prototxt").write_text(NET.replace("backend: LMDB", f"backend: {backend}"))
    (folder / "solver.prototxt").write_text(f"{SOLVER}test_iter: {iterations}\ntest_interval: 5\n")
    done = check("solver.prototxt")
    assert done.exit_code == 0
    expected = (
        "solver.prototxt:5: warning[test-iter]: test_iter 2 with batches of 7 tests 14 of the 15 records of 'nowhere'; "
        "test_iter: 3 tests all"
    )
    assert problem_lines(done.stdout) == [expected if is_reported else "solver.prototxt: no problems"]


def test_lists_of_images_are_counted_too(folder: Path) -> None:
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(folder / "a.png")
    (folder / "list.txt").write_text("a.png 0\n" * 5)
    (folder / "net.prototxt").write_text(
        'layer { name: "d" type: "ImageData" top: "d" top: "l" '
        '  image_data_param { source: "list.txt" batch_size: 2 } }\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "d" top: "ip" inner_product_param { num_output: 3 } }\n'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "l" top: "loss" }\n'
    )
    (folder / "solver.prototxt").write_text(f"{SOLVER}test_iter: 2\ntest_interval: 5\n")
    assert problem_lines(check("solver.prototxt").stdout) == [
        "solver.prototxt:5: warning[test-iter]: test_iter 2 with batches of 2 tests 4 of the 5 records of 'list.txt'; "
        "test_iter: 3 tests all"
    ]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ('"HDF5Data" top: "d" top: "l" hdf5_data_param { source: "list.txt" batch_size: 2 }', "list.txt"),
        ('"PairData" top: "d" top: "l" pair_data_param { source: "digits" tuples: 5 batch_size: 2 }', "digits"),
    ],
)
def test_a_test_that_skips_rows_or_tuples_is_reported(source: str, name: str, folder: Path) -> None:
    for file, rows in (("1.h5", 2), ("2.h5", 3)):
        with h5py.File(folder / file, "w") as written:
            written["d"], written["l"] = np.zeros((rows, 4), np.float32), np.zeros(rows, np.float32)
    (folder / "list.txt").write_text("1.h5\n2.h5\n")
    (folder / "net.prototxt").write_text(
        f'layer {{ name: "d" type: {source} }}\n'
        'layer { name: "ip" type: "InnerProduct" bottom: "d" top: "ip" inner_product_param { num_output: 3 } }\n'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "l" top: "loss" }\n'
    )
    (folder / "solver.prototxt").write_text(f"{SOLVER}test_iter: 2\ntest_interval: 5\n")
    assert (
        f"test_iter 2 with batches of 2 tests 4 of the 5 records of '{name}'; test_iter: 3 tests all\n"
        in check("solver.prototxt").stdout
    )


def test_a_damaged_test_set_is_reported_once_and_the_check_continues(folder: Path) -> None:
    (folder / "nowhere").mkdir()
    (folder / "nowhere" / "data.mdb").write_bytes(b"no database")
    (folder / "solver.prototxt").write_text(f"{SOLVER}test_iter: 2\ntest_interval: 5\n")
    done = check("solver.prototxt")
    assert done.exit_code == 1
    assert done.stdout.startswith("net.prototxt:3: error[net]: layer 'pairs': LMDB database 'nowhere' is damaged")
    assert len(problem_lines(done.stdout)) == 1


STAGED = """\
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 5 dim: 3 } } include { stage: "fit" } }
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 } } include { stage: "use" } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4 } }
layer { name: "relu" type: "ReLU" bottom: "ipp" top: "relu" include { stage: "use" } }
"""


def test_a_net_is_checked_in_the_stages_of_its_rules(folder: Path) -> None:
    (folder / "net.prototxt").write_text(STAGED)
    misspelt = "net.prototxt:4: error[net]: layer 'relu': unknown bottom blob 'ipp' (index 0); did you mean 'ip'?"
    assert problem_lines(check("net.prototxt").stdout) == [misspelt]
    assert check("net.prototxt", "--stage", "fit").stdout == "net.prototxt: no problems\n"
    assert problem_lines(check("net.prototxt", "--stage", "other").stdout) == [
        "net.prototxt:3: error[net]: layer 'ip': unknown bottom blob 'data' (index 0); layer 'in' (line 1) makes it, "
        "but its rules leave it out in phases TRAIN and TEST and stage 'other'"
    ]


def test_unchecked_parts_are_a_note_on_stderr_with_the_shape_to_specify(folder: Path) -> None:
    for form in ("text", "json"):
        done = check("net.prototxt", "--strict", "--format", form)
        assert done.exit_code == 0  # a note is no warning
        assert done.stdout == ("net.prototxt: no problems\n" if form == "text" else "[]\n")
        assert done.stderr == (
            "net.prototxt:2: note[not-checked]: layer 'pairs': layers that depend on the shapes of 'pairs', 'sim' "
            "were not checked: database 'nowhere' is not there in the working directory; make it with 'siamese-proto "
            "data'. To check them: --shape pairs=N,C,H,W\n"
        )
    done = check("net.prototxt", "--shape", "pairs=7,2,5,4")
    assert (done.stdout, done.stderr) == ("net.prototxt: no problems\n", "")
    done = check("net.prototxt", "--shape", "pairs=7,1,5,4")
    assert problem_lines(done.stdout)[0].startswith("net.prototxt:4: error[net]: layer 'cut': ")
    done = check("solver.prototxt", "net.prototxt", "--shape", "pears=7,2,5,4")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no net has a blob named 'pears'" in done.stderr


def test_the_note_names_a_shape_for_each_top_that_does_not_follow_from_another(folder: Path) -> None:
    (folder / "net.prototxt").write_text(
        'layer { name: "h" type: "HDF5Data" top: "e" top: "f" hdf5_data_param { source: "none" batch_size: 7 } }\n'
        'layer { name: "p" type: "PairData" top: "d" top: "d_p" top: "s" '
        'pair_data_param { source: "no" batch_size: 7 } }\n'
        'layer { name: "cut" type: "Slice" bottom: "d_p" top: "u" top: "v" }\n'
    )
    first, second = check("net.prototxt").stderr.splitlines()
    assert first.endswith("To check them: --shape e=N,C,H,W --shape f=N,C,H,W")
    assert second.endswith("To check them: --shape d=N,C,H,W")
    (line,) = problem_lines(check("net.prototxt", "--shape", "d=7,3,5,4").stdout)
    assert line.startswith("net.prototxt:3: error[net]: layer 'cut': 2 tops do not divide axis 1 of size 3")


def test_strict_makes_warnings_fail(folder: Path) -> None:
    (folder / "warned.prototxt").write_text(NET.replace('param { name: "w" } param { name: "c" }', "", 1))
    assert check("warned.prototxt").exit_code == 0
    assert check("warned.prototxt", "--strict").exit_code == 1
    assert check("net.prototxt", "--strict", *SHAPES).exit_code == 0


def test_a_solver_without_max_iter_is_a_warning(folder: Path) -> None:
    (folder / "solver.prototxt").write_text(SOLVER.replace("max_iter: 10\n", ""))
    done = check("solver.prototxt", *SHAPES)
    assert done.exit_code == 0
    assert problem_lines(done.stdout) == [
        "solver.prototxt:1: warning[solver]: max_iter is missing: `train` needs it, only `Solver.step` does not"
    ]


def test_findings_as_github_workflow_commands_are_escaped(folder: Path) -> None:
    (folder / "a,b 100%.prototxt").write_text(NET.replace("axis: 1", "axes: 1").replace('"cut"', '"50%: a,b"'))
    done = check("a,b 100%.prototxt", "--format", "github", *SHAPES)
    assert done.exit_code == 1
    assert done.stdout == (
        "::error file=a%2Cb 100%25.prototxt,line=4,col=88,title=unknown-field::layer '50%25: a,b': unknown field "
        "'axes' in slice_param; did you mean 'axis'?\n"
    )
    assert check("net.prototxt", "--format", "github").stdout.startswith("::notice file=net.prototxt,line=2,col=1,")
    assert check("net.prototxt", "--format", "github", *SHAPES).stdout == ""


def test_findings_as_sarif_match_the_schema(folder: Path) -> None:
    (folder / "my net.prototxt").write_text(NET.replace("axis: 1", "axes: 1"))
    done = check("my net.prototxt", str(folder / "net.prototxt"), "--format", "sarif")
    assert done.exit_code == 1
    log = json.loads(done.stdout)
    assert (log["version"], log["$schema"]) == ("2.1.0", "https://json.schemastore.org/sarif-2.1.0.json")
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "siamese-proto"
    rules = [rule["id"] for rule in driver["rules"]]
    assert len(rules) == len(set(rules))
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert result["message"]["text"]
        (place,) = (location["physicalLocation"] for location in result["locations"])
        assert min(place["region"].values()) >= 1
    places = [result["locations"][0]["physicalLocation"] for result in run["results"]]
    assert [(r["level"], r["ruleId"]) for r in run["results"]] == [
        ("note", "not-checked"),
        ("error", "unknown-field"),
        ("note", "not-checked"),
    ]
    assert places[1] == {
        "artifactLocation": {"uri": "my%20net.prototxt"},
        "region": {"startLine": 4, "startColumn": 83},
    }
    assert places[2]["artifactLocation"]["uri"] == (folder / "net.prototxt").as_uri()
    empty = json.loads(check("net.prototxt", "--format", "sarif", *SHAPES).stdout)["runs"][0]
    assert empty["results"] == []  # required, otherwise the scanner did not run


@pytest.mark.parametrize("spoil", ["missing", "folder", "bytes", "empty", "source"])
@pytest.mark.parametrize("text_format", ["text", "json"])
def test_every_file_is_reported_regardless_of_the_others(spoil: str, text_format: str, folder: Path) -> None:
    first = folder / "a.prototxt"
    if spoil == "folder":
        first.mkdir()
    elif spoil == "bytes":
        first.write_bytes(bytes(range(256)))
    elif spoil == "empty":
        first.write_bytes(b"")
    elif spoil == "source":
        (folder / "bad.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
        (folder / "list.txt").write_text("bad.h5")
        first.write_text(
            'layer { name: "h" type: "HDF5Data" top: "e" hdf5_data_param { source: "list.txt" batch_size: 7 } }'
        )
    (folder / "net.prototxt").write_text(NET.replace("axis: 1", "axes: 1"))
    done = check("a.prototxt", "net.prototxt", *SHAPES, "--format", text_format)
    assert done.exit_code == 1
    if text_format == "json":
        assert [finding["file"] for finding in json.loads(done.stdout)] == ["a.prototxt", "net.prototxt"]
    else:
        assert [line.partition(":")[0] for line in problem_lines(done.stdout)] == ["a.prototxt", "net.prototxt"]


@pytest.mark.slow
def test_an_error_in_a_layer_does_not_hide_other_files(folder: Path) -> None:
    (folder / "layers.py").write_text(
        "import siamese_proto as sp\n@sp.layer('Faulty')\nclass Faulty(sp.Layer):\n"
        "    def read(self, message):\n        raise ValueError('two\\nlines')\n"
    )
    (folder / "a.prototxt").write_text('layer { name: "f" type: "Faulty" bottom: "x" top: "y" }')
    # In a separate process: a registered layer type stays registered.
    done = run("check", "a.prototxt", "net.prototxt", "--layers", "layers.py", *SHAPES, folder=folder)
    assert problem_lines(done.stdout) == [
        "a.prototxt:1: error[internal]: cannot be checked: ValueError: two lines",
        "net.prototxt: no problems",
    ]


def test_a_dash_reads_the_standard_input() -> None:
    def piped(*arguments: str, text: str) -> Result:
        return CliRunner().invoke(main, arguments, input=text)

    done = piped("check", "-", *SHAPES, text=NET.replace("axis: 1", "axes: 1"))
    assert done.exit_code == 1
    line, source, caret = done.stdout.splitlines()
    assert line.startswith("<stdin>:4: error[unknown-field]: layer 'cut': unknown field 'axes'")
    assert source[caret.index("^") :].startswith("axes: 1")
    assert piped("check", "-", *SHAPES, text=NET).stdout == "-: no problems\n"
    assert piped("check", "-", text="max_iter: 3").exit_code == 1  # a solver without a net
    assert "cut" in piped("summary", "-", *SHAPES, text=NET).stdout
