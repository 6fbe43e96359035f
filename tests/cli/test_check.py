"""siamese-proto check as editors and CI call it: JSON, exit status, stages, solvers and the sets they test."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from cli_runner import NET, SOLVER, run
from click.testing import CliRunner, Result
from PIL import Image

from siamese_proto.cli import main
from siamese_proto.data.database import create_database
from siamese_proto.data.store import Backend
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


def test_the_exit_status_is_1_for_errors_and_0_for_warnings(folder: Path) -> None:
    (folder / "warned.prototxt").write_text(NET.replace('param { name: "w" } param { name: "c" }', "", 1))
    done = run("check", "warned.prototxt", folder=folder)
    assert done.returncode == 0
    assert "warning[" in done.stdout
    (folder / "wrong.prototxt").write_text(NET.replace('"Slice"', '"Slise"'))
    assert run("check", "warned.prototxt", "wrong.prototxt", folder=folder).returncode == 1
    assert run("check", "wrong.prototxt", "net.prototxt", "--format", "json", folder=folder).returncode == 1


def test_layers_of_a_stage_are_looked_at_when_it_is_named(folder: Path) -> None:
    staged = 'layer { name: "s" type: "ReLU" bottom: "missing" top: "s" include { stage: "deploy" min_level: 2 } }\n'
    (folder / "net.prototxt").write_text(NET + staged)
    assert check("net.prototxt").exit_code == 0
    assert check("net.prototxt", "--stage", "deploy").exit_code == 0
    done = check("net.prototxt", "--stage", "deploy", "--level", "2")
    assert done.exit_code == 1
    assert done.stdout == "net.prototxt:10: error[net]: layer 's': unknown bottom blob 'missing' (index 0)\n"


def test_the_state_of_a_solver_chooses_the_layers_of_its_nets(folder: Path) -> None:
    staged = 'layer { name: "s" type: "ReLU" bottom: "missing" top: "s" include { stage: "extra" } }\n'
    (folder / "net.prototxt").write_text(NET + staged)
    assert check("solver.prototxt").exit_code == 0
    (folder / "solver.prototxt").write_text(SOLVER + 'train_state { stage: "extra" }\n')
    done = check("solver.prototxt")
    assert done.exit_code == 1
    assert done.stdout == "net.prototxt:10: error[net]: layer 's': unknown bottom blob 'missing' (index 0)\n"


def test_a_solver_of_the_old_dialect_is_told_with_the_command_that_upgrades_it(folder: Path) -> None:
    (folder / "solver.prototxt").write_text(SOLVER + "solver_type: ADAM\n")
    done = check("solver.prototxt")
    assert done.exit_code == 0
    assert done.stdout == (
        'solver.prototxt:5: warning[old-dialect]: solver_type replaced by type: "Adam". '
        "For good: siamese-proto upgrade solver.prototxt solver_new.prototxt\n"
    )


def test_the_command_that_upgrades_an_old_net_works(folder: Path) -> None:
    (folder / "my net.prototxt").write_text(
        'layers { name: "d" type: DUMMY_DATA top: "d" dummy_data_param { num: 2 channels: 3 height: 4 width: 5 } }'
    )
    done = check("my net.prototxt")
    command = done.stdout.partition("For good: siamese-proto ")[2]
    assert command == "upgrade 'my net.prototxt' 'my net_new.prototxt'\n"
    assert run("upgrade", "my net.prototxt", "my net_new.prototxt", folder=folder).returncode == 0
    assert check("my net_new.prototxt").stdout == "my net_new.prototxt: no problems\n"


@pytest.mark.parametrize("backend", ["LMDB", "LEVELDB"])
@pytest.mark.parametrize(("iterations", "told"), [(2, True), (3, False), (9, False)])
def test_a_test_that_leaves_records_out_is_told(backend: Backend, iterations: int, told: bool, folder: Path) -> None:
    database(folder / "nowhere", backend, 15)
    (folder / "net.prototxt").write_text(NET.replace("backend: LMDB", f"backend: {backend}"))
    (folder / "solver.prototxt").write_text(f"{SOLVER}test_iter: {iterations}\ntest_interval: 5\n")
    done = check("solver.prototxt")
    assert done.exit_code == 0
    expected = (
        "solver.prototxt:5: warning[test-iter]: test_iter 2 with batches of 7 tests 14 of the 15 records of 'nowhere'; "
        "test_iter: 3 tests all\n"
    )
    assert done.stdout == (expected if told else "solver.prototxt: no problems\n")


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
    assert check("solver.prototxt").stdout == (
        "solver.prototxt:5: warning[test-iter]: test_iter 2 with batches of 2 tests 4 of the 5 records of 'list.txt'; "
        "test_iter: 3 tests all\n"
    )


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ('"HDF5Data" top: "d" top: "l" hdf5_data_param { source: "list.txt" batch_size: 2 }', "list.txt"),
        ('"PairData" top: "d" top: "l" pair_data_param { source: "digits" tuples: 5 batch_size: 2 }', "digits"),
    ],
)
def test_a_test_that_leaves_rows_or_tuples_out_is_told(source: str, name: str, folder: Path) -> None:
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


def test_a_damaged_test_set_is_told_once_and_stops_nothing(folder: Path) -> None:
    (folder / "nowhere").mkdir()
    (folder / "nowhere" / "data.mdb").write_bytes(b"no database")
    (folder / "solver.prototxt").write_text(f"{SOLVER}test_iter: 2\ntest_interval: 5\n")
    done = check("solver.prototxt")
    assert done.exit_code == 1
    assert done.stdout.startswith("net.prototxt:3: error[net]: layer 'pairs': LMDB database 'nowhere' is damaged")
    assert done.stdout.count("\n") == 1


STAGED = """\
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 5 dim: 3 } } include { stage: "fit" } }
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 } } include { stage: "use" } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4 } }
layer { name: "relu" type: "ReLU" bottom: "ipp" top: "relu" include { stage: "use" } }
"""


def test_a_net_is_looked_at_in_the_stages_that_its_own_rules_ask_for(folder: Path) -> None:
    (folder / "net.prototxt").write_text(STAGED)
    misspelt = "net.prototxt:4: error[net]: layer 'relu': unknown bottom blob 'ipp' (index 0); did you mean 'ip'?\n"
    assert check("net.prototxt").stdout == misspelt
    assert check("net.prototxt", "--stage", "fit").stdout == "net.prototxt: no problems\n"
    assert check("net.prototxt", "--stage", "other").stdout == (
        "net.prototxt:3: error[net]: layer 'ip': unknown bottom blob 'data' (index 0); layer 'in' (line 1) makes it, "
        "but its rules leave it out in phases TRAIN and TEST and stage 'other'\n"
    )
