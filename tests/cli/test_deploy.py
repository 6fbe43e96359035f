"""The command deploy."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import NET, run

import siamese_proto as sp
from siamese_proto.weights import read_weights

pytestmark = pytest.mark.slow


def test_deploy_writes_a_net_that_passes_check_and_summary(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    done = run("deploy", "net.prototxt", "-o", "deploy.prototxt", "--shape", "pairs=7,2,5,4", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "deploy.prototxt: written, with 1 layers\n", "")
    assert run("check", "deploy.prototxt", folder=tmp_path).stdout == "deploy.prototxt: no problems\n"
    done = run("deploy", "net.prototxt", "-o", "both.prototxt", "--both", "--shape", "a=3,1,5,4", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("the shape of 'b' is unknown")
    assert not (tmp_path / "both.prototxt").exists()
    shapes = ("--shape", "a=3,1,5,4", "--shape", "b=3,1,5,4")
    assert run("deploy", "net.prototxt", "-o", "both.prototxt", "--both", *shapes, folder=tmp_path).returncode == 0
    assert run("check", "both.prototxt", folder=tmp_path).stdout == "both.prototxt: no problems\n"


def test_deploy_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    for arguments, message in (
        (["-o", "no/d.prototxt"], "cannot write 'no/d.prototxt': there is no folder 'no'\n"),
        (["-o", "d.prototxt", "--output", "ipp"], "the net has no blob 'ipp'; did you mean 'ip'?\n"),
    ):
        done = run("deploy", "net.prototxt", *arguments, folder=tmp_path)
        assert (done.returncode, done.stderr) == (1, message)


def test_a_note_describes_how_the_towers_differ(tmp_path: Path) -> None:
    head, _, tail = NET.rpartition('param { name: "w" } param { name: "c" }')
    (tmp_path / "net.prototxt").write_text(head + tail)
    arguments = ("deploy", "net.prototxt", "-o", "d.prototxt", "--shape", "pairs=7,2,5,4")
    for number, layer in ((1, "ip"), (2, "ip_b")):
        done = run(*arguments, "--tower", str(number), folder=tmp_path)
        assert (done.returncode, done.stderr) == (
            0,
            "note: the towers differ: layers 'ip' and 'ip_b' do not share their parameters; the net holds tower "
            f"{number} of 2; select another with --tower N, or all with --both\n",
        )
        assert f'name: "{layer}"\n' in (tmp_path / "d.prototxt").read_text()
    assert run(*arguments, "--tower", "3", folder=tmp_path).stderr == (
        "the net has 2 towers, numbered from 1, got tower 3\n"
    )
    assert run(*arguments, "--tower", "1", "--both", folder=tmp_path).returncode == 2


def test_weights_of_the_deploy_net_are_written_next_to_it(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    net = sp.Net(tmp_path / "net.prototxt", "TEST", shapes={"pairs": (7, 2, 5, 4)}, seed=1)
    net.save_weights(tmp_path / "w.caffemodel")
    arguments = ("--shape", "pairs=7,2,5,4", "--weights", "w.caffemodel")
    done = run("deploy", "net.prototxt", "-o", "tower.prototxt", *arguments, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "tower.caffemodel: written, with the weights of ip\ntower.prototxt: written, with 1 layers\n"
    )
    (layer,) = [layer for layer in read_weights(tmp_path / "tower.caffemodel").layers if layer.blobs]
    assert layer.name == "ip"
    assert [blob.tolist() for blob in layer.all_blobs("")] == [tensor.tolist() for tensor in net.params["ip"]]
    (tmp_path / "w.caffemodel").write_bytes((tmp_path / "tower.caffemodel").read_bytes())
    done = run("deploy", "net.prototxt", "-o", "b.prototxt", "--output", "ip_b", *arguments, folder=tmp_path)
    assert (done.returncode, "belongs to another net" in done.stderr) == (1, True)
    assert not (tmp_path / "b.prototxt").exists()
