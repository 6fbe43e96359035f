"""Paths with control characters: a backslash in quotes begins an escape."""

from __future__ import annotations

from pathlib import Path

import pytest

import siamese_proto as sp
from siamese_proto.check.net import check_net
from siamese_proto.check.solver import check_solver
from siamese_proto.errors import NetError
from siamese_proto.solver.settings import read_settings
from siamese_proto.solver.snapshots import check_folder

CAUSE = " (it contains a newline: in quotes, \\n is one character; write / or \\\\ instead of each \\)"
FIT = 'base_lr: 0.05 lr_policy: "fixed" max_iter: 2 '


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("Data", "data_param.source"),
        ("Data", "transform_param.mean_file"),
        ("ImageData", "image_data_param.source"),
        ("ImageData", "image_data_param.root_folder"),
        ("HDF5Data", "hdf5_data_param.source"),
        ("HDF5Output", "hdf5_output_param.file_name"),
        ("WindowData", "window_data_param.source"),
        ("WindowData", "window_data_param.root_folder"),
        ("PairData", "pair_data_param.source"),
        ("PairData", "pair_data_param.labels"),
        ("InfogainLoss", "infogain_loss_param.source"),
    ],
)
def test_a_control_character_in_a_path_of_a_layer_is_a_warning_with_the_cause(kind: str, field: str) -> None:
    settings, _, name = field.partition(".")
    text = f'layer {{ name: "d" type: "{kind}" top: "a"\n  {settings} {{ {name}: "C:\\Users\\me\\new" }} }}'
    findings = [str(finding) for finding in check_net(text) if finding.code == "odd-path"]
    assert findings == [f"<text>:2: warning[odd-path]: layer 'd': {field} 'C:\\Users\\me\\new'{CAUSE}"]
    assert [f for f in check_net(text.replace("\\", "\\\\")) if f.code == "odd-path"] == []
    assert [f for f in check_net(text.replace("\\", "/")) if f.code == "odd-path"] == []


@pytest.mark.parametrize("field", ["net", "train_net", "test_net[0]", "snapshot_prefix", "weights[0]"])
def test_a_control_character_in_a_path_of_a_solver_is_a_warning_with_the_cause(field: str, tmp_path: Path) -> None:
    solver = tmp_path / "solver.prototxt"
    solver.write_text(f'{FIT}\n{field.partition("[")[0]}: "C:\\nets\\twin"')
    findings = [str(finding) for finding in check_solver(solver) if finding.code == "odd-path"]
    assert findings == [f"{solver}:2: warning[odd-path]: {field.partition('[')[0]} 'C:\\nets\\twin'{CAUSE}"]


def test_other_control_characters_are_named_too() -> None:
    text = 'layer {{ name: "d" type: "Data" data_param {{ source: "C:{}x" }} }}'
    for written, name in (("\\t", "a tab"), ("\\r", "a carriage return"), ("\\b", "a control character")):
        (finding,) = (each for each in check_net(text.format(written)) if each.code == "odd-path")
        assert f"it contains {name}: in quotes, " in finding.text


def test_a_file_missing_because_of_an_escape_is_reported_with_the_cause(tmp_path: Path) -> None:
    text = 'layer { name: "d" type: "Data" top: "a" data_param { source: "C:\\new" backend: LMDB batch_size: 4 } }'
    (note,) = sp.build_graph(text).notes
    assert CAUSE in note
    solver = tmp_path / "solver.prototxt"
    solver.write_text(f'net: "C:\\new.prototxt" {FIT}')
    with pytest.raises(NetError, match=r"net file .* not found.*it contains a newline"):
        read_settings(solver)
    with pytest.raises(NetError, match=r"folder for snapshots.*it contains a newline"):
        check_folder(f"{tmp_path}/\new/twin")


@pytest.mark.parametrize("named", ["models/twin/net.prototxt", "/caffe/net.prototxt", "C:\\\\nets\\\\net.prototxt"])
def test_a_net_of_the_same_name_next_to_the_solver_is_named(named: str, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text("")
    solver = tmp_path / "solver.prototxt"
    solver.write_text(f'net: "{named}" {FIT}')
    hint = '; a file of that name is next to the solver: net: "net.prototxt"'
    (finding,) = check_solver(solver)
    assert finding.text.endswith(hint)
    solver.write_text(f'net: "{named.replace("net.p", "other.p")}" {FIT}')
    (finding,) = check_solver(solver)
    assert "next to the solver:" not in finding.text
